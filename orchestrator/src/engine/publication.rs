//! Publishing what committed batches owe, beside the loop: confirmations first, then answers, messages and tasks.
//!
//! A message is offered until its stream has it, with two exceptions that go back to the loop: a task that a full stream
//! refuses (it is *held* in its run) and one that no stream will ever take (its run is parked).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{RunId, TaskNo};
use knarr_core::run;
use knarr_schemas::body::{Confirmation, ConfirmedResult};
use tokio_util::sync::CancellationToken;

use super::batch::{Confirm, Outbound};
use super::definitions::Definitions;
use super::failpoint::{self, Stage};
use super::fetch;
use super::outgoing::{self, Publication, RunRef};
use super::token::TokenKey;
use crate::bus::{Bus, Outgoing, PublishError, QueueSettings};
use crate::store::{CommitId, InheritedCommit, Store};
use crate::telemetry::metric;
use crate::telemetry::span::SpanSink;

/// How the publications of one commit ended.
#[derive(Debug)]
pub(super) struct Published {
    /// `None` where nothing was stored for it.
    pub(super) commit: Option<CommitId>,
    pub(super) held: Vec<(RunId, TaskNo)>,
    pub(super) unpublishable: Vec<(RunId, Arc<str>)>,
}

/// What a publication needs to know beside its messages.
#[derive(Debug)]
pub(super) struct Publisher<B> {
    pub(super) bus: Arc<B>,
    pub(super) tokens: Arc<TokenKey>,
    /// Where spans go, if they are exported; tasks then name their attempt's span.
    pub(super) spans: Option<SpanSink>,
    /// Ends offers that would never be taken, when the engine stops.
    pub(super) stop: CancellationToken,
}

impl<B> Clone for Publisher<B> {
    fn clone(&self) -> Self {
        Self {
            bus: Arc::clone(&self.bus),
            tokens: Arc::clone(&self.tokens),
            spans: self.spans.clone(),
            stop: self.stop.clone(),
        }
    }
}

