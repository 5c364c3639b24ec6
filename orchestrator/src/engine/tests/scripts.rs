//! How workers behave.

use std::sync::Arc;

use super::world::{Act, Script, done, failed};

pub(super) fn honest() -> Script {
    Arc::new(|_| done())
}

pub(super) fn out_of_stock() -> Script {
    Arc::new(|task| match task.activity {
        "reserve-inventory" => failed(),
        _ => done(),
    })
}

/// Payments take place and nobody says so.
pub(super) fn unknown_payment() -> Script {
    Arc::new(|task| match task.activity {
        "process-payment" => Act {
            forgets: true,
            ..done()
        },
        _ => done(),
    })
}

/// Workers take the first task and are never heard of again.
pub(super) fn forgotten() -> Script {
    Arc::new(|task| Act {
        forgets: task.activity == "create-order",
        effect: task.activity != "create-order",
        ..Act::default()
    })
}

pub(super) fn by_log(script: Script) -> Script {
    Arc::new(move |task| Act {
        by_log: true,
        ..script(task)
    })
}
