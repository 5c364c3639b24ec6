//! `knarr bench triggers`: events. A definition is triggered by messages in a stream of the user's own; how fast is a run started
//! for each, and is it exactly one?
//!
//! Either all messages are stored beforehand, and time counts from the registration of the definition; or they are published at a
//! rate, and how late a run begins counts from when its message was due. When runs began and ended is read from their rows,
//! where it stands by the database's clock, by which the client then goes, too.

use std::time::{Duration, Instant};

use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use futures_util::{FutureExt as _, StreamExt as _};
use knarr_schemas::api::{ShowTrigger, TriggerDescription, verb};
use sqlx::{PgPool, Row as _};
use tokio_util::sync::CancellationToken;

use super::error::BenchError;
use super::footprint::Footprint;
use super::run::BenchOptions;
use super::sleepers::database_bytes;
use super::stack::Stack;
use super::start::{new_nonce, workflow_id_prefix};
use super::tally::{Found, Tally};
use super::triggers_report::TriggersReport;
use crate::api::client::ApiClient;
use crate::dev::Progress;

/// Stored and not acknowledged, where all are stored beforehand.
const WINDOW: u64 = 1_024;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(250);
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// What others' servers are left with is no matter to a measurement that has been made.
const FORGET_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an event's body, about.
const BODY_BYTES: usize = 300;
/// The name of the trigger within its definition.
const TRIGGER: &str = "events";

/// How events come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Events {
    /// So many are stored before anybody reads them.
    Stored(u64),
    /// So many a second, for as long as is measured, and before that to warm up.
    Rate(f64),
}

/// Measures, and stops whatever was started for it, also when `shutdown` comes first. Of `options` it needs where servers are,
/// the namespace, the number of orchestrators, how long a silence is waited for, and with a rate the times.
pub async fn trigger(
    options: &BenchOptions,
    events: Events,
    shutdown: &CancellationToken,
    progress: &Progress,
) -> Result<TriggersReport, BenchError> {
    let nonce = new_nonce();
    let mut stack = tokio::select! {
        stack = Stack::start(options, &nonce, progress) => stack?,
        () = shutdown.cancelled() => return Err(BenchError::Interrupted),
    };
    let source = Source::new(options, &nonce, events);
    let report = tokio::select! {
        report = source.measure(&mut stack, progress) => report,
        () = shutdown.cancelled() => Err(BenchError::Interrupted),
    };
    progress.step("Stopping …");
    // Without a database nothing was made.
    if options.nats_url.is_some() && stack.pool().is_ok() {
        source.forget(&mut stack).await;
    }
    stack.stop().await;
    report
}

/// One stream, its trigger and its events.
struct Source<'a> {
    options: &'a BenchOptions,
    events: Events,
    /// How many, and the first of them that is measured.
    count: u64,
    first_measured: u64,
    ids: String,
    stream: String,
    subject: String,
    workflow: String,
}

/// A moment by both clocks; the database's in microseconds.
#[derive(Debug, Clone, Copy)]
struct Moment {
    here: Instant,
    there: i64,
}

impl Moment {
    /// Of a few answers the one that came fastest.
    async fn now(pool: &PgPool) -> Result<Self, BenchError> {
        let mut best = None;
        for _ in 0..5 {
            let asked = Instant::now();
            let sql = "select (extract(epoch from clock_timestamp()) * 1000000)::bigint";
            let there: i64 = sqlx::query_scalar(sql).fetch_one(pool).await?;
            let took = asked.elapsed();
            if best.is_none_or(|(fastest, _)| took < fastest) {
                let here = asked + took / 2;
                best = Some((took, Self { here, there }));
            }
        }
        best.map(|(_, moment)| moment).ok_or(BenchError::NoDatabase)
    }

    fn at(self, here: Instant) -> i64 {
        let since = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match here.checked_duration_since(self.here) {
            Some(later) => self.there.saturating_add(since(later)),
            None => self.there.saturating_sub(since(self.here.duration_since(here))),
        }
    }
}

