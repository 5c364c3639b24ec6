//! A child process with its standard error in a file, killed with its owner.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::eventually;

#[derive(Debug)]
pub struct ChildProcess {
    child: Child,
    log: PathBuf,
}

impl ChildProcess {
    /// Standard error is appended to `log`; standard input is a pipe that closes with this value.
    pub fn spawn(mut command: Command, log: &Path) -> Self {
        let stderr = OpenOptions::new().create(true).append(true).open(log).unwrap();
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::from(stderr))
            .spawn()
            .unwrap();
        Self {
            child,
            log: log.to_owned(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        read(&self.log)
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub fn kill9(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let _ = kill(Pid::from_raw(pid), signal);
    }

    pub async fn ended(&mut self, limit: Duration) -> ExitStatus {
        let log = self.log.clone();
        let what = format!("the end of the process that logs to {}", log.display());
        let child = std::cell::RefCell::new(&mut self.child);
        let ask = || {
            let ended = child.borrow_mut().try_wait().unwrap();
            async move { ended }
        };
        eventually(&what, limit, ask).await.0
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        self.kill9();
    }
}

pub(crate) fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// So that a test's own failure can be read beside it.
pub(crate) fn create(path: &Path) {
    File::create(path).unwrap();
}
