//! What workers do with the tasks of a seed.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;

use super::super::world::{Act, Delivery, Script, done};

/// The same for every delivery of an attempt: a worker that is asked again has the same opinion of the world.
fn fate(task: &Delivery<'_>, seed: u64) -> u64 {
    let mut hash = DefaultHasher::new();
    (seed, task.workflow_id, task.step, task.activity, task.attempt).hash(&mut hash);
    hash.finish()
}

/// `misfortune`: of a hundred attempts so many end badly.
pub(super) fn anybody(seed: u64, misfortune: u64) -> Script {
    Arc::new(move |task| {
        let fate = fate(task, seed);
        let failed = |error_type| Act {
            outcome: Some("failed"),
            error_type: Some(error_type),
            ..Act::default()
        };
        let base = if fate % 100 >= misfortune {
            done()
        } else {
            match fate / 100 % 8 {
                0 | 1 => failed("Refused"),
                2 => failed("Other"),
                // It was done, and nobody can tell.
                3 => Act {
                    outcome: Some("unknown"),
                    ..done()
                },
                4 => Act {
                    outcome: Some("unknown"),
                    ..Act::default()
                },
                // It is the same attempt that is asked again.
                5 if task.random.one_in(2) => Act {
                    outcome: Some("retry_later"),
                    ..Act::default()
                },
                6 => Act {
                    forgets: true,
                    ..done()
                },
                _ => Act {
                    forgets: true,
                    ..Act::default()
                },
            }
        };
        Act {
            takes_ms: task.random.below(400),
            by_log: task.random.one_in(3),
            repeats: u32::from(task.random.one_in(5)),
            dies: task.deliveries == 1 && task.random.one_in(15),
            ..base
        }
    })
}