fn failed(error: &dyn std::fmt::Display) -> BenchError {
    BenchError::Nats(error.to_string())
}

impl<'a> Source<'a> {
    fn new(options: &'a BenchOptions, nonce: &str, events: Events) -> Self {
        let (count, first_measured) = match events {
            Events::Stored(count) => (count, 0),
            Events::Rate(rate) => {
                // Both are finite and not negative, and as large as a rate and a duration make them.
                let warmup = (rate * options.warmup.as_secs_f64()).ceil() as u64;
                (
                    warmup.saturating_add((rate * options.duration.as_secs_f64()).ceil() as u64),
                    warmup,
                )
            }
        };
        Self {
            options,
            events,
            count,
            first_measured,
            ids: workflow_id_prefix(nonce),
            stream: format!("BENCH-{nonce}"),
            subject: format!("knarr-bench.{nonce}"),
            workflow: format!("bench-trigger-{nonce}"),
        }
    }

    /// Runs as short as they can be: what is measured is how they come about.
    fn definition(&self) -> String {
        let (workflow, stream, subject) = (&self.workflow, &self.stream, &self.subject);
        format!(
            "workflow: {workflow}\nversion: 1\ntriggers:\n  {TRIGGER}:\n    stream: {stream}\n    subject: {subject}\n    \
             from: all\n    id: \"${{ event.data.id }}\"\n    input: {{ n: \"${{ event.data.n }}\" }}\n\
             steps:\n  - keep: {{ set: {{ n: \"${{ input.n }}\" }} }}\n"
        )
    }

