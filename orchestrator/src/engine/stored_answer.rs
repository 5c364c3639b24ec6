//! Answers to repeated starts of runs that have closed with an outcome too long for a look-up to bring along, or that were tried
//! again: the end that counts is that of the last attempt.
//!
//! One after the other, beside the loop, which forgets them: like every answer they are not durable, and a starter that hears
//! nothing asks again. So they hold one outcome in memory at a time, however many ask.

use std::sync::Arc;

use knarr_core::ids::RunId;
use knarr_schemas::body::{Answer, AnswerStage};
use tokio::sync::Semaphore;

use super::outgoing;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{RunRow, Store};

/// More than these that wait are not answered.
const MOST_WAITING: usize = 4096;

/// Attempts of a run that are gone through for one answer.
const MOST_ATTEMPTS: usize = 10_000;

/// The line they stand in.
#[derive(Debug, Clone)]
pub(super) struct StoredAnswers {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl StoredAnswers {
    pub(super) fn new() -> Self {
        Self {
            places: Arc::new(Semaphore::new(MOST_WAITING)),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// The answer about a closed run that this very request has started.
    pub(super) fn answer_of_closed(&mut self, row: &RunRow, to: &str, stage: AnswerStage) {
        // That of a run that is tried again is the end of its last attempt, which has to be looked for.
        let followed = row.retried_by.is_some() && stage == AnswerStage::Closed;
        if row.outcome.is_some() && !followed {
            let answer = outgoing::answer_of_row(row, stage);
            return self.building.answer(outgoing::answer(to, &answer));
        }
        let line = self.stored_answers.clone();
        let Ok(place) = line.places.try_acquire_owned() else {
            return tracing::debug!(run_id = %row.run_id, "too many wait for answers about runs long closed");
        };
        let (store, bus) = (Arc::clone(&self.store), Arc::clone(&self.bus));
        let (run_id, to) = (row.run_id, to.to_owned());
        self.tasks.spawn(async move {
            let Ok(_turn) = line.turn.acquire().await else { return };
            if let Some(answer) = read(&*store, run_id, stage).await {
                // The starter's connection may have ended, like that of any other.
                let _ = bus.publish(vec![outgoing::answer(&to, &answer)]).await;
            }
            drop(place);
        });
    }
}

async fn read<S: Store>(store: &S, run_id: RunId, stage: AnswerStage) -> Option<Answer> {
    let mut run_id = run_id;
    for _ in 0..MOST_ATTEMPTS {
        match store.run_row(run_id).await {
            Ok(Some(row)) => match row.retried_by.filter(|_| stage == AnswerStage::Closed) {
                Some(next) => run_id = next,
                // One that is open has no end to be told; whoever asks again is taken note of by it.
                None => return row.closed_at.map(|_| outgoing::answer_of_row(&row, stage)),
            },
            Ok(None) => return None,
            Err(error) => {
                tracing::debug!(%error, %run_id, "an outcome cannot be read; whoever asked asks again");
                return None;
            }
        }
    }
    None
}
