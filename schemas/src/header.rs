//! Names of the headers Knarr reads and writes. User data is in bodies; everything of Knarr's is here.

// On tasks (Knarr → worker); those marked (r) are echoed or used by results.
pub const NAMESPACE: &str = "Knarr-Namespace";
pub const WORKFLOW: &str = "Knarr-Workflow";
pub const WORKFLOW_ID: &str = "Knarr-Workflow-Id";
pub const RUN_ID: &str = "Knarr-Run-Id";
pub const STEP: &str = "Knarr-Step";
pub const ACTIVITY: &str = "Knarr-Activity";
/// The number of the task within its run; unique per attempt.
pub const TASK: &str = "Knarr-Task";
/// (r) Unguessable proof that a result belongs to a task this worker was given.
pub const TOKEN: &str = "Knarr-Token";
/// Starts at 1.
pub const ATTEMPT: &str = "Knarr-Attempt";
/// Absent when unlimited.
pub const MAX_ATTEMPTS: &str = "Knarr-Max-Attempts";
/// `do` or `undo`.
pub const DIRECTION: &str = "Knarr-Direction";
pub const IDEMPOTENCY_KEY: &str = "Knarr-Idempotency-Key";
/// Absolute, RFC 3339: a worker refuses a task that is past it. Absent where only start-to-close applies.
pub const DEADLINE: &str = "Knarr-Deadline";
/// Milliseconds from the moment a worker takes the task.
pub const START_TO_CLOSE: &str = "Knarr-Start-To-Close";
/// Milliseconds that the worker may be silent, where it has to send heartbeats. Absent otherwise.
pub const HEARTBEAT: &str = "Knarr-Heartbeat";
/// What the heartbeats of earlier attempts said last, as JSON in ASCII. Absent where they said nothing.
pub const LAST_DETAILS: &str = "Knarr-Last-Details";
/// `wait_cancelled`: once it is cancelled the task may take as long as it needs to stop. Absent otherwise.
pub const CANCELLATION: &str = "Knarr-Cancellation";
/// Subject of the log to publish the result to, used as it is.
pub const REPLY: &str = "Knarr-Reply";
/// Prefix of the direct inlet: append `.result`, `.beat` or `.claim`.
pub const DIRECT: &str = "Knarr-Direct";
pub const TRACEPARENT: &str = "traceparent";

// On results (worker → Knarr).
/// `completed` (default), `failed`, `unknown`, `cancelled`, `retry_later`; or `later`: the task is acknowledged now, and
/// its outcome comes later, from wherever.
pub const OUTCOME: &str = "Knarr-Outcome";
pub const ERROR_TYPE: &str = "Knarr-Error-Type";
pub const ERROR_MESSAGE: &str = "Knarr-Error-Message";
/// `true` unless said otherwise.
pub const RETRYABLE: &str = "Knarr-Retryable";
/// `true` asserts that no attempt of this task had any effect.
pub const NOT_DONE: &str = "Knarr-Not-Done";
/// A duration (`5s`): the earliest next attempt.
pub const RETRY_AFTER: &str = "Knarr-Retry-After";
/// On results by the direct inlet: where the confirmation goes, shared by all results of a worker. The message's own
/// reply subject only ever gets the server's *no responders*, so that a worker can tell which result it is about.
pub const CONFIRM: &str = "Knarr-Confirm";
/// Milliseconds since the handler began, on beats.
pub const RUNNING_MS: &str = "Knarr-Running-Ms";
/// Milliseconds between beats, on beats of workers that promise to go on: after three that are missing the task is lost.
pub const BEAT_EVERY_MS: &str = "Knarr-Beat-Every-Ms";
/// Who claims, on claims: unique to this delivery of the task, and the same when the claim is repeated.
pub const CLAIM: &str = "Knarr-Claim";

