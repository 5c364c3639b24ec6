//! Taking a delivered message for what it is: a task to run, to refuse, or not a task at all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, Message, Subject};
use bytes::Bytes;
use chrono::Utc;
use knarr_schemas::body::ClaimAnswer;
use knarr_schemas::header;
use tokio_util::sync::CancellationToken;

use crate::context::{Progress, TaskInfo, parse_time};
use crate::error::ActivityError;
use crate::flight::{ACK, Entry, Flight, HeldBack, State, TERM_NOT_A_TASK, Way};
use crate::handler::Handler;
use crate::outcome::Outcome;
use crate::sweep::{beat, beat_every, claim};

pub(crate) type Handlers = HashMap<String, Arc<dyn Handler>>;

/// The first beat: a handler that is done sooner sends none.
const FIRST_BEAT: Duration = Duration::from_secs(1);

/// Starts the handler of a delivered task, or does what else is right for it.
pub(crate) async fn accept(flight: &Arc<Flight>, handlers: &Handlers, message: Message) {
    let Some(ack) = message.reply else { return };
    let Some(task) = read(message.headers.unwrap_or_default(), &ack) else {
        tracing::error!(subject = %message.subject, "a message in the queue is not a task; it is removed");
        flight.tell(ack, TERM_NOT_A_TASK).await;
        return;
    };
    if is_held(flight, &task, &ack) {
        return;
    }
    let late = is_late(&task);
    if late && task.header(header::DIRECT).is_none() {
        // Nobody waits for a result, and what an earlier delivery did is not known here: the orchestrator's own timeout
        // decides, as it would if the task had never arrived. Acknowledged, so that it is not delivered for ever.
        tracing::warn!(
            activity = task.header(header::ACTIVITY),
            workflow_id = task.workflow_id(),
            deadline = task.header(header::DEADLINE),
            "refused a task past its deadline"
        );
        flight.tell(ack, ACK).await;
        return;
    }
    let activity = task.header(header::ACTIVITY).unwrap_or_default();
    match handlers.get(activity) {
        // By this host's clock, which may be wrong: the owner knows whether anybody waits for it.
        Some(handler) if late || is_at_most_once(&task) => {
            ask_for(flight, handler, task, ack, message.payload, Asked::Claim).await;
        }
        // Whoever had it before may be dead, and the attempt may have ended long ago.
        Some(handler) if task.delivery > 1 && task.header(header::DIRECT).is_some() => {
            ask_for(flight, handler, task, ack, message.payload, Asked::Beat).await;
        }
        Some(handler) => start(flight, handler, task, ack, message.payload),
        None => refuse_unknown_activity(flight, task, ack).await,
    }
}

/// `None` for what no result could be sent for.
fn read(headers: HeaderMap, ack: &str) -> Option<Arc<TaskInfo>> {
    let token = headers.get(header::TOKEN)?.as_str();
    // The token becomes a part of reply subjects.
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if token.is_empty() || token.len() > 128 || !token.bytes().all(plain) {
        return None;
    }
    if headers.get(header::REPLY).is_none() && headers.get(header::DIRECT).is_none() {
        return None;
    }
    Some(Arc::new(TaskInfo {
        token: Arc::from(token),
        delivery: delivery(ack),
        headers,
        workflow_id: OnceLock::new(),
        cancelled: CancellationToken::new(),
        beat_asked: AtomicBool::new(false),
        progress: Progress::default(),
    }))
}

