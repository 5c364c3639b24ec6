//! `knarr bench sleepers`: timers. So many runs fall asleep as fast as they can be started; how late does each wake?
//!
//! Lateness is read from each run's own history: the moment that its timer was set for, and the time of the transition in which
//! it fired, both by the database's clock. Before that, so many others can be *planted*, which sleep for ten years: what is
//! pending must cost neither time nor memory. They are copies of one that was started as any other, put into the tables beside
//! a running orchestrator, for which they are what an earlier one has left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use knarr_schemas::{header, subject};
use serde::Deserialize;
use serde_json::Value;
use sqlx::{PgPool, Row as _};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::BenchError;
use super::footprint::Footprint;
use super::run::BenchOptions;
use super::sleepers_report::SleepersReport;
use super::stack::Stack;
use super::start::{new_nonce, workflow_id_prefix};
use crate::dev::Progress;

/// Planted in one statement.
const PLANTED_AT_ONCE: u64 = 20_000;
/// For one start to be found in the database.
const FOUND_WITHIN: Duration = Duration::from_secs(30);
/// Longer is told apart no more.
const MAX_LATE_US: u64 = 600_000_000;
const MAX_SAMPLES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sleepers {
    pub count: u64,
    pub sleep: Duration,
    /// Others that sleep for years.
    pub pending: u64,
    /// All wake at the same instant, `sleep` after the first start.
    pub together: bool,
}

/// Measures, and stops whatever was started for it, also when `shutdown` comes first. Of `options` it needs where servers are,
/// the namespace, the number of orchestrators and how long a silence is waited for.
pub async fn sleep(
    options: &BenchOptions,
    sleepers: Sleepers,
    shutdown: &CancellationToken,
    progress: &Progress,
) -> Result<SleepersReport, BenchError> {
    let nonce = new_nonce();
    let mut stack = tokio::select! {
        stack = Stack::start(options, &nonce, progress) => stack?,
        () = shutdown.cancelled() => return Err(BenchError::Interrupted),
    };
    let report = tokio::select! {
        report = measure(options, sleepers, &nonce, &mut stack, progress) => report,
        () = shutdown.cancelled() => Err(BenchError::Interrupted),
    };
    progress.step("Stopping …");
    stack.stop().await;
    report
}

fn definition(workflow: &str, wait: &str) -> String {
    format!("workflow: {workflow}\nversion: 1\nsteps:\n  - sleep: {{ wait: {wait} }}\n")
}

const UNTIL: &str = "bench-sleep-until";

async fn measure(
    options: &BenchOptions,
    sleepers: Sleepers,
    nonce: &str,
    stack: &mut Stack,
    progress: &Progress,
) -> Result<SleepersReport, BenchError> {
    let ms = sleepers.sleep.as_millis();
    let for_a_time = format!("bench-sleep-{ms}ms");
    stack
        .register_text(&definition(UNTIL, "{ until: \"${ input.until }\" }"))
        .await?;
    stack
        .register_text(&definition(&for_a_time, &format!("{ms}ms")))
        .await?;
    let pool = stack.pool()?;
    if sleepers.pending > 0 {
        plant(options, stack, &pool, nonce, sleepers.pending, progress).await?;
    }
    let before = database_bytes(&pool).await?;
    progress.step(&format!("Starting {} sleepers …", sleepers.count));
    let workflow = if sleepers.together { UNTIL } else { for_a_time.as_str() };
    let body = match sleepers.together {
        true => format!("{{\"until\":\"{}\"}}", in_rfc3339(&pool, sleepers.sleep).await?),
        false => "{}".to_owned(),
    };
    let began = Instant::now();
    let client = Client {
        options,
        nonce,
        workflow,
        body,
    };
    let seen = client.start_and_wait(stack, sleepers, progress).await?;
    let ended = began.elapsed();
    let history = read(&pool, options, workflow, nonce).await?;
    let footprint = Footprint::new(before, database_bytes(&pool).await?, stack.orchestrator_memory());
    Ok(SleepersReport::new(sleepers, &seen, history, ended, footprint))
}

/// By the database's clock, which is the engine's.
async fn in_rfc3339(pool: &PgPool, ahead: Duration) -> Result<String, BenchError> {
    let sql = "select to_char((now() + $1 * interval '1 millisecond') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')";
    let ms = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX);
    Ok(sqlx::query_scalar(sql).bind(ms as f64).fetch_one(pool).await?)
}

pub(super) async fn database_bytes(pool: &PgPool) -> Result<i64, BenchError> {
    Ok(sqlx::query_scalar("select pg_database_size(current_database())")
        .fetch_one(pool)
        .await?)
}