// On starts and other calls (service → Knarr).
pub const VERSION: &str = "Knarr-Version";
/// `allow_duplicate` (default), `allow_duplicate_failed_only`, `reject_duplicate`.
pub const ID_REUSE: &str = "Knarr-Id-Reuse";
/// `fail` (default), `use_existing`, `terminate_existing`; or `queue`: the run is started when the open one has closed.
pub const ID_CONFLICT: &str = "Knarr-Id-Conflict";
/// How much later the run begins, `90s` or `1h30m`: it is there at once, and waits. At most ten years.
pub const START_DELAY: &str = "Knarr-Start-Delay";
/// From 1, the most important, to 5; where it is absent the definition says. Of those who wait for the same limit 1 comes before 5.
pub const PRIORITY: &str = "Knarr-Priority";
pub const SEARCH_ATTRIBUTES: &str = "Knarr-Search-Attributes";
/// `started` or `closed`; of an update `accepted` or `completed`.
pub const REPLY_ON: &str = "Knarr-Reply-On";
/// Where the answer goes, when the message's own reply subject is taken by JetStream's acknowledgement.
pub const REPLY_TO: &str = "Knarr-Reply-To";
pub const REQUEST_ID: &str = "Knarr-Request-Id";
/// Names verb and namespace (`cancel default`) on every verb but start, signal and result: proof that the message
/// was composed for this subject and not delivered to it as somebody's reply.
pub const VERB: &str = "Knarr-Verb";
/// Who asks, for the record.
pub const BY: &str = "Knarr-By";
/// Why, for the record.
pub const REASON: &str = "Knarr-Reason";

// On signals.
/// Starts a run of this workflow where none of the id is open; the signal is its first.
pub const START_WORKFLOW: &str = "Knarr-Start-Workflow";
/// The input of that run, as JSON; without it the signal's body is the input, too.
pub const START_INPUT: &str = "Knarr-Start-Input";

// On messages between runs (Knarr → Knarr).
/// Proves that Knarr composed the message for this subject.
pub const MESSAGE_TOKEN: &str = "Knarr-Message-Token";

// On events (Knarr → whoever listens): CloudEvents 1.0 in binary mode.
pub const CE_SPECVERSION: &str = "ce-specversion";
/// Run, transition, and index or kind: a repeat has the same.
pub const CE_ID: &str = "ce-id";
/// `/knarr/<namespace>/<workflow>/<workflow id>`, encoded as in subjects.
pub const CE_SOURCE: &str = "ce-source";
pub const CE_TYPE: &str = "ce-type";
/// The step that emitted it; of changes of a run's status, the run's id.
pub const CE_SUBJECT: &str = "ce-subject";
/// Of changes of a run's status: when it was decided, RFC 3339.
pub const CE_TIME: &str = "ce-time";
pub const CE_DATACONTENTTYPE: &str = "ce-datacontenttype";

// On dead letters (Knarr → knarr.dlq.>).
pub const ERROR_CODE: &str = "Knarr-Error-Code";
pub const ERROR_REMEDY: &str = "Knarr-Error-Remedy";
pub const ORIGINAL_SUBJECT: &str = "Knarr-Original-Subject";
pub const ORIGINAL_SEQUENCE: &str = "Knarr-Original-Sequence";
/// Of an event that a trigger has read: its stream.
pub const ORIGINAL_STREAM: &str = "Knarr-Original-Stream";
/// `<workflow>/<name>` of that trigger.
pub const TRIGGER: &str = "Knarr-Trigger";
/// The whole block of headers, where a part of it cannot be read: bytes beyond ASCII, quotes and line breaks escaped with
/// `\\`, up to 4 KiB.
pub const ORIGINAL_HEADERS: &str = "Knarr-Original-Headers";
/// Bytes of the body as it came, where it is cut because the whole would be larger than NATS takes.
pub const ORIGINAL_BYTES: &str = "Knarr-Original-Bytes";

// On anything with a body that is too large to travel in the message (either way): the body is an object.
/// `<bucket>/<name>` of the body in the object store of the message's namespace; the message's own body is empty.
pub const BODY: &str = "Knarr-Body";
/// Of that object, as NATS writes it: `SHA-256=` and base64 of URLs.
pub const BODY_DIGEST: &str = "Knarr-Body-Digest";
/// Bytes of that object.
pub const BODY_SIZE: &str = "Knarr-Body-Size";

pub const NATS_MSG_ID: &str = "Nats-Msg-Id";
