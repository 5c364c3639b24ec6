//! Repeats of what is said to whoever has a workflow id: a run that has closed since may have taken it.
//!
//! A trigger repeats a signal under its number until it is answered, and the answer may be late. Meanwhile any number of runs
//! may have had the id, so each that has closed since the signal was first sent is asked: what has closed here says it when it
//! closes, the others where they are stored. As a trigger has one message at a time on its way to an id, nobody is asked who had
//! the id before one that has taken an earlier message of it.

use std::cmp::Reverse;
use std::collections::HashMap;

use knarr_core::ids::{MessageNo, RunId};
use knarr_core::run::State;
use knarr_core::run::message::Body;
use knarr_core::time::Timestamp;

use super::fetch;
use super::job::RunMessage;
use super::live::{IdInfo, IdKey, Known, LiveRuns};
use crate::store::{CLOSED_LIMIT, RunSize, Store, StoreError, StoredRun};

/// What the clocks of replicas may differ by, in microseconds.
const MOST_APART: i64 = 10_000_000;
/// Messages that are remembered of a run beside its history.
const MOST_TAKEN: usize = 64;

/// Whether a run that has closed since has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Question {
    from: RunId,
    number: MessageNo,
    /// When it was first sent, as the clock of any replica may have said.
    since: Timestamp,
}

/// Who has taken it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nobody that has closed.
    No,
    Yes,
    /// Perhaps this one, whose history cannot be read.
    Unreadable(RunId),
}

/// What the store has told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    taken: Taken,
    /// The last batch that was committed when it was asked.
    committed: u64,
}

/// The messages that a run has taken, and whether it has accepted them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Took(Box<[(RunId, MessageNo, bool)]>);

impl Took {
    /// `None`: they are too many to be remembered.
    pub(super) fn by(state: &State) -> Option<Self> {
        let some: Box<[_]> = state.messages_taken().take(MOST_TAKEN + 1).collect();
        (some.len() <= MOST_TAKEN).then_some(Self(some))
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.0)
    }
}

impl Question {
    /// Of a message to whoever has the id that says when it was first sent.
    pub(super) fn of(message: &RunMessage) -> Option<Self> {
        match &message.body {
            Body::Signal {
                sent_at: Some(sent_at), ..
            } if message.to_run.is_none() => Some(Self {
                from: message.from.run,
                number: message.number,
                since: Timestamp(sent_at.0.saturating_sub(MOST_APART)),
            }),
            _ => None,
        }
    }

    /// What a run says; `None`: one that had the id before it may know.
    fn put_to(&self, taken: impl Iterator<Item = (RunId, MessageNo, bool)>) -> Option<Taken> {
        let mut said = None;
        for (_, number, accepted) in taken.filter(|(from, ..)| *from == self.from) {
            if number == self.number && accepted {
                return Some(Taken::Yes);
            }
            said = said.or((number < self.number).then_some(Taken::No));
        }
        said
    }
}

impl IdInfo {
    pub(super) fn tell(&mut self, question: Question, taken: Taken, committed: u64) {
        self.told.insert(question, Told { taken, committed });
    }

    /// Who has taken a message that may be a repeat; `None`: the store has to be asked.
    pub(super) fn has_taken(&self, live: &LiveRuns, message: &RunMessage) -> Option<Taken> {
        let Some(question) = Question::of(message) else {
            return Some(Taken::No);
        };
        let by = |known: &Known| match live.get(known.row.run_id) {
            Some(live) => Some(question.put_to(live.state.messages_taken())),
            None => known.took.as_ref().map(|took| question.put_to(took.0.iter().copied())),
        };
        if let Some(Some(taken)) = self.open().and_then(by) {
            return Some(taken);
        }
        let told = self.told.get(&question);
        if let Some(told) = told.filter(|told| told.taken != Taken::No) {
            return Some(told.taken);
        }
        let closed = self.runs.iter().filter(|known| known.row.closed_at.is_some());
        let mut closed: Vec<_> = closed.collect();
        closed.sort_by_key(|known| Reverse(known.row.tenure()));
        let mut since = closed
            .iter()
            .filter(|known| known.row.closed_at >= Some(question.since))
            .peekable();
        if since.peek().is_none() {
            return Some(Taken::No);
        }
        for (n, known) in since.enumerate() {
            match by(known) {
                // Whether all are known that had the id in between is not.
                Some(Some(Taken::No)) if n > 0 => {}
                Some(Some(taken)) => return Some(taken),
                Some(None) => {}
                // The store was asked when that was there.
                None if told.is_some_and(|told| known.closed_in <= told.committed) => {}
                None => return None,
            }
        }
        told.map(|told| told.taken)
    }
}

