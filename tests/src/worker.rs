//! Workers as processes.

use std::path::PathBuf;
use std::process::Command;

use crate::child::ChildProcess;
use crate::{Stack, binaries};

#[derive(Debug)]
pub struct WorkerProcess {
    child: ChildProcess,
    spec: Spec,
}

#[derive(Debug, Clone)]
struct Spec {
    url: String,
    namespace: String,
    queue: String,
    record: PathBuf,
    log: PathBuf,
    work_ms: u32,
}

impl WorkerProcess {
    /// Of the queue `orders`.
    pub fn start(stack: &Stack, name: &str) -> Self {
        Self::start_in(stack, name, "default", 0)
    }

    pub fn start_in(stack: &Stack, name: &str, namespace: &str, work_ms: u32) -> Self {
        let spec = Spec {
            url: stack.nats_url().to_owned(),
            namespace: namespace.to_owned(),
            queue: "orders".to_owned(),
            record: stack.directory().join(format!("{name}.record")),
            log: stack.directory().join(format!("{name}.log")),
            work_ms,
        };
        Self {
            child: spawn(&spec),
            spec,
        }
    }

    pub fn kill9(&mut self) {
        self.child.kill9();
    }

    /// Begins again, appending to the same record.
    pub fn restart(&mut self) {
        self.child.kill9();
        self.child = spawn(&self.spec);
    }
}

fn spawn(spec: &Spec) -> ChildProcess {
    let mut command = Command::new(binaries::worker());
    command
        .args([&spec.url, &spec.namespace, &spec.queue])
        .arg(&spec.record)
        .arg(spec.work_ms.to_string());
    ChildProcess::spawn(command, &spec.log)
}
