//! The keys of the language, mapping by mapping: those that are read, and those that are known and not supported yet.

use super::fields::Keys;

pub(super) const DOCUMENT: Keys = Keys {
    of: "a definition",
    known: &[
        "workflow",
        "version",
        "description",
        "id",
        "input_schema",
        "defaults",
        "steps",
        "output",
        "search_attributes",
        "timeout",
        "expr_version",
    ],
    later: &[
        "triggers",
        "schedule",
        "signals",
        "updates",
        "queries",
        "retry",
        "concurrency",
        "priority",
        "compensation",
    ],
};

pub(super) const DEFAULTS: Keys = Keys {
    of: "`defaults`",
    known: &["queue", "start_to_close", "retry", "compensate"],
    later: &[
        "heartbeat",
        "schedule_to_start",
        "schedule_to_close",
        "priority",
        "concurrency",
    ],
};

pub(super) const DEFAULT_UNDO: Keys = Keys {
    of: "`defaults.compensate`",
    known: &["queue", "start_to_close", "retry"],
    later: &["heartbeat", "schedule_to_start", "schedule_to_close", "on_exhausted"],
};

pub(super) const STEP: Keys = Keys {
    of: "a step",
    known: &[
        "activity",
        "set",
        "if",
        "input",
        "queue",
        "retry",
        "start_to_close",
        "compensate",
        "no_undo",
        "read_only",
        "on_failure",
        "compensate_on_failure",
    ],
    later: &[
        "parallel",
        "for_each",
        "switch",
        "while",
        "try",
        "scope",
        "wait",
        "wait_for",
        "on_timeout",
        "workflow",
        "emit",
        "fail",
        "complete",
        "continue_as_new",
        "pivot",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "priority",
        "concurrency",
        "max_concurrent",
        "rate",
        "cancellation",
    ],
};

/// The keys of which a step has exactly one.
pub(super) const KINDS: &[&str] = &["activity", "set"];

pub(super) const COMPENSATE: Keys = Keys {
    of: "`compensate`",
    known: &["activity", "input", "queue", "retry", "start_to_close"],
    later: &["heartbeat", "schedule_to_start", "schedule_to_close", "on_exhausted"],
};

pub(super) const RETRY: Keys = Keys {
    of: "`retry`",
    known: &[
        "initial_interval",
        "backoff_coefficient",
        "maximum_interval",
        "maximum_attempts",
        "non_retryable",
    ],
    later: &[],
};