/// Asks the closed runs of a workflow id, who had it last first, until each question is answered. No more than `most` bytes of them
/// are read at once, if it is more than one run.
pub(super) async fn ask<S: Store>(
    store: &S,
    key: &IdKey,
    questions: Vec<Question>,
    most: u64,
) -> Result<Vec<(Question, Taken)>, StoreError> {
    let mut asking = Asking {
        answers: Vec::with_capacity(questions.len()),
        open: questions,
    };
    let mut before = None;
    while let Some(since) = asking.open.iter().map(|question| question.since).min() {
        let page = store.closed_runs(&key.0, &key.1, before).await?;
        let closed: Vec<RunId> = page
            .iter()
            .filter(|run| run.closed_at >= since)
            .map(|run| run.run_id)
            .collect();
        for runs in parts(&closed, &store.run_sizes(&closed).await?, most) {
            if asking.open.is_empty() {
                break;
            }
            asking.put_to(store, runs).await?;
        }
        // Those before had closed before they began.
        if page.len() < CLOSED_LIMIT || closed.is_empty() {
            break;
        }
        before = page.last().map(|run| run.tenure);
    }
    let nobody = asking.open.into_iter().map(|question| (question, Taken::No));
    asking.answers.extend(nobody);
    Ok(asking.answers)
}

/// The first by itself, as mostly it answers; then as many as fit.
fn parts<'a>(runs: &'a [RunId], sizes: &[RunSize], most: u64) -> Vec<&'a [RunId]> {
    let sizes: HashMap<RunId, u64> = sizes.iter().map(|size| (size.run_id, size.bytes)).collect();
    let size = |run: &RunId| sizes.get(run).copied().unwrap_or_default();
    let mut parts = Vec::new();
    let mut left = runs;
    while let Some(first) = left.first() {
        let mut bytes = size(first);
        let more = left[1..].iter().take_while(|run| {
            bytes = bytes.saturating_add(size(run));
            bytes <= most
        });
        let count = if parts.is_empty() { 1 } else { 1 + more.count() };
        let (part, rest) = left.split_at(count);
        parts.push(part);
        left = rest;
    }
    parts
}

struct Asking {
    open: Vec<Question>,
    answers: Vec<(Question, Taken)>,
}

impl Asking {
    async fn put_to<S: Store>(&mut self, store: &S, runs: &[RunId]) -> Result<(), StoreError> {
        let stored: HashMap<RunId, StoredRun> = store
            .load_runs(runs)
            .await?
            .into_iter()
            .map(|stored| (stored.row.run_id, stored))
            .collect();
        for run_id in runs {
            let Some(stored) = stored.get(run_id) else { continue };
            let state = fetch::read(store, stored).await?;
            if let Err(problem) = &state {
                tracing::error!(run = %run_id, %problem, "the history of a run cannot be read");
            }
            let answers = &mut self.answers;
            self.open.retain(|question| {
                if Some(question.since) > stored.row.closed_at {
                    return true;
                }
                let answer = match &state {
                    Ok(state) => question.put_to(state.messages_taken()),
                    Err(_) => Some(Taken::Unreadable(*run_id)),
                };
                answers.extend(answer.map(|answer| (*question, answer)));
                answer.is_none()
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(n: u128) -> RunId {
        RunId(Uuid::from_u128(n))
    }

    #[test]
    fn who_has_taken_an_earlier_message_is_the_last_that_is_asked() {
        let question = Question {
            from: run(1),
            number: MessageNo(5),
            since: Timestamp(0),
        };
        let say = |taken: &[(u128, u32, bool)]| {
            let taken = taken.iter();
            question.put_to(taken.map(|(from, number, accepted)| (run(*from), MessageNo(*number), *accepted)))
        };
        assert_eq!(say(&[]), None);
        assert_eq!(say(&[(2, 4, true), (2, 5, true)]), None, "of another sender");
        assert_eq!(say(&[(1, 6, true)]), None);
        assert_eq!(say(&[(1, 4, true)]), Some(Taken::No));
        assert_eq!(say(&[(1, 4, true), (1, 5, true)]), Some(Taken::Yes));
        assert_eq!(say(&[(1, 4, true), (1, 5, false)]), Some(Taken::No));
    }

    #[test]
    fn no_more_is_read_at_once_than_fits() {
        let size = |n: u128, bytes| RunSize {
            run_id: run(n),
            partition: 0,
            bytes,
        };
        let sizes = [
            size(1, 10),
            size(2, 60),
            size(3, 40),
            size(4, 500),
            size(5, 1),
            size(6, 1),
        ];
        let runs: Vec<RunId> = (1..=6).map(run).collect();
        let lengths = |most| -> Vec<usize> { parts(&runs, &sizes, most).iter().map(|part| part.len()).collect() };
        assert_eq!(lengths(100), [1, 2, 1, 2]);
        assert_eq!(lengths(0), [1; 6]);
        assert_eq!(lengths(10_000), [1, 5]);
        assert_eq!(parts(&[], &sizes, 1).len(), 0);
    }
}
