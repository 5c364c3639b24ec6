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

    /// Its queue has not answered. Those of other queues come first: one that never answers must not keep them waiting.
    fn put_back(&mut self, withdrawal: Withdrawal) {
        if self.waiting.len() < MOST_WAITING {
            let offers = 0;
            self.waiting.push_back(Waiting { withdrawal, offers });
        } else {
            self.asked.remove(&name(&withdrawal));
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
                    withdrawals.put_back(withdrawal);
                }
            }
        }
        // While others answer there is something to do.
        if again && said.is_empty() {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use knarr_core::definition;
    use knarr_core::ids::{Namespace, QueueName, WorkflowId};
    use knarr_core::run;
    use knarr_core::run::input::Start;
    use knarr_core::time::Timestamp;
    use serde_json::Value;
    use uuid::Uuid;

    use super::super::outgoing::RunRef;
    use super::*;

    fn withdrawal(task: u32) -> Withdrawal {
        let text = "workflow: nap\nversion: 1\nsteps: [ { sleep: { wait: 1h } } ]\n";
        let plan = definition::read(text, &|_| Err(String::new())).unwrap().plan;
        let start = Start {
            run_id: RunId(Uuid::from_u128(7)),
            namespace: Namespace::new("default"),
            workflow_id: WorkflowId::new("nap-1"),
            input: Arc::new(Value::Null),
            request_id: None,
            search_attributes: BTreeMap::new(),
            answer: None,
            traceparent: None,
            parent: None,
            priority: None,
            queued: false,
            begins_at: None,
            continues: None,
        };
        let (state, _) = run::start(&plan, start, Timestamp(1)).unwrap();
        Withdrawal {
            run: Arc::new(RunRef::new(&state, 0).unwrap()),
            task: TaskNo(task),
            queue: QueueName::new("orders"),
            subject: String::new(),
            since: Timestamp(1),
        }
    }

    #[test]
    fn a_queue_that_does_not_answer_keeps_no_other_waiting() {
        let mut withdrawals = Withdrawals::default();
        for task in 1..=3 {
            withdrawals.put(withdrawal(task), 5);
        }
        let silent = withdrawals.waiting.pop_front().unwrap();
        withdrawals.put_back(silent.withdrawal);
        // What waits already is not asked for twice.
        withdrawals.put(withdrawal(1), 6);
        let order: Vec<u32> = withdrawals
            .waiting
            .iter()
            .map(|waiting| waiting.withdrawal.task.0)
            .collect();
        assert_eq!(order, [2, 3, 1]);
        // It went out before it was looked for the first time.
        assert_eq!(withdrawals.waiting[2].offers, 0);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_to_its_run() {
        let mut withdrawals = Withdrawals::default();
        let full = withdrawal(1);
        withdrawals.put(full.clone(), 1);
        while withdrawals.waiting.len() < MOST_WAITING {
            let (withdrawal, offers) = (full.clone(), 1);
            withdrawals.waiting.push_back(Waiting { withdrawal, offers });
        }
        withdrawals.waiting.pop_front();
        withdrawals.put(withdrawal(2), 1);
        withdrawals.put_back(full);
        assert!(withdrawals.asked.contains(&name(&withdrawal(2))));
        assert!(!withdrawals.asked.contains(&name(&withdrawal(1))), "it may ask again");
        assert_eq!(withdrawals.waiting.len(), MOST_WAITING);
    }
}
