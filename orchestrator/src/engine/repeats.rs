//! Repeats of what is said to whoever has a workflow id: a run that has closed since may have taken it.
//!
//! A trigger repeats a signal under its number until it is answered, and the answer may be late. Meanwhile any number of runs
//! may have had the id, so each that has closed since the signal was first sent is asked: those of uncommitted batches in
//! memory, the others where they are stored. As a trigger has one message at a time on its way to an id, nobody is asked who had the
//! id before one that has taken an earlier message of it.

use std::cmp::Reverse;

use knarr_core::ids::{MessageNo, RunId};
use knarr_core::run::State;
use knarr_core::run::message::{Answer, Body};
use knarr_core::time::Timestamp;

use super::fetch;
use super::job::RunMessage;
use super::live::{IdInfo, IdKey, LiveRuns};
use crate::store::{CLOSED_LIMIT, ClosedRun, Store, StoreError};

/// What the clocks of replicas may differ by, in microseconds.
const MOST_APART: i64 = 10_000_000;

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
    /// Perhaps one whose history cannot be read.
    Unreadable,
}

/// What the store has told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    taken: Taken,
    /// The last batch that was committed when it was asked.
    committed: u64,
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

    /// What a closed run says; `None`: one that had the id before it may know.
    fn put_to(&self, state: &State) -> Option<Taken> {
        if state.answer_to(self.from, self.number) == Some(Answer::Accepted) {
            return Some(Taken::Yes);
        }
        state.took_before(self.from, self.number).then_some(Taken::No)
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
            match live.get(known.row.run_id).map(|live| question.put_to(&live.state)) {
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

/// Asks the closed runs of a workflow id, one after the other, until each question is answered.
pub(super) async fn ask<S: Store>(
    store: &S,
    key: &IdKey,
    mut open: Vec<Question>,
) -> Result<Vec<(Question, Taken)>, StoreError> {
    let mut answers = Vec::with_capacity(open.len());
    let mut before = None;
    while let Some(since) = open.iter().map(|question| question.since).min() {
        let page = store.closed_runs(&key.0, &key.1, before).await?;
        for run in page.iter().filter(|run| run.closed_at >= since) {
            put_to(store, run, &mut open, &mut answers).await?;
        }
        // Those before had closed before they began.
        let is_last = page.len() < CLOSED_LIMIT || page.iter().all(|run| run.closed_at < since);
        if is_last {
            break;
        }
        before = page.last().map(|run| run.tenure);
    }
    answers.extend(open.into_iter().map(|question| (question, Taken::No)));
    Ok(answers)
}

async fn put_to<S: Store>(
    store: &S,
    run: &ClosedRun,
    open: &mut Vec<Question>,
    answers: &mut Vec<(Question, Taken)>,
) -> Result<(), StoreError> {
    if open.iter().all(|question| question.since > run.closed_at) {
        return Ok(());
    }
    let Some(stored) = store.load_runs(&[run.run_id]).await?.pop() else {
        return Ok(());
    };
    let state = fetch::read(store, &stored).await?;
    if let Err(problem) = &state {
        tracing::error!(run = %run.run_id, %problem, "the history of a run cannot be read");
    }
    open.retain(|question| {
        if question.since > run.closed_at {
            return true;
        }
        let answer = match &state {
            Ok(state) => question.put_to(state),
            Err(_) => Some(Taken::Unreadable),
        };
        answers.extend(answer.map(|answer| (*question, answer)));
        answer.is_none()
    });
    Ok(())
}
