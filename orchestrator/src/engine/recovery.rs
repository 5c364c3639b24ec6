//! Dropping what is not durable and beginning again from the store.

use std::sync::Arc;
use std::time::Duration;

use super::batch::BatchBuilder;
use super::deferred_runs::Deferral;
use super::fetch::Wanted;
use super::gate::Gate;
use super::report::Done;
use super::run_loop::Loop;
use super::triggers::Triggers;
use crate::bus::Bus;
use crate::store::{CommitId, OwnedPartition, Session, Store, StoreError};

/// Before the store is asked again after a second commit in a row that has failed; doubled with each.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
/// The lease is not renewed meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The store is said to be away at once, and then so often.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// A store that answers and can commit nothing (its disk is full) is not to be asked as fast as it answers: each time every
/// log is read anew.
fn pause_after(failed: u32) -> Duration {
    match failed.checked_sub(2) {
        None => Duration::ZERO,
        Some(more) => (SHORTEST_PAUSE * (1 << more.min(8))).min(LONGEST_PAUSE),
    }
}

impl<S: Store, B: Bus> Loop<S, B> {
    /// Drops everything that is not durable and begins again from the store.
    pub(super) fn reset(&mut self, why: &'static str) {
        if self.recovering {
            return;
        }
        tracing::warn!(why, "memory is dropped and read again");
        self.life += 1;
        self.recovering = true;
        if let Some(sealed) = self.committing.take() {
            self.published.extend(sealed.batch.published.iter().copied());
            self.limbo = Some(sealed);
        }
        let number = self.building.number;
        let dropped = std::mem::replace(&mut self.building, BatchBuilder::new(number + 1)).seal(&self.live);
        self.published.extend(dropped.batch.published.iter().copied());
        self.committed = number;
        self.live.clear();
        self.lacking.clear();
        self.direct.clear();
        // A commit is published once what was refused of it is recorded, and that has just been dropped.
        let held = &self.held;
        self.published.retain(|commit| !held.contains_key(commit));
        self.wanted = Wanted::default();
        self.absent.clear();
        self.fetching = None;
        self.fetches_done = self.fetches;
        self.fetch_after = None;
        self.deferral = Deferral::default();
        self.limiters.clear();
        self.in_line.clear();
        self.given_up.clear();
        self.triggers = Triggers::default();
        self.alarms.clear();
        self.pulses.clear();
        self.gate = Gate::default();
        self.scanning = false;
        self.scan_after = None;
        self.partitions.clear();
        self.recover();
    }

    pub(super) fn recover(&mut self) {
        let store = Arc::clone(&self.store);
        let (session, life, done) = (self.session, self.life, self.done.clone());
        let replica = self.config.replica.clone();
        let health = Arc::clone(&self.health);
        let lost = Done::RecoveryLost { life };
        let pause = pause_after(self.failed);
        self.beside(lost, async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let mut session = session;
            let (mut opens, mut fenced) = (false, false);
            let mut name_taken = false;
            let mut told: Option<tokio::time::Instant> = None;
            loop {
                if done.is_closed() {
                    return Done::RecoveryLost { life };
                }
                let attempt = async {
                    if opens {
                        session = store.open_session(&replica).await?;
                        // A failure below does not open another.
                        opens = false;
                    } else {
                        session = store.recover(&session).await?;
                    }
                    store.cursors(&session).await
                };
                match attempt.await {
                    Ok(owned) => {
                        if told.is_some() {
                            tracing::warn!("the store is back");
                        }
                        return Done::Recovered {
                            life,
                            session,
                            fenced,
                            owned,
                        };
                    }
                    Err(StoreError::Fenced) => (opens, fenced) = (true, true),
                    Err(error @ StoreError::TooOld { .. }) => return Done::Over(error),
                    // Once it may be what is left of an attempt whose answer was lost; its lease ends while this waits for
                    // the lock. A namesake is still there then, and one of the two has to give in.
                    Err(error @ StoreError::NameTaken { .. }) if name_taken => return Done::Over(error),
                    Err(StoreError::NameTaken { .. }) => name_taken = true,
                    Err(error) => {
                        health.set_store(false);
                        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                            tracing::warn!(%error, "the store is not back yet");
                            told = Some(tokio::time::Instant::now());
                        }
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
    }

    pub(super) fn recovered(&mut self, session: Session, fenced: bool, owned: Vec<OwnedPartition>) {
        let before = std::mem::replace(&mut self.session, session);
        self.recovering = false;
        self.health.set_store(true);
        tracing::info!(partitions = owned.len(), "recovered");
        if let Some(limbo) = self.limbo.take()
            && !fenced
            && session.batch_no > before.batch_no
        {
            // It was committed after all: what it owes is published as for any other.
            let commit = (!limbo.batch.owed.is_empty()).then_some(CommitId {
                session: session.id,
                batch_no: before.batch_no + 1,
            });
            if let Some(commit) = commit {
                self.offers.publishing(commit, limbo.began);
                self.owe_successors(commit, &limbo.runs);
            }
            self.let_out(commit, limbo.outbound);
        }
        self.continue_again();
        for (commit, held) in &mut self.held {
            self.direct.extend(held.jobs(*commit));
        }
        // Readers of what others own by now would go on for nobody.
        for partition in self.readers.opened() {
            if !owned.iter().any(|owned| owned.partition == partition) {
                drop(self.readers.close(&self.bus, &self.tasks, partition));
            }
        }
        self.gained(owned);
        self.keep();
    }
}
