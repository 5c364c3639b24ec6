//! Servers die with this process, however it dies.
//!
//! A shell holds the reading end of a pipe whose writing end only this process has. When the pipe closes, because this
//! process let go or because it was killed, the shell stops the servers it was told of, and removes what it was told to
//! remove. The shell is in a process group of its own, so that Ctrl-C reaches this process alone and servers are stopped
//! in order. (`PR_SET_PDEATHSIG` would need unsafe code, and fires when the *thread* that spawned ends.)

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use super::DevError;

/// Lines are `<signal> <pid>`, `forget <pid>`, `remove <path>`. A server that ignores its signal for ten seconds is killed.
const SCRIPT: &str = r#"
servers= directories=
while read -r verb rest; do
    case $verb in
        forget) kept=
            for server in $servers; do [ "${server#*:}" = "$rest" ] || kept="$kept $server"; done
            servers=$kept ;;
        remove) directories="$directories
$rest" ;;
        *) servers="$servers $verb:$rest" ;;
    esac
done
for server in $servers; do kill -s "${server%:*}" "${server#*:}" 2>/dev/null; done
tries=0
for server in $servers; do
    while kill -0 "${server#*:}" 2>/dev/null; do
        tries=$((tries + 1))
        if [ "$tries" -gt 200 ]; then kill -s KILL "${server#*:}" 2>/dev/null; break; fi
        sleep 0.05
    done
done
IFS='
'
for directory in $directories; do rm -rf -- "$directory"; done
"#;

#[derive(Debug)]
pub(crate) struct Watchdog {
    /// `None` once it was let go.
    shell: Mutex<Option<Child>>,
}

impl Watchdog {
    pub(crate) fn start() -> Result<Self, DevError> {
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "knarr-watchdog"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir("/")
            .process_group(0)
            .spawn()
            .map_err(|source| DevError::Spawn {
                program: "/bin/sh".into(),
                source,
            })?;
        Ok(Self {
            shell: Mutex::new(Some(shell)),
        })
    }

    /// `signal` without its `SIG`.
    pub(crate) fn watch(&self, signal: &str, pid: u32) {
        self.tell(&format!("{signal} {pid}\n"));
    }

    pub(crate) fn forget(&self, pid: u32) {
        self.tell(&format!("forget {pid}\n"));
    }

    /// `path` must be absolute, and a directory that nobody else uses.
    pub(crate) fn remove_at_end(&self, path: &Path) {
        self.tell(&format!("remove {}\n", path.display()));
    }

    fn tell(&self, line: &str) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        let told = match shell.as_mut().and_then(|shell| shell.stdin.as_mut()) {
            Some(pipe) => pipe.write_all(line.as_bytes()),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the watchdog of the private servers is gone");
        }
    }

    /// Lets go and waits for it to end. What it still watches is stopped.
    pub(crate) fn end(&self) {
        let shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut shell) = shell {
            drop(shell.stdin.take());
            if let Err(error) = shell.wait() {
                tracing::warn!(%error, "the watchdog of the private servers cannot be awaited");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_what_it_watches_when_the_pipe_closes() {
        let watchdog = Watchdog::start().unwrap();
        let sleeper = || Command::new("sleep").arg("30").stdout(Stdio::null()).spawn().unwrap();
        let (mut watched, mut forgotten) = (sleeper(), sleeper());
        let directory = tempfile::tempdir().unwrap().keep().join("with a space");
        std::fs::create_dir(&directory).unwrap();
        watchdog.watch("TERM", watched.id());
        watchdog.watch("TERM", forgotten.id());
        watchdog.forget(forgotten.id());
        watchdog.remove_at_end(&directory);
        // The shell sees a zombie as alive until it is reaped.
        let reaper = std::thread::spawn(move || watched.wait().unwrap());
        watchdog.end();
        assert!(!reaper.join().unwrap().success());
        assert!(forgotten.try_wait().unwrap().is_none());
        assert!(!directory.exists());
        std::fs::remove_dir_all(directory.parent().unwrap()).unwrap();
        forgotten.kill().unwrap();
        forgotten.wait().unwrap();
    }
}