/// What the client has seen.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// When the last start was acknowledged.
    pub(super) started_in: Duration,
    pub(super) answered: u64,
    pub(super) samples: Vec<String>,
}

struct Client<'a> {
    options: &'a BenchOptions,
    nonce: &'a str,
    workflow: &'a str,
    body: String,
}

impl Client<'_> {
    /// Every start, one behind the other; then the answers that they have closed.
    async fn start_and_wait(
        &self,
        stack: &mut Stack,
        sleepers: Sleepers,
        progress: &Progress,
    ) -> Result<Answers, BenchError> {
        let nats = stack.nats();
        let failed = |error: &dyn std::fmt::Display| BenchError::Nats(error.to_string());
        let inbox = nats.new_inbox();
        let mut back = nats
            .subscribe(format!("{inbox}.>"))
            .await
            .map_err(|error| failed(&error))?;
        let began = Instant::now();
        let (stored, answer) = (format!("{inbox}.stored"), format!("{inbox}.closed"));
        for number in 0..sleepers.count {
            let subject = self.subject(&format!("{}{number}", workflow_id_prefix(self.nonce)))?;
            let mut headers = async_nats::HeaderMap::new();
            headers.insert(header::REPLY_ON, "closed");
            headers.insert(header::REPLY_TO, format!("{answer}.{number}"));
            nats.publish_with_reply_and_headers(subject, stored.clone(), headers, self.body.clone().into())
                .await
                .map_err(|error| failed(&error))?;
        }
        nats.flush().await.map_err(|error| failed(&error))?;
        let mut answers = Answers::default();
        let (mut acknowledged, mut closed) = (0, BTreeSet::new());
        let patience = sleepers.sleep + self.options.drain;
        while (closed.len() as u64) < sleepers.count {
            let message = match tokio::time::timeout(patience, back.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Err(BenchError::Nats("the subscription ended".to_owned())),
                // What has not answered by then is found in the database, or is not.
                Err(_) => break,
            };
            let text = String::from_utf8_lossy(&message.payload);
            if message.subject.as_str() == stored {
                acknowledged += 1;
                if acknowledged == sleepers.count {
                    answers.started_in = began.elapsed();
                    progress.step("Waiting for the sleepers …");
                }
                if !text.contains("\"seq\"") && answers.samples.len() < MAX_SAMPLES {
                    answers.samples.push(format!("a start was refused: {text}"));
                }
            } else {
                closed.insert(message.subject.to_string());
            }
            stack.check()?;
        }
        answers.answered = closed.len() as u64;
        Ok(answers)
    }

    fn subject(&self, workflow_id: &str) -> Result<String, BenchError> {
        subject::start(&self.options.namespace, workflow_id, self.workflow)
            .map_err(|error| BenchError::Nats(error.to_string()))
    }
}

/// What the histories of the sleepers say.
#[derive(Debug)]
pub(super) struct Histories {
    pub(super) runs: u64,
    pub(super) completed: u64,
    /// Fired before it was due.
    pub(super) early: u64,
    pub(super) late_us: Histogram<u64>,
    /// From the first moment that was due to the last run's end, in microseconds.
    pub(super) done_within_us: u64,
}

#[derive(Deserialize)]
struct TimerSet {
    due: i64,
}

async fn read(pool: &PgPool, options: &BenchOptions, workflow: &str, nonce: &str) -> Result<Histories, BenchError> {
    let sql = "select r.run_id, r.status, (extract(epoch from e.at) * 1000000)::bigint as at, e.body
               from runs r join events e on e.retention_class = r.retention_class and e.run_id = r.run_id
               where r.namespace = $1 and r.workflow_id >= $2 and r.workflow_id < $3 and r.workflow = $4
               order by r.run_id, e.seq";
    let prefix = workflow_id_prefix(nonce);
    let mut rows = sqlx::query(sql)
        .bind(&options.namespace)
        .bind(&prefix)
        .bind(format!("{prefix}a"))
        .bind(workflow)
        .fetch(pool);
    let mut found = Histories {
        runs: 0,
        completed: 0,
        early: 0,
        late_us: histogram(),
        done_within_us: 0,
    };
    let (mut run, mut due) = (Uuid::nil(), None);
    let (mut first_due, mut last_end) = (i64::MAX, i64::MIN);
    while let Some(row) = rows.next().await {
        let row = row?;
        let (id, at): (Uuid, i64) = (row.try_get(0)?, row.try_get(2)?);
        if id != run {
            (run, due) = (id, None);
            found.runs += 1;
            found.completed += u64::from(row.try_get::<String, _>(1)? == "completed");
        }
        let events: Vec<Value> = serde_json::from_str(row.try_get(3)?).unwrap_or_default();
        for event in events {
            if let Some(set) = event.get("timer_set") {
                due = TimerSet::deserialize(set).ok().map(|set| set.due);
            } else if event.get("step_passed").is_some()
                && let Some(due) = due
            {
                first_due = first_due.min(due);
                last_end = last_end.max(at);
                match u64::try_from(at - due) {
                    Ok(late) => found.late_us.saturating_record(late),
                    Err(_) => found.early += 1,
                }
            }
        }
    }
    found.done_within_us = u64::try_from(last_end.saturating_sub(first_due)).unwrap_or_default();
    Ok(found)
}

