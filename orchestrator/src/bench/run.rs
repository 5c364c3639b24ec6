//! One measurement from beginning to end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use knarr_schemas::subject;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::error::BenchError;
use super::figures::Figures;
use super::load::{Live, Load, Plan, Seen, drive};
use super::record::Question;
use super::report::Report;
use super::scenario::Scenario;
use super::stack::Stack;
use super::start::new_nonce;
use super::wire::WireError;
use crate::dev::Progress;

/// Between connecting and the first start.
const LEAD: Duration = Duration::from_millis(100);
/// How often processes are looked after.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, Clone)]
pub struct BenchOptions {
    pub scenario: Scenario,
    pub load: Load,
    pub duration: Duration,
    /// Sagas run, and nothing is measured yet.
    pub warmup: Duration,
    /// Longest silence at the end before what has not ended is lost.
    pub drain: Duration,
    /// `None`: a private one.
    pub nats_url: Option<String>,
    /// `None`: a private one; with a NATS that was named: an orchestrator is there already.
    pub database_url: Option<String>,
    pub namespace: String,
    /// Whether changes of status are published; `None`: as the namespace has it.
    pub events: Option<bool>,
    /// Handlers at once in the worker.
    pub concurrency: usize,
    /// Orchestrators, where they are started.
    pub replicas: u16,
}

/// Measures, and stops whatever was started for it, also when `shutdown` comes first.
pub async fn run(
    options: &BenchOptions,
    shutdown: &CancellationToken,
    progress: &Progress,
) -> Result<Report, BenchError> {
    let nonce = new_nonce();
    let mut stack = tokio::select! {
        stack = Stack::start(options, &nonce, progress) => stack?,
        () = shutdown.cancelled() => return Err(BenchError::Interrupted),
    };
    let live = Arc::new(Live::default());
    let report = tokio::select! {
        report = measure(options, &nonce, &mut stack, &live, progress) => report,
        () = shutdown.cancelled() => Err(BenchError::Interrupted),
    };
    live.stop.store(true, Ordering::Relaxed);
    progress.step("Stopping …");
    stack.stop().await;
    report
}

async fn measure(
    options: &BenchOptions,
    nonce: &str,
    stack: &mut Stack,
    live: &Arc<Live>,
    progress: &Progress,
) -> Result<Report, BenchError> {
    let namespace = subject::encode_token(&options.namespace).map_err(|error| BenchError::Nats(error.to_string()))?;
    let plan = Plan {
        scenario: options.scenario,
        load: options.load,
        warmup: options.warmup,
        duration: options.duration,
        drain: options.drain,
        namespace: namespace.into_owned(),
        nonce: nonce.to_owned(),
    };
    let began = Instant::now() + LEAD;
    let mut client: JoinHandle<Result<Seen, WireError>> = {
        let (url, live) = (stack.nats_url().to_owned(), Arc::clone(live));
        tokio::task::spawn_blocking(move || drive(&url, &plan, began, &live))
    };
    let mut watch = Watch {
        stack,
        client: &mut client,
        live,
        progress,
        last: (Instant::now(), 0),
    };
    watch.until(began + options.warmup, "Warming up").await?;
    let first = watch.stack.mark(live).await?;
    watch
        .until(began + options.warmup + options.duration, "Measuring")
        .await?;
    let last = watch.stack.mark(live).await?;
    progress.step("Waiting for the last sagas …");
    let seen = loop {
        tokio::select! {
            seen = &mut client => break seen.map_err(|error| BenchError::Nats(error.to_string()))??,
            () = tokio::time::sleep(LOOK) => stack.check()?,
        }
    };
    let question = Question {
        started: seen.started,
        unended: seen.unended.clone(),
    };
    let verdict = stack.judge(&question).await?;
    Ok(Report::new(
        options.scenario,
        options.load,
        &Figures::between(&first, &last),
        seen,
        verdict,
    ))
}

/// Sees that all goes on.
struct Watch<'a> {
    stack: &'a mut Stack,
    client: &'a mut JoinHandle<Result<Seen, WireError>>,
    live: &'a Live,
    progress: &'a Progress,
    /// When it was last told how far things are, and how far they were.
    last: (Instant, u64),
}

impl Watch<'_> {
    async fn until(&mut self, end: Instant, what: &str) -> Result<(), BenchError> {
        if !matches!(self.progress, Progress::Spinner(_)) {
            self.progress.step(&format!("{what} …"));
        }
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            tokio::time::sleep(left.min(LOOK)).await;
            self.stack.check()?;
            // With one saga at a time it may have ended in the very moment that was waited for.
            if self.client.is_finished() && Instant::now() < end {
                // It only ends so early for an error.
                return match (&mut *self.client).await {
                    Ok(Err(error)) => Err(error.into()),
                    Ok(Ok(_)) => Err(BenchError::Interrupted),
                    Err(error) => Err(BenchError::Nats(error.to_string())),
                };
            }
            self.tell(what, end);
        }
    }

    fn tell(&mut self, what: &str, end: Instant) {
        if !matches!(self.progress, Progress::Spinner(_)) {
            return;
        }
        let (now, ended) = (Instant::now(), self.live.ended.load(Ordering::Relaxed));
        let seconds = (now - self.last.0).as_secs_f64();
        let rate = ended.saturating_sub(self.last.1) as f64 / seconds.max(0.001);
        self.last = (now, ended);
        let left = end.saturating_duration_since(now).as_secs_f64();
        self.progress
            .step(&format!("{what}: {ended} sagas, {rate:.0}/s, {left:.0} s left"));
    }
}
