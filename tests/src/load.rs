//! Sagas started one after the other while something else happens.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::record::now_micros;
use crate::{Fault, Random, Starter};

/// Until told to end; each saga is confirmed by JetStream at least.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
    started: Arc<Mutex<BTreeMap<String, Started>>>,
}

#[derive(Debug, Clone, Copy)]
pub struct Started {
    pub fault: Fault,
    /// Microseconds since the epoch, before it was published.
    pub at: i64,
}

impl Load {
    pub fn start(starter: Starter, mut random: Random, faults: &'static [Fault], pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let started: Arc<Mutex<BTreeMap<String, Started>>> = Arc::default();
        let (stopped, begun) = (Arc::clone(&stop), Arc::clone(&started));
        let task = tokio::spawn(async move {
            let mut n = 0;
            let mut pace = tokio::time::interval(pause);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                n += 1;
                let (id, fault) = (format!("s-{n}"), *random.pick(faults));
                // Before it is published: it may take effect without our hearing of it, and is repeated until we do.
                let at = now_micros();
                begun.lock().unwrap().insert(id.clone(), Started { fault, at });
                starter.start(&id, fault).await;
            }
        });
        Self { stop, task, started }
    }

    pub fn count(&self) -> usize {
        self.started.lock().unwrap().len()
    }

    /// Stops, and says what was started.
    pub async fn end(self) -> BTreeMap<String, Started> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        Arc::try_unwrap(self.started).unwrap().into_inner().unwrap()
    }
}

/// What [`crate::audit`] is told.
pub fn faults(started: &BTreeMap<String, Started>) -> BTreeMap<String, Fault> {
    started
        .iter()
        .map(|(id, started)| (id.clone(), started.fault))
        .collect()
}
