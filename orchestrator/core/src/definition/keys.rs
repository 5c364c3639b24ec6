//! The keys of the language, mapping by mapping: those that are read, and those that are known and not supported yet.

use super::fields::Keys;

pub(super) const DOCUMENT: Keys = Keys::new(
    "a definition",
    &[
        "workflow",
        "version",
        "description",
        "id",
        "input_schema",
        "defaults",
        "compensation",
        "steps",
        "output",
        "search_attributes",
        "timeout",
        "retry",
        "schedule",
        "concurrency",
        "priority",
        "triggers",
        "queries",
        "signals",
        "updates",
        "expr_version",
    ],
);

pub(super) const DEFAULTS: Keys = Keys::new(
    "`defaults`",
    &[
        "queue",
        "start_to_close",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "cancellation",
        "retry",
        "concurrency",
        "priority",
        "compensate",
    ],
);

pub(super) const DEFAULT_UNDO: Keys = Keys::new(
    "`defaults.compensate`",
    &[
        "queue",
        "start_to_close",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "retry",
        "on_exhausted",
    ],
);

pub(super) const COMPENSATION: Keys = Keys::new("`compensation`", &["order", "on_exhausted"]);

pub(super) const STEP: Keys = Keys::new(
    "a step",
    &[
        "activity",
        "set",
        "parallel",
        "for_each",
        "switch",
        "while",
        "try",
        "scope",
        "wait",
        "wait_for",
        "workflow",
        "emit",
        "fail",
        "complete",
        "continue_as_new",
        "if",
        "input",
        "output_schema",
        "queue",
        "retry",
        "start_to_close",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "cancellation",
        "compensate",
        "no_undo",
        "read_only",
        "pivot",
        "on_failure",
        "compensate_on_failure",
        "concurrency",
        "rate",
        "priority",
        "fairness_key",
        "on_timeout",
    ],
)
.misplaced(&[
    (
        "steps",
        "it belongs under the step's kind, as in `scope: { steps: [ … ] }`",
    ),
    ("max_concurrent", "write `concurrency: { limit: 10 }`"),
]);

/// The keys of which a step has exactly one.
pub(super) const KINDS: &[&str] = &[
    "activity",
    "set",
    "parallel",
    "for_each",
    "switch",
    "while",
    "try",
    "scope",
    "wait",
    "wait_for",
    "workflow",
    "emit",
    "fail",
    "complete",
    "continue_as_new",
];

/// What may stand beside `activity`; `if` may stand beside every kind.
pub(super) const BESIDE_ACTIVITY: &[&str] = &[
    "input",
    "output_schema",
    "queue",
    "retry",
    "start_to_close",
    "schedule_to_start",
    "schedule_to_close",
    "heartbeat",
    "cancellation",
    "compensate",
    "no_undo",
    "read_only",
    "pivot",
    "on_failure",
    "compensate_on_failure",
    "concurrency",
    "rate",
    "priority",
    "fairness_key",
];

pub(super) const CONCURRENCY: Keys = Keys::new("`concurrency`", &["limit", "key"]);

/// Of a definition: how many of its runs are open at a time.
pub(super) const RUN_CONCURRENCY: Keys = Keys::new("`concurrency`", &["limit", "key", "on_conflict"]);

pub(super) const RATE: Keys = Keys::new("`rate`", &["limit", "per", "key"]);

pub(super) const BESIDE_WAIT_FOR: &[&str] = &["on_timeout"];

pub(super) const COMPENSATE: Keys = Keys::new(
    "`compensate`",
    &[
        "activity",
        "input",
        "queue",
        "retry",
        "start_to_close",
        "schedule_to_start",
        "schedule_to_close",
        "heartbeat",
        "on_exhausted",
    ],
);

pub(super) const RETRY: Keys = Keys::new(
    "`retry`",
    &[
        "initial_interval",
        "backoff_coefficient",
        "maximum_interval",
        "maximum_attempts",
        "non_retryable",
    ],
);

pub(super) const PARALLEL: Keys = Keys::new("`parallel`", &["branches", "join", "losers"]);

pub(super) const JOIN: Keys = Keys::new("`join`", &["at_least"]);