/// `$JS.ACK.<stream>.<consumer>.<delivered>.…`, or with domain and account hash before the stream and a token at the end.
fn delivery(ack: &str) -> u32 {
    let tokens = ack.split('.').count();
    let at = if tokens >= 11 { 6 } else { 4 };
    ack.split('.').nth(at).and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// A task that is here already was delivered again because its lease ran out: it goes on, under the new delivery.
fn is_held(flight: &Flight, task: &TaskInfo, ack: &Subject) -> bool {
    let mut entries = flight.entries();
    let Some(entry) = entries.get_mut(&task.token) else {
        return false;
    };
    entry.ack = ack.clone();
    entry.leased = Instant::now();
    flight.lease_in_doubt.store(true, Ordering::Relaxed);
    true
}

fn is_late(task: &TaskInfo) -> bool {
    task.header(header::DEADLINE)
        .and_then(parse_time)
        .is_some_and(|deadline| deadline <= Utc::now())
}

fn is_at_most_once(task: &TaskInfo) -> bool {
    task.header(header::MAX_ATTEMPTS) == Some("1") && task.header(header::DIRECT).is_some()
}

/// The ways to ask for a task.
enum Asked {
    /// For good, of one that may run at most once, or seems to be late: without a grant it is not done.
    Claim,
    /// Whether anybody still waits for it, which another delivery of it may hear again. Where nobody says, it is done.
    Beat,
}

/// The handler is not called before the owner was asked.
async fn ask_for(
    flight: &Arc<Flight>,
    handler: &Arc<dyn Handler>,
    task: Arc<TaskInfo>,
    ack: Subject,
    input: Bytes,
    asked: Asked,
) {
    let by = match asked {
        // Unique, which is all that it has to be.
        Asked::Claim => Some(flight.client.new_inbox()),
        Asked::Beat => None,
    };
    flight.slot_taken();
    let now = Instant::now();
    let handler = HeldBack {
        handler: Arc::clone(handler),
        input,
    };
    let entry = Entry {
        task: Arc::clone(&task),
        ack,
        leased: now,
        state: State::Claiming {
            by: by.clone(),
            sent: now,
            handler,
        },
    };
    flight.entries().insert(Arc::clone(&task.token), entry);
    match by {
        Some(by) => claim(flight, &task, &by).await,
        // It promises none after it: the task may be given back before it is begun.
        None => beat(flight, &task, Duration::ZERO, None).await,
    }
}

/// What the owner says to whoever asks for a task.
pub(crate) async fn claimed(flight: &Arc<Flight>, token: &str, answer: ClaimAnswer) {
    let entry = {
        let mut entries = flight.entries();
        match entries.get(token).map(|entry| &entry.state) {
            Some(State::Claiming { .. }) => entries.remove(token),
            // It was answered before.
            _ => None,
        }
    };
    let Some(Entry {
        task,
        ack,
        state: State::Claiming { handler, .. },
        ..
    }) = entry
    else {
        return;
    };
    match answer {
        ClaimAnswer::Granted => {
            start(flight, &handler.handler, task, ack, handler.input);
            // The handler has taken its own.
            flight.slot_free();
        }
        ClaimAnswer::Cancel => {
            flight.slot_free();
            // Whoever does it at most once has claimed it before. Another may have done it in an earlier delivery.
            let error = if task.delivery == 1 || is_at_most_once(&task) {
                ActivityError::cancelled()
            } else {
                ActivityError::unknown("cancelled", "an earlier delivery of the task may have been done")
            };
            hand_in(flight, task, ack, error).await;
        }
        ClaimAnswer::Taken | ClaimAnswer::Gone => {
            tracing::debug!(token, ?answer, "a task is not this worker's to do");
            flight.slot_free();
            flight.tell(ack, ACK).await;
            flight.left();
        }
    }
}

fn start(flight: &Arc<Flight>, handler: &Arc<dyn Handler>, task: Arc<TaskInfo>, ack: Subject, input: Bytes) {
    let every = beat_every(&task);
    let began = Instant::now();
    let ends = task
        .header(header::START_TO_CLOSE)
        .and_then(|ms| ms.parse().ok())
        .and_then(|ms| began.checked_add(Duration::from_millis(ms)));
    let token = Arc::clone(&task.token);
    // Under the lock, so that the entry is there when the handler ends.
    let mut entries = flight.entries();
    let abort = Arc::clone(handler).spawn(Arc::clone(flight), Arc::clone(&task), input);
    entries.insert(
        token,
        Entry {
            task,
            ack,
            leased: began,
            state: State::Running {
                abort,
                began,
                next_beat: began + FIRST_BEAT.min(every),
                every,
                beaten: began,
                ends,
            },
        },
    );
}

/// Another worker of the queue may know the activity (a rolling upgrade, say), so the attempt may be retried.
async fn refuse_unknown_activity(flight: &Flight, task: Arc<TaskInfo>, ack: Subject) {
    let activity = task.header(header::ACTIVITY).unwrap_or_default();
    tracing::error!(activity, "a task for an activity that this worker does not have");
    let error = task.refused(
        "activity_not_registered",
        format!("a worker of the queue does not have the activity `{activity}`"),
    );
    hand_in(flight, task, ack, error).await;
}

/// Of a task whose handler was not called.
async fn hand_in(flight: &Flight, task: Arc<TaskInfo>, ack: Subject, error: ActivityError) {
    let now = Instant::now();
    let outcome = Outcome::Error(Box::new(error));
    flight.entries().insert(
        Arc::clone(&task.token),
        Entry {
            task: Arc::clone(&task),
            ack,
            leased: now,
            state: State::HandedIn {
                outcome: outcome.clone(),
                way: Way::Direct,
                sent: now,
                times: 0,
            },
        },
    );
    flight.hand_in(&task, outcome).await;
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// One that can be answered, with these headers beside.
    pub(crate) fn task(more: &[(&'static str, &str)]) -> Arc<TaskInfo> {
        let mut headers = HeaderMap::new();
        let own = [(header::TOKEN, "abc"), (header::DIRECT, "knarr.direct.default.1")];
        for (name, value) in own.iter().chain(more) {
            headers.insert(*name, *value);
        }
        read(headers, "x").unwrap()
    }

    #[test]
    fn what_has_one_attempt_is_claimed_and_nothing_else_is() {
        for (attempts, claimed) in [
            (Some("1"), true),
            (Some("2"), false),
            (Some("10"), false),
            (None, false),
        ] {
            let headers: Vec<_> = attempts.map(|text| (header::MAX_ATTEMPTS, text)).into_iter().collect();
            assert_eq!(is_at_most_once(&task(&headers)), claimed, "{attempts:?}");
        }
    }

    #[test]
    fn the_delivery_count_is_read_from_both_forms_of_the_acknowledgement_subject() {
        for (ack, count) in [
            ("$JS.ACK.KNARR_TASKS_default.q_orders.3.10.11.1700000000000000000.5", 3),
            (
                "$JS.ACK._.hash.KNARR_TASKS_default.q_orders.2.10.11.1700000000000000000.5.x",
                2,
            ),
            ("nonsense", 1),
        ] {
            assert_eq!(delivery(ack), count, "{ack}");
        }
    }

    #[test]
    fn what_cannot_be_answered_is_no_task() {
        let with = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, *value);
            }
            read(headers, "x").is_some()
        };
        assert!(with(&[
            (header::TOKEN, "abc-_9"),
            (header::DIRECT, "knarr.direct.default.1")
        ]));
        assert!(with(&[
            (header::TOKEN, "abc"),
            (header::REPLY, "knarr.run.default.o.result")
        ]));
        assert!(!with(&[(header::TOKEN, "abc")]));
        assert!(!with(&[(header::TOKEN, "a.b"), (header::REPLY, "x")]));
        assert!(!with(&[(header::REPLY, "x")]));
    }
}