impl<B: Bus> Publisher<B> {
    /// `None` if the engine stopped first: the commit's row stays, and whoever takes over publishes again.
    pub(super) async fn publish(&self, commit: Option<CommitId>, outbound: Outbound) -> Option<Published> {
        let mut offers = Vec::with_capacity(outbound.publications.len() + outbound.messages.len() + 4);
        let messages = confirmations(outbound.confirms).into_iter();
        let messages = messages.chain(outbound.answers).chain(outbound.messages);
        offers.extend(messages.map(Publication::Message));
        offers.extend(outbound.publications);
        if let Some(spans) = &self.spans {
            outbound.spans.into_iter().for_each(|ended| spans.send(ended));
        }
        let mut published = Published {
            commit,
            held: Vec::new(),
            unpublishable: Vec::new(),
        };
        let mut pause = Duration::from_millis(50);
        while !offers.is_empty() {
            // A task is composed anew if it has to be offered again: that is rarer than a copy of each would be.
            let messages = offers.iter().map(|offer| self.compose(offer)).collect();
            let results = self.bus.publish(messages).await;
            let mut again = Vec::new();
            let mut tasks = 0;
            for (offer, result) in offers.into_iter().zip(results) {
                match (result, &offer) {
                    (Ok(()), Publication::Task { .. }) => tasks += 1,
                    (Ok(()), Publication::Message(_)) => {}
                    (Err(PublishError::Full), Publication::Task { run, dispatch }) => {
                        published.held.push((run.run_id, dispatch.task));
                    }
                    (Err(PublishError::NoStream), Publication::Task { run, dispatch }) => {
                        self.restore_queue(run, &dispatch.queue).await;
                        published.held.push((run.run_id, dispatch.task));
                    }
                    (Err(PublishError::Refused(problem)), Publication::Task { run, .. }) => {
                        let reason = format!("a task cannot be published: {problem}");
                        published.unpublishable.push((run.run_id, Arc::from(reason)));
                    }
                    (Err(PublishError::Refused(problem)), Publication::Message(message)) => {
                        metrics::counter!(metric::PUBLISH_ERRORS, "kind" => "refused").increment(1);
                        tracing::error!(subject = %message.subject, %problem, "a message is refused by NATS and dropped");
                    }
                    (Err(error), _) => {
                        metrics::counter!(metric::PUBLISH_ERRORS, "kind" => "retried").increment(1);
                        tracing::debug!(%error, "a message will be published again");
                        again.push(offer);
                    }
                }
            }
            metrics::counter!(metric::TASKS_DISPATCHED).increment(tasks);
            offers = again;
            if !offers.is_empty() {
                tokio::select! {
                    () = self.stop.cancelled() => return None,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(Duration::from_secs(2));
            }
        }
        failpoint::pass(Stage::Published);
        Some(published)
    }

    fn compose(&self, offer: &Publication) -> Outgoing {
        match offer {
            Publication::Message(message) => message.clone(),
            Publication::Task { run, dispatch } => outgoing::task(run, dispatch, &self.tokens, self.spans.is_some()),
        }
    }

    /// The task stream of a namespace has gone, or has never been: it is made again, and the task offered later.
    async fn restore_queue(&self, run: &RunRef, queue: &knarr_core::ids::QueueName) {
        metrics::counter!(metric::PUBLISH_ERRORS, "kind" => "no_stream").increment(1);
        let settings = QueueSettings {
            queue: queue.clone(),
            ack_wait: Duration::from_secs(30),
        };
        if let Err(error) = self.bus.ensure_queues(&run.namespace, &[settings]).await {
            tracing::warn!(%error, namespace = %run.namespace, %queue, "the task queue cannot be made");
        }
    }

    /// Publishes what a dead session's commits still owe, as far as it is still wanted.
    pub(super) async fn inherit<S: Store>(
        &self,
        store: &S,
        definitions: &Definitions,
        inherited: InheritedCommit,
        partition_of: impl Fn(&crate::store::RunRow) -> i16,
    ) -> Option<Published> {
        let mut outbound = Outbound::default();
        if let Some(text) = &inherited.owed.messages {
            match outgoing::decode(text) {
                Ok(messages) => outbound.messages = messages,
                Err(error) => tracing::error!(%error, "stored messages of a commit cannot be read"),
            }
        }
        for spans in inherited.owed.spans.chunks(500) {
            let ids: Vec<_> = spans.iter().map(|span| span.run_id).collect();
            let loaded = loop {
                match fetch::load(store, definitions, &ids).await {
                    Ok(loaded) => break loaded,
                    Err(error) => {
                        tracing::warn!(%error, "what a dead replica owed cannot be loaded yet");
                        tokio::select! {
                            () = self.stop.cancelled() => return None,
                            () = tokio::time::sleep(Duration::from_millis(200)) => {}
                        }
                    }
                }
            };
            let spans: HashMap<_, _> = spans.iter().map(|span| (span.run_id, span)).collect();
            for run in loaded {
                let Some(span) = spans.get(&run.row.run_id) else {
                    continue;
                };
                let first = u32::try_from(span.first_seq).unwrap_or(0);
                let last = u32::try_from(span.last_seq).unwrap_or(0);
                let effects = run::effects_still_wanted(&run.state, first, last);
                if let Some(reference) = RunRef::new(&run.state, partition_of(&run.row)) {
                    let reference = Arc::new(reference);
                    outgoing::publications(
                        &run.state,
                        &reference,
                        effects,
                        &self.tokens,
                        &mut outbound.publications,
                    );
                }
            }
        }
        self.publish(Some(inherited.id), outbound).await
    }
}

/// One message for all results of a commit that came from one worker.
fn confirmations(confirms: Vec<Confirm>) -> Vec<Outgoing> {
    let mut by_inbox: HashMap<String, Vec<ConfirmedResult>> = HashMap::new();
    for Confirm { inbox, token, refused } in confirms {
        by_inbox
            .entry(inbox)
            .or_default()
            .push(ConfirmedResult { token, refused });
    }
    let mut messages = Vec::with_capacity(by_inbox.len());
    for (inbox, mut results) in by_inbox {
        // A message stays well below NATS's limit: a confirmed token takes about 70 bytes.
        while !results.is_empty() {
            let rest = results.split_off(results.len().min(4_000));
            let body = serde_json::to_vec(&Confirmation { results }).unwrap_or_default();
            messages.push(outgoing::core(inbox.clone(), body));
            results = rest;
        }
    }
    messages
}
