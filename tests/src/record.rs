//! What workers did, one line an execution, written with one system call each: a killed process loses nothing of it.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use knarr_worker::order_services::Effect;
use knarr_worker::{Context, Direction};
use serde::{Deserialize, Serialize};

/// One call of a handler.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Execution {
    /// Microseconds since the epoch.
    pub at: i64,
    pub run: String,
    pub workflow_id: String,
    pub step: String,
    pub undo: bool,
    pub key: String,
    pub attempt: u32,
    pub delivery: u32,
    /// `false`: it failed on request and did nothing.
    pub done: bool,
}

impl Execution {
    pub fn of(ctx: &Context, effect: Effect) -> Self {
        Self {
            at: now_micros(),
            run: ctx.run_id().to_owned(),
            workflow_id: ctx.workflow_id().to_owned(),
            step: ctx.step().to_owned(),
            undo: ctx.direction() == Direction::Undo,
            key: ctx.idempotency_key().to_owned(),
            attempt: ctx.attempt(),
            delivery: ctx.delivery(),
            done: effect != Effect::Failed,
        }
    }
}

pub fn now_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}

#[derive(Debug)]
pub struct RecordWriter(Mutex<std::fs::File>);

impl RecordWriter {
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self(Mutex::new(file)))
    }

    pub fn write(&self, execution: &Execution) {
        let mut line = serde_json::to_vec(execution).unwrap();
        line.push(b'\n');
        self.0.lock().unwrap().write_all(&line).unwrap();
    }
}

/// All that the workers which wrote to `directory` did, oldest first.
pub fn read_all(directory: &Path) -> Vec<Execution> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "record") {
            let text = std::fs::read_to_string(&path).unwrap();
            // A line is written whole or, killed in the middle of the call, not at all.
            all.extend(
                text.lines()
                    .map(|line| serde_json::from_str::<Execution>(line).unwrap()),
            );
        }
    }
    all.sort_by_key(|execution| execution.at);
    all
}
