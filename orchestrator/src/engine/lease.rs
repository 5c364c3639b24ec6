//! Keeping the lease and the fair share of partitions; taking over, giving back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use knarr_core::time::Timestamp;

use super::offers::Left;
use super::readers::Opening;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::{OwnedPartition, Share, Store, StoreError};
use crate::telemetry::metric;

impl<S: Store, B: Bus> Loop<S, B> {
    /// Whether every replica can read what belongs to this format level.
    pub(super) fn may_store(&self, level: i32) -> bool {
        level <= self.cluster.format_level
    }

    /// Renews the lease, beside the loop; one renewal at a time.
    pub(super) fn keep(&mut self) {
        if self.keeping || self.recovering || self.stopping {
            return;
        }
        self.keeping = true;
        let in_use = self.room.in_use();
        metrics::gauge!(metric::INTAKE_BYTES, "inlet" => "log").set(in_use.log as f64);
        metrics::gauge!(metric::INTAKE_BYTES, "inlet" => "direct").set(in_use.direct as f64);
        metrics::gauge!(metric::PUBLISHING_BYTES).set(self.publishing_bytes as f64);
        let store = Arc::clone(&self.store);
        let (session, life) = (self.session, self.life);
        let published = if self.building.needs_commit() {
            Vec::new()
        } else {
            self.take_published()
        };
        let panicked = Done::Kept {
            life,
            share: Err(StoreError::Unavailable("the renewal panicked".to_owned())),
            published: published.clone(),
            clock: None,
        };
        self.beside(panicked, async move {
            let asked = tokio::time::Instant::now();
            let share = store.keep(&session, &published).await;
            let clock = share
                .as_ref()
                .ok()
                .map(|share| (share.now, tokio::time::Instant::now()));
            tracing::trace!(elapsed = ?asked.elapsed(), "lease kept");
            Done::Kept {
                life,
                share,
                published,
                clock,
            }
        });
    }

    pub(super) fn kept(&mut self, share: Result<Share, StoreError>) {
        match share {
            Ok(share) => {
                self.health.set_store(true);
                self.cluster.format_level = share.format_level;
                metrics::gauge!(crate::telemetry::metric::FORMAT_LEVEL).set(f64::from(share.format_level));
                self.see_epoch(share.definitions_epoch);
                let heard = (share.commits, share.definitions_epoch);
                if self.heard != Some(heard) {
                    self.heard = Some(heard);
                    self.changes.fetch_add(1, Ordering::Relaxed);
                }
                // Before anything of what is new here is applied or published.
                self.definitions.set_telling(share.telling);
                self.gained(share.gained);
                for commit in share.inherited {
                    self.offers.put(commit, Left::All);
                }
                if !self.works_on_inheritance() {
                    self.give_back(share.surplus);
                }
            }
            Err(StoreError::Fenced) => {
                tracing::warn!("another replica has taken over; beginning anew");
                self.reset("the lease was lost");
            }
            Err(error) => {
                self.health.set_store(false);
                tracing::warn!(%error, "the lease cannot be renewed");
            }
        }
    }

    /// Takes partitions over from their committed cursors.
    pub(super) fn gained(&mut self, gained: Vec<OwnedPartition>) {
        if gained.is_empty() {
            return;
        }
        self.ask_for_triggers(gained.iter().map(|owned| owned.partition).collect());
        let now = self.clock.now();
        let grace_until = now.plus(self.config.timeout_grace);
        tracing::info!(count = gained.len(), "partitions taken");
        for owned in gained {
            let OwnedPartition {
                partition,
                cursor,
                deferred,
                permits,
            } = owned;
            // It is told of again where an answer was lost that had told of it, and it was found out otherwise. What has been
            // taken of it since is not to be taken once more.
            if self.partitions.get(partition).is_some() {
                continue;
            }
            let reader = self.partitions.open(partition, cursor.clone(), grace_until);
            if let Some(opened) = self.partitions.get_mut(partition).filter(|_| deferred) {
                opened.unknown_deferred = true;
                self.ask_for_deferred(partition, reader);
            }
            if let Some(opened) = self.partitions.get_mut(partition).filter(|_| permits) {
                opened.unknown_permits = true;
                self.ask_for_permits(partition, reader);
            }
            let opening = Opening {
                partition,
                cursor,
                reader,
                into: self.room.inlet(partition, self.intake.clone()),
            };
            self.readers.open(&self.bus, &self.tasks, opening);
        }
        // What was looked up of others' runs may be ours now.
        self.absent.clear();
        self.try_given_up();
        (self.scan_after, self.scan_from) = (None, Timestamp(i64::MIN));
        metrics::gauge!(crate::telemetry::metric::PARTITIONS_OWNED).set(self.partitions.len() as f64);
    }

