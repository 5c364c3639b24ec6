//! One clock for all tasks of a worker: leases, beats, start-to-close, and results that nobody has confirmed.
//!
//! A timer of its own for each task would cost more than most tasks do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::{HeaderMap, HeaderName, Subject};
use bytes::Bytes;
use knarr_schemas::body::ClaimAnswer;
use knarr_schemas::header;
use tokio::time::MissedTickBehavior;

use crate::context::{TaskInfo, millis};
use crate::flight::{ACK, Flight, IN_PROGRESS, State, Way};
use crate::outcome::Outcome;
use crate::task::claimed;

const TICK: Duration = Duration::from_millis(100);
const BEAT: Duration = Duration::from_secs(5);
/// Details go out no more often than that.
const DETAILS: Duration = Duration::from_secs(1);
/// Leases are renewed so often at least: one of hours may be shortened while a task is at work.
const RENEW: Duration = Duration::from_secs(10);
/// A claim that is not answered is repeated after that. A task that was delivered before is begun then, answered or not.
pub(crate) const CLAIM: Duration = Duration::from_secs(1);
/// How long a confirmation may take before the result is handed in again.
const CONFIRM: Duration = Duration::from_secs(1);
/// So often a result is offered to the owner; then it goes to the log.
const DIRECT_TIMES: u32 = 2;

enum Due {
    Lease(Subject),
    /// How long the handler has been at work, and when the next beat comes.
    Beat(Arc<TaskInfo>, Duration, Duration),
    Claim(Arc<TaskInfo>, String),
    /// Nobody has said whether it is still waited for.
    Begin(Arc<TaskInfo>),
    Repeat(Arc<TaskInfo>, Outcome, Way),
    /// Start-to-close is over and the handler has been stopped.
    Expired(Arc<TaskInfo>, Subject),
}

pub(crate) async fn sweep(flight: Arc<Flight>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut due = Vec::new();
    loop {
        ticks.tick().await;
        let connected = flight.is_connected();
        collect(&flight, connected, &mut due);
        for what in due.drain(..) {
            act(&flight, what).await;
        }
    }
}

/// While the connection is away nothing is published: it would only queue up, and block what must go on.
fn collect(flight: &Flight, connected: bool, due: &mut Vec<Due>) {
    let now = Instant::now();
    let lease = renew_every(flight.ack_wait());
    flight.entries().retain(|_, entry| {
        match &mut entry.state {
            State::Running {
                abort,
                began,
                next_beat,
                every,
                beaten,
                ends,
            } => {
                if ends.is_some_and(|end| end <= now) && !takes_its_time(&entry.task) {
                    abort.abort();
                    entry.task.cancelled.cancel();
                    due.push(Due::Expired(Arc::clone(&entry.task), entry.ack.clone()));
                    return false;
                }
                let asked = entry.task.beat_asked.swap(false, Ordering::Relaxed);
                let told = now - *beaten >= DETAILS && entry.task.progress.is_unsent();
                if connected && (asked || told || *next_beat <= now) {
                    *next_beat = now + *every;
                    *beaten = now;
                    due.push(Due::Beat(Arc::clone(&entry.task), now - *began, *every));
                }
            }
            State::Claiming { by, sent, .. } => {
                if now - *sent >= CLAIM && (connected || by.is_none()) {
                    *sent = now;
                    let task = Arc::clone(&entry.task);
                    due.push(match by {
                        Some(by) => Due::Claim(task, by.clone()),
                        None => Due::Begin(task),
                    });
                }
            }
            State::HandedIn {
                outcome,
                way,
                sent,
                times,
            } => {
                if connected && now - *sent >= CONFIRM {
                    if *times >= DIRECT_TIMES && entry.task.header(header::REPLY).is_some() {
                        *way = Way::Log;
                    }
                    *times = times.saturating_add(1);
                    *sent = now;
                    due.push(Due::Repeat(Arc::clone(&entry.task), outcome.clone(), *way));
                }
            }
        }
        if connected && now - entry.leased >= lease {
            entry.leased = now;
            due.push(Due::Lease(entry.ack.clone()));
        }
        true
    });
}

