//! Processes of this same executable, which end with this one however it ends.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::error::BenchError;
use crate::dev::Watchdog;

const STOP_DEADLINE: Duration = Duration::from_secs(15);
/// So much of a process's log is shown when it ended unasked.
const TAIL_LINES: usize = 20;

#[derive(Debug)]
pub(crate) struct Child {
    what: &'static str,
    process: tokio::process::Child,
    pid: u32,
    log: PathBuf,
    watchdog: Arc<Watchdog>,
}

impl Child {
    /// Its output goes to `log`. Addresses belong in the environment: they may hold passwords, and arguments are seen by
    /// everybody on the machine.
    pub(crate) fn spawn(
        what: &'static str,
        arguments: impl IntoIterator<Item = OsString>,
        environment: &[(&str, &str)],
        log: &Path,
        watchdog: &Arc<Watchdog>,
    ) -> Result<Self, BenchError> {
        let failed = |source| BenchError::Spawn { what, source };
        let output = File::create(log).map_err(failed)?;
        let process = Command::new(std::env::current_exe().map_err(failed)?)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            // Ctrl-C reaches this process alone, which stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        // Not yet awaited, so it has one.
        let pid = process.id().unwrap_or_default();
        watchdog.watch("KILL", pid);
        Ok(Self {
            what,
            process,
            pid,
            log: log.to_owned(),
            watchdog: Arc::clone(watchdog),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// An error if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), BenchError> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(BenchError::Ended {
                what: self.what,
                status: status.to_string(),
                tail: tail(&self.log),
            }),
            Err(source) => Err(BenchError::Spawn {
                what: self.what,
                source,
            }),
        }
    }

    pub(crate) async fn stop(mut self) {
        // The pid is its own until it is awaited below.
        if let Ok(pid) = i32::try_from(self.pid)
            && self.check().is_ok()
        {
            // One that has just ended needs no signal.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            if tokio::time::timeout(STOP_DEADLINE, self.process.wait()).await.is_err() {
                tracing::warn!(process = self.what, "did not stop in time and is killed");
                let _ = self.process.kill().await;
            }
        }
        self.watchdog.forget(self.pid);
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