// Bounds and precision are constants that the library takes.
#[expect(clippy::expect_used, reason = "constant arguments within the documented range")]
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, MAX_LATE_US, 3).expect("valid bounds")
}

/// Starts one that sleeps for ten years, and copies it.
async fn plant(
    options: &BenchOptions,
    stack: &Stack,
    pool: &PgPool,
    nonce: &str,
    count: u64,
    progress: &Progress,
) -> Result<(), BenchError> {
    let failed = |error: &dyn std::fmt::Display| BenchError::Nats(error.to_string());
    let original = format!("planted-{nonce}-0");
    let subject = subject::start(&options.namespace, &original, UNTIL).map_err(|error| failed(&error))?;
    let until = in_rfc3339(pool, Duration::from_secs(3_650 * 86_400)).await?;
    let nats = stack.nats();
    let stored = nats.request(subject, format!("{{\"until\":\"{until}\"}}").into());
    stored.await.map_err(|error| failed(&error))?;
    let deadline = Instant::now() + FOUND_WITHIN;
    let run: Uuid = loop {
        let found = sqlx::query_scalar("select run_id from runs where namespace = $1 and workflow_id = $2")
            .bind(&options.namespace)
            .bind(&original)
            .fetch_optional(pool)
            .await?;
        match found {
            Some(run) => break run,
            None if Instant::now() > deadline => {
                return Err(BenchError::NotReady {
                    what: "the first sleeper",
                    seconds: FOUND_WITHIN.as_secs(),
                    last: "its run is not in the database".to_owned(),
                });
            }
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    let partitions: i64 = sqlx::query_scalar("select count(*) - 1 from partitions")
        .fetch_one(pool)
        .await?;
    let partitions = u16::try_from(partitions).unwrap_or(1).max(1);
    let mut planted = 1;
    while planted < count {
        progress.step(&format!("Planting sleepers: {planted} of {count} …"));
        let end = count.min(planted + PLANTED_AT_ONCE);
        copy(pool, options, (run, &original), nonce, (planted..end, partitions)).await?;
        planted = end;
    }
    sqlx::query("vacuum analyze runs").execute(pool).await?;
    Ok(())
}

/// Rows as the engine would have written them: ids of the same millisecond that count up, partitions as NATS deals them out.
async fn copy(
    pool: &PgPool,
    options: &BenchOptions,
    (run, original): (Uuid, &str),
    nonce: &str,
    (numbers, partitions): (std::ops::Range<u64>, u16),
) -> Result<(), BenchError> {
    let (mut ids, mut names, mut of) = (Vec::new(), Vec::new(), Vec::new());
    for number in numbers {
        let name = format!("planted-{nonce}-{number}");
        // Version and variant stay as they are; the lowest bits are random anyway.
        ids.push(Uuid::from_u128(
            (run.as_u128() & !0xffff_ffff_ffff) | u128::from(number),
        ));
        of.push(i16::try_from(subject::partition_of(&options.namespace, &name, partitions)).unwrap_or_default());
        names.push(name);
    }
    let sql = "with w as (select * from unnest($2::uuid[], $3::text[], $4::smallint[]) as w (run_id, workflow_id, partition)),
                    r as (
                        insert into runs (run_id, retention_class, partition, version, namespace, workflow_id, workflow,
                                          definition, status, started_at, wake_at, request_id)
                        select w.run_id, o.retention_class, w.partition, o.version, o.namespace, w.workflow_id, o.workflow,
                               o.definition, o.status, o.started_at, o.wake_at, o.request_id
                        from runs o, w where o.run_id = $1
                    )
               insert into events (retention_class, seq, run_id, at, body)
               select e.retention_class, e.seq, w.run_id, e.at,
                      replace(replace(e.body, $1::text, w.run_id::text), $5, w.workflow_id)
               from events e, w where e.run_id = $1";
    sqlx::query(sql)
        .bind(run)
        .bind(ids)
        .bind(names)
        .bind(of)
        .bind(original)
        .execute(pool)
        .await?;
    Ok(())
}
