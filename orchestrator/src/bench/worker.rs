//! The worker process: the order activities on the public SDK, with preformatted answers, and a record of what ran.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::Client;
use futures_util::StreamExt as _;
use knarr_worker::{ActivityError, CancellationToken, Context, Worker};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::error::BenchError;
use super::record::{Question, Records};
use super::scenario::{ACTIVITIES, Activity, QUEUE, Scenario, result};
use super::start::workflow_id_prefix;

#[derive(Debug, Clone)]
pub struct WorkerOptions {
    pub nats_url: String,
    pub namespace: String,
    pub scenario: Scenario,
    /// Names the measurement; only its sagas are recorded.
    pub nonce: String,
    /// Handlers at once.
    pub concurrency: usize,
}

/// Where a worker of this measurement tells how much it has executed.
pub(crate) fn count_subject(nonce: &str) -> String {
    format!("knarr.bench.{nonce}.count")
}

/// Where it judges what it has executed.
pub(crate) fn report_subject(nonce: &str) -> String {
    format!("knarr.bench.{nonce}.report")
}

/// Works until `shutdown`.
pub async fn work(options: WorkerOptions, shutdown: CancellationToken) -> Result<(), BenchError> {
    let nats = |error: &dyn std::fmt::Display| BenchError::Nats(error.to_string());
    let client = knarr_worker::connect(&options.nats_url)
        .await
        .map_err(|error| nats(&error))?;
    let records = Arc::new(Mutex::new(Records::default()));
    let asked = client
        .subscribe(format!("knarr.bench.{}.*", options.nonce))
        .await
        .map_err(|error| nats(&error))?;
    let answering = tokio::spawn(answer(client.clone(), asked, Arc::clone(&records), options.scenario));
    let mut builder = Worker::builder(client)
        .namespace(&options.namespace)
        .queue(QUEUE)
        .concurrency(options.concurrency)
        .max_unconfirmed(options.concurrency.max(4_096));
    let prefix: Arc<str> = workflow_id_prefix(&options.nonce).into();
    for (activity, name) in (0..).zip(ACTIVITIES) {
        let service = Arc::new(Service {
            activity,
            fails: options.scenario.fails(activity),
            answer: answer_of(activity)?,
            prefix: Arc::clone(&prefix),
            records: Arc::clone(&records),
        });
        // Nothing of the input is used, so nothing of it is built.
        builder = builder.activity(name, move |ctx: Context, _: IgnoredAny| {
            let called = service.call(&ctx);
            async move { called }
        });
    }
    let worker = builder.build().map_err(|error| nats(&error))?;
    let worked = worker.run(shutdown).await.map_err(|error| nats(&error));
    answering.abort();
    worked
}

fn answer_of(activity: Activity) -> Result<&'static RawValue, BenchError> {
    let raw = RawValue::from_string(result(activity)).map_err(|error| BenchError::Nats(error.to_string()))?;
    // One of seven, for the life of the process; a shared counter would be touched at every call.
    Ok(Box::leak(raw))
}

struct Service {
    activity: Activity,
    fails: bool,
    answer: &'static RawValue,
    prefix: Arc<str>,
    records: Arc<Mutex<Records>>,
}

impl Service {
    fn call(&self, ctx: &Context) -> Result<&'static RawValue, ActivityError> {
        let number = ctx
            .workflow_id()
            .strip_prefix(&*self.prefix)
            .and_then(|number| number.parse().ok());
        // What an earlier measurement left in the queue is answered and forgotten.
        if let Some(number) = number {
            lock(&self.records).ran(number, self.activity);
        }
        if self.fails {
            return Err(ActivityError::failed("out_of_stock", "the shelf is empty").non_retryable());
        }
        Ok(self.answer)
    }
}

fn lock(records: &Mutex<Records>) -> std::sync::MutexGuard<'_, Records> {
    records.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(client: Client, mut asked: async_nats::Subscriber, records: Arc<Mutex<Records>>, scenario: Scenario) {
    while let Some(message) = asked.next().await {
        let Some(reply) = message.reply else { continue };
        let answer = if message.subject.ends_with(".count") {
            lock(&records).executions().to_string().into_bytes()
        } else {
            let question: Question = serde_json::from_slice(&message.payload).unwrap_or_default();
            let verdict = lock(&records).judge(scenario.course(), &question);
            serde_json::to_vec(&verdict).unwrap_or_default()
        };
        if let Err(error) = client.publish(reply, answer.into()).await {
            tracing::warn!(%error, "an answer about the records could not be sent");
        }
    }
}