async fn act(flight: &Arc<Flight>, due: Due) {
    match due {
        Due::Lease(ack) => flight.tell(ack, IN_PROGRESS).await,
        Due::Beat(task, running, every) => beat(flight, &task, running, Some(every)).await,
        Due::Claim(task, by) => claim(flight, &task, &by).await,
        Due::Begin(task) => claimed(flight, &task.token, ClaimAnswer::Granted).await,
        Due::Repeat(task, outcome, way) => {
            tracing::debug!(
                token = &*task.token,
                ?way,
                "no confirmation yet; the result is handed in again"
            );
            flight.send(&task, outcome, way).await;
        }
        Due::Expired(task, ack) => {
            // What the handler has done is not known, and the orchestrator's timeout says just that. The task is
            // acknowledged because another attempt is another task.
            tracing::warn!(
                activity = task.header(header::ACTIVITY),
                workflow_id = task.workflow_id(),
                start_to_close_ms = task.header(header::START_TO_CLOSE),
                "a handler was stopped at its start-to-close timeout"
            );
            flight.tell(ack, ACK).await;
            flight.left();
        }
    }
}

fn renew_every(ack_wait: Duration) -> Duration {
    (ack_wait / 3).min(RENEW)
}

/// Whether a handler that was asked to stop is waited for, whatever its start-to-close.
fn takes_its_time(task: &TaskInfo) -> bool {
    task.cancelled.is_cancelled() && task.header(header::CANCELLATION) == Some("wait_cancelled")
}

/// How often the worker of a task beats: often enough to be missed in time by nobody.
pub(crate) fn beat_every(task: &TaskInfo) -> Duration {
    let asked = task.header(header::HEARTBEAT).and_then(millis);
    asked.map_or(BEAT, |silence| (silence / 3).clamp(TICK, BEAT))
}

/// Asks for a task, for good.
pub(crate) async fn claim(flight: &Flight, task: &TaskInfo, by: &str) {
    let direct = task.header(header::DIRECT).unwrap_or_default();
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(header::TOKEN), &*task.token);
    headers.insert(HeaderName::from_static(header::CLAIM), by);
    let claim = flight.client.publish_with_reply_and_headers(
        format!("{direct}.claim"),
        format!("{}.k.{}", flight.inbox, task.token),
        headers,
        Bytes::new(),
    );
    if let Some(Err(error)) = flight.offer(claim).await {
        tracing::debug!("a claim was not sent: {error}");
    }
}

/// `every` promises the next one.
pub(crate) async fn beat(flight: &Flight, task: &TaskInfo, running: Duration, every: Option<Duration>) {
    let Some(direct) = task.header(header::DIRECT) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(header::TOKEN), &*task.token);
    headers.insert(
        HeaderName::from_static(header::RUNNING_MS),
        running.as_millis().to_string(),
    );
    if let Some(every) = every {
        let every = every.as_millis().to_string();
        headers.insert(HeaderName::from_static(header::BEAT_EVERY_MS), every);
    }
    let beat = flight.client.publish_with_reply_and_headers(
        format!("{direct}.beat"),
        format!("{}.b.{}", flight.inbox, task.token),
        headers,
        task.progress.to_send().unwrap_or_default(),
    );
    if let Some(Err(error)) = flight.offer(beat).await {
        tracing::debug!("a beat was not sent: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::tests::task;

    /// An operator may shorten any lease, and it is read again now and then.
    #[test]
    fn a_lease_is_renewed_at_a_third_of_it_and_every_ten_seconds() {
        for (lease_ms, every_ms) in [(1_200, 400), (29_997, 9_999), (30_000, 10_000), (7_200_000, 10_000)] {
            let lease = Duration::from_millis(lease_ms);
            assert_eq!(renew_every(lease), Duration::from_millis(every_ms), "{lease:?}");
        }
    }

    /// Who beats every five seconds is lost after fifteen; a `heartbeat` that is shorter is beaten thrice.
    #[test]
    fn a_worker_beats_every_five_seconds_or_three_times_in_a_heartbeat() {
        for (heartbeat, every_ms) in [
            (None, 5_000),
            (Some("3600000"), 5_000),
            (Some("15000"), 5_000),
            (Some("14997"), 4_999),
            (Some("3000"), 1_000),
            (Some("30"), 100),
            (Some("nonsense"), 5_000),
        ] {
            let headers: Vec<_> = heartbeat.map(|text| (header::HEARTBEAT, text)).into_iter().collect();
            assert_eq!(
                beat_every(&task(&headers)),
                Duration::from_millis(every_ms),
                "{heartbeat:?}"
            );
        }
    }
}
