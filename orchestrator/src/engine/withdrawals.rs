//! Taking tasks out of their queues, beside the loop, a bounded number at a time.
//!
//! A task is looked for once nothing that may publish it is under way: a first publication of the batch that offered it, or a
//! commit that is offered again and was read before the withdrawal was committed. What is not found then was delivered, or
//! withdrawn before. What is asked here is lost with the replica, and with more than a number of them: the run asks again.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use futures_util::StreamExt as _;
use knarr_core::ids::{RunId, TaskNo};
use tokio::time::Instant;

use super::job::{Job, JobKind};
use super::outgoing::Withdrawal;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

/// Beyond that they are left to their runs.
const MOST_WAITING: usize = 10_000;
/// Taken out in one go.
const WIDEST: usize = 256;
const ABREAST: usize = 16;
/// After a queue that has not answered.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Remembered until their runs have surely been told.
const MOST_TAKEN: usize = 10_000;

#[derive(Debug)]
struct Waiting {
    withdrawal: Withdrawal,
    /// Offers that began later know of it.
    offers: u64,
}

#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    waiting: VecDeque<Waiting>,
    /// Those that wait and those under way.
    asked: BTreeSet<(RunId, TaskNo)>,
    under_way: bool,
    pause: Duration,
    not_before: Option<Instant>,
    /// Taken out before: where the word was lost with the memory it is said again, for the queue would say *not there*.
    taken: BTreeSet<(RunId, TaskNo)>,
    /// The same in the order of their going.
    gone: VecDeque<(RunId, TaskNo)>,
}

impl Withdrawals {
    /// The next moment at which a queue may be asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.not_before.filter(|_| !self.waiting.is_empty() && !self.under_way)
    }

    /// `offers`: how many there have been by now.
    fn put(&mut self, withdrawal: Withdrawal, offers: u64) {
        let is_new = self.waiting.len() < MOST_WAITING && self.asked.insert(name(&withdrawal));
        if is_new {
            self.waiting.push_back(Waiting { withdrawal, offers });
        }
    }

    fn was_taken(&mut self, task: (RunId, TaskNo)) {
        if self.gone.len() >= MOST_TAKEN
            && let Some(oldest) = self.gone.pop_front()
        {
            self.taken.remove(&oldest);
        }
        if self.taken.insert(task) {
            self.gone.push_back(task);
        }
    }
}

fn name(withdrawal: &Withdrawal) -> (RunId, TaskNo) {
    (withdrawal.run.run_id, withdrawal.task)
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn withdraw_soon(&mut self, withdrawals: Vec<Withdrawal>) {
        for withdrawal in withdrawals {
            let task = name(&withdrawal);
            if self.withdrawals.taken.contains(&task) {
                self.say_withdrawn(task, true);
            } else {
                self.withdrawals.put(withdrawal, self.offers.begun());
            }
        }
    }

    /// Asks the queues of those whose turn it is.
    pub(super) fn withdraw(&mut self) {
        let ready = self.withdrawals.not_before.is_none_or(|at| at <= Instant::now());
        if self.withdrawals.waiting.is_empty() || self.withdrawals.under_way || !ready {
            return;
        }
        let (published_to, oldest_offer) = (self.offers.published_to(), self.offers.oldest_under_way());
        let is_out = |waiting: &Waiting| {
            waiting.withdrawal.since <= published_to && oldest_offer.is_none_or(|oldest| oldest > waiting.offers)
        };
        let mut taken = Vec::new();
        while taken.len() < WIDEST && self.withdrawals.waiting.front().is_some_and(is_out) {
            let Some(Waiting { withdrawal, .. }) = self.withdrawals.waiting.pop_front() else {
                break;
            };
            let run = &withdrawal.run;
            if self
                .partitions
                .serves(self.partition_of(&run.namespace, &run.workflow_id))
            {
                taken.push(withdrawal);
            } else {
                // The queue's answer would be lost; whoever owns the run asks.
                self.withdrawals.asked.remove(&name(&withdrawal));
            }
        }
        if taken.is_empty() {
            return;
        }
        self.withdrawals.under_way = true;
        let bus = std::sync::Arc::clone(&self.bus);
        let panicked = taken.iter().cloned().map(|withdrawal| (withdrawal, None)).collect();
        self.beside(Done::Withdrawn(panicked), async move {
            let asked = taken.into_iter().map(async |withdrawal| {
                let Withdrawal {
                    run, queue, subject, ..
                } = &withdrawal;
                let withdrawn = bus.withdraw(&run.namespace, queue, subject).await;
                if let Err(error) = &withdrawn {
                    tracing::debug!(%error, "a task is taken out of its queue later");
                }
                (withdrawal, withdrawn.ok())
            });
            let answers = futures_util::stream::iter(asked).buffer_unordered(ABREAST);
            Done::Withdrawn(answers.collect().await)
        });
    }

    /// What the queues have said; `None` where one has not answered.
    pub(super) fn withdrawn(&mut self, answers: Vec<(Withdrawal, Option<bool>)>) {
        let withdrawals = &mut self.withdrawals;
        withdrawals.under_way = false;
        withdrawals.not_before = None;
        let mut said = Vec::with_capacity(answers.len());
        let mut again = false;
        for (withdrawal, withdrawn) in answers {
            let task = name(&withdrawal);
            match withdrawn {
                Some(withdrawn) => {
                    withdrawals.asked.remove(&task);
                    if withdrawn {
                        withdrawals.was_taken(task);
                    }
                    said.push((task, withdrawn));
                }
                None => {
                    again = true;
                    let offers = 0;
                    withdrawals.waiting.push_front(Waiting { withdrawal, offers });
                }
            }
        }
        if again {
            withdrawals.pause = (withdrawals.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            withdrawals.not_before = Some(Instant::now() + withdrawals.pause);
        } else {
            withdrawals.pause = Duration::ZERO;
        }
        for (task, withdrawn) in said {
            self.say_withdrawn(task, withdrawn);
        }
    }

    fn say_withdrawn(&mut self, (run_id, task): (RunId, TaskNo), withdrawn: bool) {
        let job = JobKind::Withdrawn {
            run_id,
            task,
            withdrawn,
        };
        self.direct.push_back(Job::internal(job));
    }
}
