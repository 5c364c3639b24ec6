//! The keys of a test file, mapping by mapping.

use crate::definition::fields::Keys;

pub(super) const FILE: Keys = Keys::new("a test file", &["definition", "input", "mocks", "children", "cases"]);

pub(super) const CASE: Keys = Keys::new(
    "a case",
    &["name", "input", "start", "mocks", "children", "events", "expect"],
);

pub(super) const MOCK: Keys = Keys::new(
    "a mock",
    &[
        "result",
        "fail",
        "unknown",
        "timeout",
        "retry_later",
        "after",
        "when_cancelled",
    ],
);

pub(super) const FAIL: Keys = Keys::new("`fail`", &["type", "message", "retryable", "not_done", "retry_after"]);

pub(super) const CHILD: Keys = Keys::new("the mock of a child", &["result", "fail", "refuse", "after", "undo"]);

pub(super) const CHILD_UNDO: Keys = Keys::new("`undo`", &["refuse"]);

pub(super) const EVENT: Keys = Keys::new(
    "an event",
    &[
        "at",
        "signal",
        "update",
        "body",
        "cancel",
        "terminate",
        "retry",
        "skip",
        "mark_done",
        "input",
    ],
);

/// Of which an event has exactly one.
pub(super) const EVENT_KINDS: &[&str] = &["signal", "update", "cancel", "terminate", "retry", "skip", "mark_done"];

pub(super) const EXPECT: Keys = Keys::new(
    "`expect`",
    &[
        "status",
        "output",
        "next_input",
        "error",
        "rejected",
        "steps",
        "skipped",
        "undos",
        "parked",
        "attempts",
        "run_attempts",
        "inputs",
        "ledger",
        "vars",
        "queries",
        "emitted",
        "took",
    ],
);

pub(super) const ERROR: Keys = Keys::new("`error`", &["step", "type", "message"]);

pub(super) const EMITTED: Keys = Keys::new("an emitted event", &["subject", "body"]);

pub(super) const TOOK: Keys = Keys::new("`took`", &["at_least", "at_most"]);
