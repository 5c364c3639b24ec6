//! Inputs that several have a hand in.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::ids::{StepPath, TaskNo};
use crate::run::input::{Input, Operation, ParkedAction, TaskOutcome};
use crate::run::limits::RunLimits;

/// So many runs of one case are enough.
pub(super) const TOO_MANY: usize = 60;

pub(super) fn done(task: TaskNo) -> TaskOutcome {
    TaskOutcome::Completed {
        output: Arc::new(json!({ "id": task.0 })),
    }
}

pub(super) fn resume() -> Input {
    Input::Parked {
        direction: None,
        step: StepPath::new(""),
        action: ParkedAction::Retry,
        operation: Operation::default(),
    }
}

/// One in four cases has some.
pub(super) fn limits(which: u32) -> RunLimits {
    match which % 4 {
        1 => RunLimits {
            events: Some(10 + which * 3),
            history_bytes: None,
            pending: Some(1 + which % 3),
        },
        2 => RunLimits {
            history_bytes: Some(1_500 + u64::from(which) * 100),
            ..RunLimits::default()
        },
        _ => RunLimits::default(),
    }
}

/// What a run is started with. Every name is sometimes missing, and `rare` next to always.
pub(super) fn input(which: u32) -> Value {
    let mut input = json!({
        "id": "x",
        "n": which % 5,
        "left": (which / 5) % 3,
        "flag": which & 8 > 0,
        "items": (0..(which / 16) % 5).collect::<Vec<_>>(),
    });
    if which & 256 > 0 {
        input["rare"] = json!({ "id": "r", "items": [1, "two"] });
    }
    if which & 0x600 == 0x600 {
        let missing = ["n", "left", "flag", "items"][(which / 64) as usize % 4];
        input.as_object_mut().unwrap().remove(missing);
    }
    input
}
