//! Publishing what committed batches owe, beside the loop: confirmations first, then answers, messages and tasks.
//!
//! A message is offered a few times. What its stream has not acknowledged by then goes back to the loop, to be offered again
//! by one task for all commits; so do a task that a full stream refuses (it is *held* in its run) and one that no stream will
//! ever take (its run is parked).
//!
//! **Invariant:** a refusal means *not published* only of a task's first try. One that was not acknowledged before, here or by
//! a replica that died over it, may be in a worker's hands, and is held in doubt.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use knarr_core::ids::{Namespace, RunId, TaskNo};
use knarr_core::run::{self, Transition};
use knarr_schemas::body::{Confirmation, ConfirmedResult};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::batch::{Confirm, Outbound};
use super::code;
use super::definitions::Definitions;
use super::failpoint::{self, Stage};
use super::fetch;
use super::lifecycle;
use super::offers::{Left, Unreadable};
use super::outgoing::{self, Publication, RunRef, Withdrawal};
use super::token::TokenKey;
use super::too_large;
use crate::bus::{Bus, Delivery, Outgoing, PublishError};
use crate::store::{CommitId, HISTORY_LIMIT, InheritedCommit, Store, StoreError};
use crate::telemetry::metric;
use crate::telemetry::span::SpanSink;

/// Offers of a message before its commit waits with the others: with the pauses between them, a second and a half.
const ROUNDS: u32 = 6;

/// What is loaded to be offered again at any moment, over all commits, in bytes; a run that is larger is loaded by itself.
pub(super) const LOADED_TO_OFFER: usize = 16 << 20;
/// What is loaded and offered in one go.
const PORTION_BYTES: usize = 2 << 20;
const PORTION_RUNS: usize = 500;

/// How the publications of one commit ended.
#[derive(Debug)]
pub(super) struct Published {
    /// `None` where nothing was stored for it.
    pub(super) commit: Option<CommitId>,
    pub(super) held: Vec<HeldTask>,
    pub(super) unpublishable: Vec<UnpublishableTask>,
    /// What was not acknowledged in time, to be offered again.
    pub(super) left: Left,
    /// Namespaces whose task stream is not there.
    pub(super) missing: HashSet<Namespace>,
    /// Runs whose successors are owed.
    pub(super) continues: Vec<RunId>,
    /// Tasks that are to be taken out of their queues.
    pub(super) withdrawals: Vec<Withdrawal>,
    /// Runs that could not be read before, and whose they are: what they owe has gone out late.
    pub(super) readable: Vec<(RunId, Namespace)>,
}

/// A task that its stream refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeldTask {
    pub(super) run_id: RunId,
    pub(super) task: TaskNo,
    /// An earlier try may have been stored.
    pub(super) in_doubt: bool,
}

/// A task that can never be published, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UnpublishableTask {
    pub(super) held: HeldTask,
    pub(super) reason: Arc<str>,
}

impl Published {
    /// The rest of the same commit.
    fn add(&mut self, more: Self) {
        let Self {
            commit: _,
            held,
            unpublishable,
            left,
            missing,
            continues,
            withdrawals,
            readable,
        } = more;
        self.held.extend(held);
        self.unpublishable.extend(unpublishable);
        self.left.add(left);
        self.missing.extend(missing);
        self.continues.extend(continues);
        self.withdrawals.extend(withdrawals);
        self.readable.extend(readable);
    }

    /// Nothing is known of what became of it.
    pub(super) fn unsettled(commit: CommitId, left: Left) -> Self {
        Self {
            commit: Some(commit),
            held: Vec::new(),
            unpublishable: Vec::new(),
            left,
            missing: HashSet::new(),
            continues: Vec::new(),
            withdrawals: Vec::new(),
            readable: Vec::new(),
        }
    }
}

/// Transitions, as far as they can be read.
struct History {
    transitions: Vec<Transition>,
    whole: bool,
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
    /// Bytes of what may be loaded at the same time.
    pub(super) loads: Arc<Semaphore>,
}

impl<B> Clone for Publisher<B> {
    fn clone(&self) -> Self {
        Self {
            bus: Arc::clone(&self.bus),
            tokens: Arc::clone(&self.tokens),
            spans: self.spans.clone(),
            stop: self.stop.clone(),
            loads: Arc::clone(&self.loads),
        }
    }
}

