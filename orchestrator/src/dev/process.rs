//! One server process: started in its own process group, awaited in the background, stopped by its own signal first and
//! `SIGKILL` at a deadline.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::watch;

use super::DevError;
use super::account::Account;
use super::watchdog::Watchdog;

/// `clock_t` of `/proc`: 100 a second on every Linux that Rust supports.
const TICKS_PER_SECOND: u64 = 100;
/// A log that has grown past this is begun anew at the next start.
const LOG_LIMIT_BYTES: u64 = 16 << 20;
const STOP_DEADLINE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(crate) struct ServerProcess {
    pid: u32,
    /// How it is asked to stop.
    signal: Signal,
    /// `None` while it runs.
    exit: watch::Receiver<Option<ExitStatus>>,
    watchdog: Arc<Watchdog>,
}

impl ServerProcess {
    /// Must be called within a tokio runtime.
    pub(crate) fn spawn(
        program: &Path,
        arguments: &[&std::ffi::OsStr],
        directory: &Path,
        log: &Path,
        account: Option<&Account>,
        signal: Signal,
        watchdog: Arc<Watchdog>,
    ) -> Result<Self, DevError> {
        let log = open_log(log)?;
        let errors = log.try_clone().map_err(|error| DevError::path(directory, error))?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            // A developer's own settings must not reach into a private server.
            .env_remove("PGDATA")
            .env_remove("PGPORT")
            .env_remove("PGHOST");
        if let Some(account) = account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut child = command.spawn().map_err(|source| DevError::Spawn {
            program: program.to_owned(),
            source,
        })?;
        let pid = child.id().unwrap_or_default();
        watchdog.watch(signal.as_str().trim_start_matches("SIG"), pid);
        let (sender, exit) = watch::channel(None);
        let watcher = watchdog.clone();
        tokio::spawn(async move {
            let status = child.wait().await.unwrap_or_default();
            watcher.forget(pid);
            let _ = sender.send(Some(status));
        });
        Ok(Self {
            pid,
            signal,
            exit,
            watchdog,
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn exit_status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Resolves when the process has ended, for whatever reason.
    pub(crate) fn exited(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            // An error means that the waiting task is gone, with its runtime.
            let _ = exit.wait_for(Option::is_some).await;
        }
    }

    pub(crate) async fn stop(&self) {
        if self.exit_status().is_some() {
            return;
        }
        send(self.pid, self.signal);
        if tokio::time::timeout(STOP_DEADLINE, self.exited()).await.is_err() {
            tracing::warn!(pid = self.pid, "a private server did not stop in time and is killed");
            self.kill9().await;
        }
        self.watchdog.forget(self.pid);
    }

    /// Kills it and its children, as a crash of the machine would end them: all at once, with nothing tidied up.
    pub(crate) async fn kill9(&self) {
        let mut pids = process_tree(self.pid);
        for pid in &pids {
            send(*pid, Signal::SIGKILL);
        }
        self.exited().await;
        // Orphans are reaped by init; PostgreSQL refuses to start while one of them holds its shared memory.
        while !pids.is_empty() {
            pids.retain(|pid| is_alive(*pid));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn open_log(path: &Path) -> Result<File, DevError> {
    let grown = fs::metadata(path).is_ok_and(|metadata| metadata.len() > LOG_LIMIT_BYTES);
    OpenOptions::new()
        .create(true)
        .append(!grown)
        .write(true)
        .truncate(grown)
        .open(path)
        .map_err(|error| DevError::path(path, error))
}

/// The last lines of a log, to show in an error.
pub(crate) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..]
        .iter()
        .map(|line| format!("    {line}\n"))
        .collect()
}

pub(crate) fn send(pid: u32, signal: Signal) {
    let Ok(raw) = i32::try_from(pid) else { return };
    match kill(Pid::from_raw(raw), signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(error) => tracing::warn!(pid, %error, "a private server cannot be signalled"),
    }
}

/// Runs, and is not a zombie.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat_fields(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X")))
}

/// Stops a process left over from an earlier life of this data directory, if `pid` is one: its command line must name `marker`.
pub(crate) async fn stop_leftover(pid: u32, marker: &Path, signal: Signal) -> bool {
    let marker = marker.as_os_str().as_encoded_bytes();
    let is_ours = || {
        fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.split(|byte| *byte == 0).any(|argument| argument == marker))
    };
    if !is_ours() {
        return false;
    }
    let children = process_tree(pid);
    send(pid, signal);
    let deadline = tokio::time::Instant::now() + STOP_DEADLINE;
    while is_alive(pid) && is_ours() {
        if tokio::time::Instant::now() > deadline {
            for pid in &children {
                send(*pid, Signal::SIGKILL);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    true
}

/// The fields of `/proc/<pid>/stat` after the command's name; the first is the state, the second the parent.
fn stat_fields(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_whitespace().map(str::to_owned).collect())
}

/// A process and its descendants, itself first. Those that end meanwhile may be missing or listed.
pub fn process_tree(root: u32) -> Vec<u32> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && let Some(parent) = stat_fields(pid).and_then(|fields| fields.get(1)?.parse::<u32>().ok())
        {
            parents.push((pid, parent));
        }
    }
    let mut tree = vec![root];
    let mut next = 0;
    while next < tree.len() {
        let parent = tree[next];
        tree.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    tree
}

/// CPU time, user and system, that a process has used, with its living descendants and its awaited children: what
/// PostgreSQL's backends used stays counted when they end. Zero for a process that is gone.
pub fn cpu_time(root: u32) -> Duration {
    let ticks: u64 = process_tree(root)
        .into_iter()
        .filter_map(stat_fields)
        .map(|fields| {
            fields
                .iter()
                .skip(11)
                .take(4)
                .filter_map(|field| field.parse::<u64>().ok())
                .sum::<u64>()
        })
        .sum();
    Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
}

/// Reads a number from the first line of a pid file.
pub(crate) fn read_pid(path: &PathBuf) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_descendants_and_their_time() {
        let mut parent = std::process::Command::new("sh")
            .args(["-c", "sleep 30 & wait"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let tree = loop {
            let tree = process_tree(parent.id());
            if tree.len() == 2 {
                break tree;
            }
            assert!(std::time::Instant::now() < deadline, "{tree:?}");
        };
        assert_eq!(tree[0], parent.id());
        assert!(tree.iter().all(|pid| is_alive(*pid)));
        send(tree[1], Signal::SIGKILL);
        parent.wait().unwrap();
        assert!(!is_alive(parent.id()));
        assert_eq!(cpu_time(parent.id()), Duration::ZERO);
        assert!(cpu_time(std::process::id()) < Duration::from_secs(3600));
    }

    #[tokio::test]
    async fn leaves_alone_a_process_that_is_not_its_own() {
        let mut stranger = std::process::Command::new("sleep")
            .arg("30.25")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        // The kernel fills in the command line a moment after the program began.
        while fs::read(format!("/proc/{}/cmdline", stranger.id())).unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(!stop_leftover(stranger.id(), Path::new("/some/where"), Signal::SIGTERM).await);
        assert!(stranger.try_wait().unwrap().is_none());
        let pid = stranger.id();
        let reaper = std::thread::spawn(move || stranger.wait().unwrap());
        assert!(stop_leftover(pid, Path::new("30.25"), Signal::SIGTERM).await);
        assert!(!reaper.join().unwrap().success());
    }
}