    fn body(&self, number: u64) -> String {
        let mut body = format!(r#"{{"id":"{}{number}","n":{number},"note":""#, self.ids);
        let fill = BODY_BYTES.saturating_sub(body.len() + 2);
        body.extend(std::iter::repeat_n('.', fill));
        body.push_str("\"}");
        body
    }

    async fn measure(&self, stack: &mut Stack, progress: &Progress) -> Result<TriggersReport, BenchError> {
        let pool = stack.pool()?;
        let config = Config {
            name: self.stream.clone(),
            subjects: vec![self.subject.clone()],
            retention: RetentionPolicy::Limits,
            storage: StorageType::File,
            ..Config::default()
        };
        let jetstream = async_nats::jetstream::new(stack.nats());
        jetstream.create_stream(config).await.map_err(|error| failed(&error))?;
        let before = database_bytes(&pool).await?;
        let (published, began) = match self.events {
            Events::Stored(_) => {
                progress.step(&format!("Storing {} events …", self.count));
                let published = self.publish(stack, Instant::now()).await?;
                let began = Moment::now(&pool).await?;
                stack.register_text(&self.definition()).await?;
                (Some(published), began)
            }
            Events::Rate(rate) => {
                stack.register_text(&self.definition()).await?;
                self.await_trigger(stack).await?;
                progress.step(&format!("Publishing {rate} events a second …"));
                let began = Moment::now(&pool).await?;
                self.publish(stack, began.here).await?;
                (None, began)
            }
        };
        let trigger = self.await_answers(stack, progress).await?;
        let found = self.await_ends(stack, &pool, began).await?;
        let footprint = Footprint::new(before, database_bytes(&pool).await?, stack.orchestrator_memory());
        Ok(TriggersReport::new(
            self.events,
            self.count,
            published,
            found,
            &trigger,
            footprint,
        ))
    }

    /// When the event of this number is published; at once where there is no rate.
    fn due(&self, began: Instant, number: u64) -> Instant {
        match self.events {
            Events::Stored(_) => began,
            Events::Rate(rate) => began + Duration::from_secs_f64(number as f64 / rate),
        }
    }

    /// Ends when all are stored, and says how long that took.
    async fn publish(&self, stack: &mut Stack, began: Instant) -> Result<Duration, BenchError> {
        let nats = stack.nats();
        let inbox = nats.new_inbox();
        let mut back = nats.subscribe(inbox.clone()).await.map_err(|error| failed(&error))?;
        let mut open = 0_u64;
        for number in 0..self.count {
            while let Some(message) = back.next().now_or_never() {
                stored(message.as_ref())?;
                open = open.saturating_sub(1);
            }
            match self.events {
                Events::Rate(_) => tokio::time::sleep_until(self.due(began, number).into()).await,
                Events::Stored(_) if open >= WINDOW => {
                    self.acknowledged(&mut back).await?;
                    open -= 1;
                }
                Events::Stored(_) => {}
            }
            nats.publish_with_reply(self.subject.clone(), inbox.clone(), self.body(number).into())
                .await
                .map_err(|error| failed(&error))?;
            open += 1;
            if number % WINDOW == 0 {
                stack.check()?;
            }
        }
        nats.flush().await.map_err(|error| failed(&error))?;
        for _ in 0..open {
            self.acknowledged(&mut back).await?;
        }
        Ok(began.elapsed())
    }

    async fn acknowledged(&self, back: &mut async_nats::Subscriber) -> Result<(), BenchError> {
        match tokio::time::timeout(self.options.drain, back.next()).await {
            Ok(message) => stored(message.as_ref()),
            Err(_) => Err(BenchError::Nats("events are not acknowledged".to_owned())),
        }
    }

    async fn show(&self, stack: &Stack) -> Option<TriggerDescription> {
        let api = ApiClient::new(stack.nats(), self.options.namespace.clone(), CALL_TIMEOUT);
        let show = ShowTrigger {
            workflow: self.workflow.clone(),
            name: TRIGGER.to_owned(),
        };
        api.call(verb::TRIGGER_SHOW, &show).await.ok()
    }

    async fn await_trigger(&self, stack: &mut Stack) -> Result<(), BenchError> {
        let deadline = Instant::now() + self.options.drain;
        while self.show(stack).await.is_none() {
            stack.check()?;
            if Instant::now() > deadline {
                return Err(BenchError::NotReady {
                    what: "the trigger",
                    seconds: self.options.drain.as_secs(),
                    last: "nobody knows it".to_owned(),
                });
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Until each start has its answer, or nothing changes for too long.
    async fn await_answers(&self, stack: &mut Stack, progress: &Progress) -> Result<TriggerDescription, BenchError> {
        let (mut last, mut since) = (None, Instant::now());
        loop {
            let shown = self.show(stack).await;
            if let Some(now) = shown.filter(|now| last.as_ref() != Some(now)) {
                progress.step(&format!("Runs are started: {} of {} …", now.started, self.count));
                let answered = now.started + now.refused >= self.count && now.sent + now.waiting == 0;
                if answered {
                    return Ok(now);
                }
                (last, since) = (Some(now), Instant::now());
            }
            if since.elapsed() > self.options.drain {
                return last.ok_or(BenchError::NotReady {
                    what: "the trigger",
                    seconds: self.options.drain.as_secs(),
                    last: "nobody knows it".to_owned(),
                });
            }
            stack.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Until every run has closed, or nothing changes for too long.
    async fn await_ends(&self, stack: &mut Stack, pool: &PgPool, began: Moment) -> Result<Found, BenchError> {
        let (mut last, mut since) = ((0, 0), Instant::now());
        loop {
            let found = self.read(pool, began).await?;
            let now = (found.runs, found.completed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if found.completed == found.runs || since.elapsed() > self.options.drain {
                return Ok(found);
            }
            stack.check()?;
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn read(&self, pool: &PgPool, began: Moment) -> Result<Found, BenchError> {
        let sql = "select workflow_id, status, (extract(epoch from started_at) * 1000000)::bigint,
                          (extract(epoch from closed_at) * 1000000)::bigint
                   from runs where namespace = $1 and workflow_id >= $2 and workflow_id < $3 and workflow = $4";
        let mut rows = sqlx::query(sql)
            .bind(&self.options.namespace)
            .bind(&self.ids)
            .bind(format!("{}a", self.ids))
            .bind(&self.workflow)
            .fetch(pool);
        let mut tally = Tally::new(self.count);
        while let Some(row) = rows.next().await {
            let row = row?;
            let (id, status): (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let (started, closed): (i64, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
            let number = id.strip_prefix(&self.ids).and_then(|number| number.parse().ok());
            let late = number
                .filter(|number| *number >= self.first_measured)
                .map(|number| started - began.at(self.due(began.here, number)));
            tally.add(number, late, closed.filter(|_| status == "completed"));
        }
        Ok(tally.end(began.there))
    }

    /// Nothing reads the stream any more, and it goes. On servers of others alone: private ones are gone with all of it.
    async fn forget(&self, stack: &mut Stack) {
        let without = format!(
            "workflow: {}\nversion: 2\nsteps:\n  - keep: {{ set: {{ n: 1 }} }}\n",
            self.workflow
        );
        let jetstream = async_nats::jetstream::new(stack.nats());
        let forgotten = async {
            stack.register_text(&without).await?;
            jetstream
                .delete_stream(&self.stream)
                .await
                .map_err(|error| failed(&error))
        };
        if !matches!(tokio::time::timeout(FORGET_TIMEOUT, forgotten).await, Ok(Ok(_))) {
            tracing::warn!(
                stream = self.stream,
                workflow = self.workflow,
                "the benchmark's stream or trigger may be left"
            );
        }
    }
}

fn stored(acknowledgement: Option<&async_nats::Message>) -> Result<(), BenchError> {
    let Some(message) = acknowledgement else {
        return Err(BenchError::Nats("the subscription ended".to_owned()));
    };
    let text = String::from_utf8_lossy(&message.payload);
    match text.contains("\"seq\"") {
        true => Ok(()),
        false => Err(BenchError::Nats(format!("an event was not stored: {text}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load::Load;
    use super::super::scenario::Scenario;
    use super::*;

    fn options() -> BenchOptions {
        BenchOptions {
            scenario: Scenario::Order,
            load: Load::InFlight(1),
            duration: Duration::from_secs(4),
            warmup: Duration::from_millis(500),
            drain: Duration::from_secs(1),
            nats_url: None,
            database_url: None,
            namespace: "default".to_owned(),
            events: None,
            concurrency: 1,
            replicas: 1,
        }
    }

    #[test]
    fn a_rate_says_how_many_and_when() {
        let options = options();
        let source = Source::new(&options, "abc", Events::Rate(25.0));
        assert_eq!((source.count, source.first_measured), (113, 13));
        let began = Instant::now();
        assert_eq!(source.due(began, 50), began + Duration::from_secs(2));
        let stored = Source::new(&options, "abc", Events::Stored(7));
        assert_eq!((stored.count, stored.first_measured), (7, 0));
        let clock = Moment {
            here: began,
            there: 1_000_000,
        };
        assert_eq!(clock.at(began + Duration::from_millis(3)), 1_003_000);
        assert_eq!(
            Moment {
                here: began + Duration::from_millis(3),
                ..clock
            }
            .at(began),
            997_000
        );
    }

    #[test]
    fn the_definition_is_one_and_bodies_are_what_it_reads() {
        let options = options();
        let source = Source::new(&options, "abc", Events::Stored(7));
        let read = crate::api::source::read(&source.definition(), &|_| Err(String::new()));
        assert!(read.checked.is_some(), "{:?}", read.findings);
        assert_eq!(read.findings.len(), 0, "{:?}", read.findings);
        let body: serde_json::Value = serde_json::from_str(&source.body(5)).unwrap();
        assert_eq!((&body["id"], &body["n"]), (&"bench-abc-5".into(), &5.into()));
        assert_eq!(source.body(5).len(), BODY_BYTES);
    }
}