impl<B: Bus> Publisher<B> {
    /// `None` if the engine stopped first: the commit's row stays, and whoever takes over publishes again.
    pub(super) async fn publish(&self, commit: Option<CommitId>, outbound: Outbound) -> Option<Published> {
        self.offer(commit, outbound, ROUNDS, false).await
    }

    /// `in_doubt`: some of it may have been published before.
    async fn offer(
        &self,
        commit: Option<CommitId>,
        outbound: Outbound,
        rounds: u32,
        mut in_doubt: bool,
    ) -> Option<Published> {
        let mut offers = Vec::with_capacity(outbound.publications.len() + outbound.messages.len() + 4);
        let messages = confirmations(outbound.confirms).into_iter();
        let messages = messages.chain(outbound.answers).chain(outbound.messages);
        offers.extend(messages.map(Publication::Message));
        let mut continues = Vec::new();
        let mut withdrawals = Vec::new();
        for publication in outbound.publications {
            match publication {
                Publication::Continue(run_id) => continues.push(run_id),
                Publication::Withdraw(withdrawal) => withdrawals.push(withdrawal),
                other => offers.push(other),
            }
        }
        if let Some(spans) = &self.spans {
            outbound.spans.into_iter().for_each(|ended| spans.send(ended));
        }
        let mut published = Published {
            commit,
            held: Vec::new(),
            unpublishable: Vec::new(),
            left: Left::Nothing,
            missing: HashSet::new(),
            continues,
            withdrawals,
            readable: Vec::new(),
        };
        let mut pause = Duration::from_millis(50);
        let mut round = 0;
        while !offers.is_empty() {
            if round == rounds {
                published.left = left(&offers);
                break;
            }
            round += 1;
            // A task is composed anew if it has to be offered again: that is rarer than a copy of each would be.
            let messages = offers.iter().filter_map(|offer| self.compose(offer)).collect();
            let results = self.bus.publish(messages).await;
            let mut again = Vec::new();
            let mut substituted = false;
            let mut tasks = 0;
            for (offer, result) in offers.into_iter().zip(results) {
                match (result, &offer) {
                    (Ok(()), Publication::Task { .. }) => tasks += 1,
                    (Ok(()), _) => {}
                    (Err(PublishError::Full), Publication::Task { run, dispatch }) => {
                        published.held.push(HeldTask {
                            run_id: run.run_id,
                            task: dispatch.task,
                            in_doubt,
                        });
                    }
                    (Err(PublishError::NoStream), Publication::Task { run, dispatch }) => {
                        metrics::counter!(metric::PUBLISH_ERRORS, "kind" => "no_stream").increment(1);
                        published.missing.insert(run.namespace.clone());
                        published.held.push(HeldTask {
                            run_id: run.run_id,
                            task: dispatch.task,
                            in_doubt,
                        });
                    }
                    (Err(PublishError::Refused(problem)), Publication::Task { run, dispatch }) => {
                        let reason = format!("a task cannot be published: {problem}");
                        published.unpublishable.push(UnpublishableTask {
                            held: HeldTask {
                                run_id: run.run_id,
                                task: dispatch.task,
                                in_doubt,
                            },
                            reason: Arc::from(reason),
                        });
                    }
                    // Events are switched off: nobody keeps them.
                    (Err(PublishError::NoStream), Publication::OfRun(_, message))
                        if message.subject.starts_with("knarr.event.") => {}
                    (
                        Err(PublishError::Refused(problem)),
                        Publication::Message(message) | Publication::OfRun(_, message),
                    ) => {
                        metrics::counter!(metric::PUBLISH_ERRORS, "kind" => "refused").increment(1);
                        let subject = &message.subject;
                        match too_large::instead_of(message, self.bus.max_payload()) {
                            Some(instead) => {
                                tracing::warn!(%subject, %problem, instead = %instead.subject, "a message is too large and is replaced");
                                again.push(Publication::Message(instead));
                                substituted = true;
                            }
                            None => tracing::error!(%subject, %problem, "a message is refused by NATS and dropped"),
                        }
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
            // Only tasks that were not acknowledged are offered again: one that a stream refuses leaves with that.
            in_doubt = true;
            // A substitute goes out in the same round, which may be the only one; it has none itself.
            if substituted {
                round -= 1;
            } else if !offers.is_empty() && round < rounds {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return None,
                    () = tokio::time::sleep(pause) => {}
                }
                pause *= 2;
            }
        }
        failpoint::pass(Stage::Published);
        Some(published)
    }

    /// `None` for what is no message; none of these is among the offers.
    fn compose(&self, offer: &Publication) -> Option<Outgoing> {
        Some(match offer {
            Publication::Message(message) | Publication::OfRun(_, message) => message.clone(),
            Publication::Task { run, dispatch } => outgoing::task(run, dispatch, &self.tokens, self.spans.is_some()),
            Publication::Continue(_) | Publication::Withdraw(_) => return None,
        })
    }

    /// What transitions have emitted, and what they said of a change of status, is not part of the state: they are read. `None`
    /// if the engine stopped first.
    async fn transitions<S: Store>(
        &self,
        store: &S,
        run_id: RunId,
        span: std::ops::RangeInclusive<u32>,
    ) -> Option<History> {
        let mut history = History {
            transitions: Vec::new(),
            whole: true,
        };
        let mut after = i32::try_from(*span.start()).unwrap_or(i32::MAX).saturating_sub(1);
        loop {
            let rows = match store.history(run_id, after, HISTORY_LIMIT).await {
                Ok(rows) => rows,
                Err(error) => {
                    tracing::warn!(%error, "what a run has emitted or become cannot be read yet");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return None,
                        () = tokio::time::sleep(Duration::from_millis(200)) => continue,
                    }
                }
            };
            let full = rows.len() >= HISTORY_LIMIT as usize;
            for row in rows {
                let seq = u32::try_from(row.seq).unwrap_or(u32::MAX);
                if seq > *span.end() {
                    return Some(history);
                }
                after = row.seq;
                match fetch::transition(&row) {
                    Ok(transition) => history.transitions.push(transition),
                    Err(error) => {
                        tracing::error!(run = %run_id, %error, "the history of a run cannot be read");
                        history.whole = false;
                    }
                }
            }
            if !full {
                return Some(history);
            }
        }
    }

    /// Publishes what a dead session's commits still owe, as far as it is still wanted. What cannot be read stays owed; it
    /// could not be read `before` either.
    pub(super) async fn inherit<S: Store>(
        &self,
        store: &S,
        definitions: &Definitions,
        inherited: InheritedCommit,
        before: &Unreadable,
    ) -> Option<Published> {
        let mut outbound = Outbound::default();
        let (mut unreadable, mut readable) = (Unreadable::default(), Vec::new());
        if let Some(text) = &inherited.owed.messages {
            match outgoing::decode(text) {
                Ok(messages) => outbound.messages = messages,
                Err(error) => {
                    tracing::error!(%error, "stored messages of a commit cannot be read");
                    unreadable.messages = true;
                }
            }
        }
        let mut published = self.offer(Some(inherited.id), outbound, 1, true).await?;
        let ids: Vec<RunId> = inherited.owed.spans.iter().map(|span| span.run_id).collect();
        let spans: HashMap<_, _> = inherited.owed.spans.iter().map(|span| (span.run_id, span)).collect();
        for some in self.portions(store, &ids).await? {
            let loading = u32::try_from(some.bytes.clamp(1, LOADED_TO_OFFER)).unwrap_or(u32::MAX);
            // Never closed.
            let _loading = self.loads.acquire_many(loading).await.ok();
            let found = self.insist(|| fetch::load(store, definitions, &some.runs)).await?;
            unreadable.runs.extend(found.unreadable);
            let mut outbound = Outbound::default();
            for run in found.runs {
                let run_id = run.row.run_id;
                let Some(span) = spans.get(&run_id) else {
                    continue;
                };
                let first = u32::try_from(span.first_seq).unwrap_or(0);
                let last = u32::try_from(span.last_seq).unwrap_or(0);
                let mut effects = run::effects_still_wanted(&run.state, first, last);
                let tells = definitions.tells(run.state.namespace()) && run.state.turned_in(&(first..=last));
                let mut transitions = Vec::new();
                if tells || run.state.emitted_in(first..=last) {
                    let history = self.transitions(store, run_id, first..=last).await?;
                    transitions = history.transitions;
                    effects.extend(transitions.iter().flat_map(run::emissions));
                    if !history.whole {
                        unreadable.runs.insert(run_id);
                        if before.runs.contains(&run_id) {
                            // What there is of it has gone out.
                            continue;
                        }
                    }
                }
                if before.runs.contains(&run_id) {
                    readable.push((run_id, run.row.namespace.clone()));
                }
                if let Some(reference) = RunRef::new(&run.state, run.row.partition) {
                    if tells {
                        for transition in &transitions {
                            lifecycle::tell(&run.state, &reference, transition, &mut outbound.publications);
                        }
                    }
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
            published.add(self.offer(Some(inherited.id), outbound, 1, true).await?);
        }
        if !unreadable.is_empty() {
            tracing::error!(
                code = code::bounds::OWED_UNREADABLE.id,
                session = %inherited.id.session,
                batch_no = inherited.id.batch_no,
                runs = ?unreadable.runs.iter().take(10).map(ToString::to_string).collect::<Vec<_>>(),
                count = unreadable.runs.len(),
                messages = unreadable.messages,
                "what a commit owes cannot be published, because it cannot be read; it stays owed"
            );
        }
        published.left.add_all_unreadable(unreadable);
        published.readable = readable;
        Some(published)
    }

    /// Runs as they may be loaded together: not too many, nor too large. `None` if the engine stopped first.
    async fn portions<S: Store>(&self, store: &S, ids: &[RunId]) -> Option<Vec<Portion>> {
        let mut portions: Vec<Portion> = Vec::new();
        for some in ids.chunks(PORTION_RUNS) {
            let mut last = Portion::default();
            for size in self.insist(|| store.run_sizes(some)).await? {
                let bytes = usize::try_from(size.bytes).unwrap_or(usize::MAX);
                if !last.runs.is_empty() && last.bytes.saturating_add(bytes) > PORTION_BYTES {
                    portions.push(std::mem::take(&mut last));
                }
                last.bytes = last.bytes.saturating_add(bytes);
                last.runs.push(size.run_id);
            }
            if !last.runs.is_empty() {
                portions.push(last);
            }
        }
        Some(portions)
    }

    /// Asks the store until it answers. `None` if the engine stopped first.
    async fn insist<T, F>(&self, mut ask: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        loop {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(error) => {
                    tracing::warn!(%error, "what a commit owes cannot be loaded yet");
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled() => return None,
                        () = tokio::time::sleep(Duration::from_millis(200)) => {}
                    }
                }
            }
        }
    }
}

/// Runs that are loaded together.
#[derive(Debug, Default)]
struct Portion {
    runs: Vec<RunId>,
    bytes: usize,
}

/// What has to be offered again of these. A message to whoever listens is not acknowledged at all, so that it is left only
/// where nothing can be sent: then nobody knows what has arrived.
fn left(offers: &[Publication]) -> Left {
    let mut left = Left::Nothing;
    for offer in offers {
        match offer {
            Publication::Task { run, .. } => left.add_task(run.run_id, &run.namespace),
            Publication::OfRun(run_id, _) | Publication::Continue(run_id) => left.add_runs([*run_id]),
            Publication::Withdraw(withdrawal) => left.add_runs([withdrawal.run.run_id]),
            Publication::Message(message) if message.delivery == Delivery::Stream => left.add_messages(),
            Publication::Message(_) => return Left::All,
        }
    }
    left
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
        // A message stays well below NATS's limit: a confirmed token takes about 70 bytes, a refused one what is said of it.
        while !results.is_empty() {
            let mut bytes = 0;
            let fits = results.iter().take_while(|result| {
                let refused = result.refused.as_ref();
                let said = refused.map_or(20, |error| 100 + error.message.len() + error.remedy.len());
                bytes += result.token.len() + said;
                bytes <= 70 * 4_000
            });
            // One that is too large by itself is refused by NATS.
            let count = fits.count().max(1);
            let rest = results.split_off(count);
            let body = serde_json::to_vec(&Confirmation {
                results,
                moved: Vec::new(),
            })
            .unwrap_or_default();
            messages.push(outgoing::core(inbox.clone(), body));
            results = rest;
        }
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token that is none of ours is as long as its sender likes.
    #[test]
    fn confirmations_are_split_by_what_they_weigh() {
        let confirms = |lengths: &[usize]| {
            let confirm = |length: &usize| Confirm {
                inbox: "_INBOX.a".to_owned(),
                token: "t".repeat(*length),
                refused: None,
            };
            let messages = confirmations(lengths.iter().map(confirm).collect());
            let results = messages.iter().map(|message| {
                let body: Confirmation = serde_json::from_slice(&message.payload).unwrap();
                body.results.len()
            });
            results.collect::<Vec<_>>()
        };
        assert_eq!(confirms(&[200_000, 200_000, 70]), [1, 2]);
        assert_eq!(confirms(&[70, 1_000_000, 70]), [1, 1, 1]);
        assert_eq!(confirms(&[70; 3_000]), [3_000]);
    }
}