/// A body that has nothing but its steps: a branch, `else`, `finally`, `otherwise`, `on_timeout`.
pub(super) const BODY: Keys = Keys::new("a body", &["steps"]);

pub(super) const FOR_EACH: Keys = Keys::new("`for_each`", &["in", "as", "max_concurrency", "steps", "collect"]);

pub(super) const CASE: Keys = Keys::new("a case of `switch`", &["when", "steps", "else"]);

pub(super) const WHILE: Keys = Keys::new("`while`", &["when", "max_iterations", "steps"]);

pub(super) const TRY: Keys = Keys::new("`try`", &["steps", "catch", "finally"]);

pub(super) const CATCH: Keys = Keys::new("a `catch`", &["type", "steps"]);

pub(super) const SCOPE: Keys = Keys::new("`scope`", &["steps", "otherwise"]);

pub(super) const WAIT: Keys = Keys::new("`wait`", &["until"]);

pub(super) const WAIT_FOR: Keys = Keys::new("`wait_for`", &["signal", "match", "timeout"])
    .misplaced(&[("on_timeout", "it stands beside `wait_for`, in the step")]);

/// What takes the signals of one name.
pub(super) const SIGNAL_HANDLER: Keys = Keys::new("the handler of a signal", &["schema", "steps"]);

/// What is done for each update of one name.
pub(super) const UPDATE_HANDLER: Keys =
    Keys::new("the handler of an update", &["schema", "validate", "steps", "output"]);

pub(super) const WORKFLOW: Keys = Keys::new(
    "`workflow`",
    &["name", "version", "id", "input", "parent_close", "detached"],
);

pub(super) const EMIT: Keys = Keys::new("`emit`", &["subject", "body"]);

pub(super) const FAIL: Keys = Keys::new("`fail`", &["type", "message"]);

pub(super) const SCHEDULE: Keys = Keys::new(
    "`schedule`",
    &[
        "cron",
        "every",
        "calendars",
        "exclude",
        "zone",
        "start_at",
        "end_at",
        "jitter",
        "dst",
        "input",
        "overlap",
        "catch_up_window",
        "pause_on_failure",
        "note",
        "actions",
        "paused",
    ],
)
.misplaced(&[("workflow", "the schedule of a definition starts that definition")]);

/// Of a document of its own.
pub(super) const SCHEDULE_DOCUMENT: Keys = Keys::new(
    "a schedule",
    &[
        "schedule",
        "workflow",
        "version",
        "cron",
        "every",
        "calendars",
        "exclude",
        "zone",
        "start_at",
        "end_at",
        "jitter",
        "dst",
        "input",
        "overlap",
        "catch_up_window",
        "pause_on_failure",
        "note",
        "actions",
        "paused",
    ],
);

pub(super) const TRIGGER: Keys = Keys::new(
    "a trigger",
    &[
        "stream",
        "subject",
        "filter",
        "id",
        "input",
        "signal",
        "start",
        "id_reuse",
        "id_conflict",
        "from",
        "debounce",
        "batch",
    ],
)
.misplaced(&[(
    "workflow",
    "the trigger of a definition starts and signals that definition's runs",
)]);

/// Of a document of its own.
pub(super) const TRIGGER_DOCUMENT: Keys = Keys::new(
    "a trigger",
    &[
        "trigger",
        "workflow",
        "id_of_input",
        "stream",
        "subject",
        "filter",
        "id",
        "input",
        "signal",
        "start",
        "id_reuse",
        "id_conflict",
        "from",
        "debounce",
        "batch",
    ],
);

pub(super) const DEBOUNCE: Keys = Keys::new("`debounce`", &["quiet", "max_wait"]);

pub(super) const BATCH: Keys = Keys::new("`batch`", &["max", "wait"]);

pub(super) const EVERY: Keys = Keys::new("an interval", &["every", "phase"]);

pub(super) const DST: Keys = Keys::new("`dst`", &["gap", "overlap"]);

pub(super) const CALENDAR: Keys = Keys::new(
    "a calendar",
    &[
        "second",
        "minute",
        "hour",
        "day_of_month",
        "month",
        "day_of_week",
        "year",
    ],
);