    /// What the dead owe may be a run's successor, which only the owner of its partition can start: whoever got the partition from
    /// here would not hear of it. The same holds for its own, after everything in memory was dropped. What cannot be read keeps nobody
    /// waiting.
    pub(super) fn works_on_inheritance(&self) -> bool {
        let own = self.session.id;
        self.offers.inherits(own) || self.held.keys().any(|commit| commit.session != own) || self.owes_successors()
    }

    /// Stops taking from `surplus` partitions; they are released once what was taken is committed.
    fn give_back(&mut self, surplus: usize) {
        let leaving = self
            .partitions
            .iter()
            .filter(|(_, partition)| partition.leaving_after.is_some())
            .count();
        let number = self.building.number;
        let chosen: Vec<i16> = self
            .partitions
            .served()
            .into_iter()
            .rev()
            .take(surplus.saturating_sub(leaving))
            .collect();
        for partition in chosen {
            if let Some(owned) = self.partitions.get_mut(partition) {
                owned.leaving_after = Some(number);
                owned.queue.clear();
            }
            // At once, so that workers are told that nobody listens, and not only when the last batch is committed.
            drop(self.readers.close(&self.bus, &self.tasks, partition));
        }
    }

    /// Releases partitions whose last batch is committed, whatever is being committed of others: under load something always
    /// is.
    pub(super) fn release_drained(&mut self) {
        if self.recovering {
            return;
        }
        let (building, committing) = (&self.building, self.committing.as_ref());
        let idle = building.is_empty() && committing.is_none();
        let committed = self.committed;
        let ready: Vec<i16> = self
            .partitions
            .iter()
            .filter(|(_, partition)| partition.leaving_after.is_some_and(|after| after <= committed || idle))
            // A run that continues as new is followed by its successor, also in a partition that is being left.
            .filter(|(number, _)| !building.touches(*number))
            .filter(|(number, _)| committing.is_none_or(|sealed| !sealed.touches(*number)))
            .map(|(number, _)| number)
            .collect();
        if ready.is_empty() {
            return;
        }
        for partition in &ready {
            self.partitions.remove(*partition);
            self.live.forget_partition(*partition);
            self.gate.forget_partition(*partition);
            self.alarms.forget_partition(*partition);
            self.deferral.forget_partition(*partition);
            self.limiters.forget_partition(*partition);
            self.in_line.forget_partition(*partition);
            self.triggers.forget_partition(*partition);
        }
        (self.scan_after, self.scan_from) = (None, Timestamp(i64::MIN));
        metrics::gauge!(crate::telemetry::metric::PARTITIONS_OWNED).set(self.partitions.len() as f64);
        let store = Arc::clone(&self.store);
        let (session, life) = (self.session, self.life);
        let partitions = ready.iter().copied();
        let closing: Vec<_> = partitions
            .map(|partition| self.readers.close(&self.bus, &self.tasks, partition))
            .collect();
        let panicked = Done::Released {
            life,
            partitions: ready.clone(),
            result: Err(StoreError::Unavailable("the release panicked".to_owned())),
        };
        let writing = Arc::clone(&self.writing);
        self.beside(panicked, async move {
            for closed in closing {
                closed.await;
            }
            // Behind the commit under way, and before the next.
            let _turn = writing.lock().await;
            // A release that fails is found out by the next renewal: the partition is still counted as owned there.
            let result = store.release(&session, &ready).await;
            Done::Released {
                life,
                partitions: ready,
                result,
            }
        });
    }
}
