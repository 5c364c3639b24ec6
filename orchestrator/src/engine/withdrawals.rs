//! Taking tasks out of their queues, beside the loop, one look through a queue at a time for all that wait for it.
//!
//! A task is looked for once nothing that may publish it is under way: a first publication of the batch that offered it, or a
//! commit that is offered again and was read before the withdrawal was committed. What is not found then was delivered, or
//! withdrawn before. What is asked here is lost with the replica, and with more than a number of them: the run asks again, unless it was
//! terminated, and then what was not taken out stays.
//!
//! **Invariant:** no queue waits for another one's answer, unless so many have not given theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use knarr_core::ids::{Namespace, QueueName, RunId, TaskNo};
use tokio::time::Instant;

use super::job::{Job, JobKind};
use super::outgoing::Withdrawal;
use super::report::Done;
use super::run_loop::Loop;
use crate::bus::Bus;
use crate::store::Store;

/// Over all queues. Beyond that they are left to their runs.
const MOST_WAITING: usize = 10_000;
/// Queues that are looked through at the same time.
const ABREAST: usize = 16;
/// After a queue that has not answered.
const SHORTEST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A queue that has answered is left alone for as long as that took, but not for longer: to look through a long one again and
/// again would be all that its server does.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// Remembered until their runs have surely been told.
const MOST_TAKEN: usize = 10_000;

/// A queue of a namespace.
pub(super) type Place = (Namespace, QueueName);

#[derive(Debug)]
struct Waiting {
    withdrawal: Withdrawal,
    /// Offers that began later know of it.
    offers: u64,
}

/// What waits for a queue.
#[derive(Debug, Default)]
struct OfQueue {
    waiting: VecDeque<Waiting>,
    under_way: bool,
    /// When it was asked last.
    asked_at: Option<Instant>,
    pause: Duration,
    not_before: Option<Instant>,
}

impl OfQueue {
    fn is_ready(&self, now: Instant) -> bool {
        !self.under_way && self.not_before.is_none_or(|at| at <= now)
    }
}

#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    queues: BTreeMap<Place, OfQueue>,
    /// Over all queues.
    waiting: usize,
    under_way: usize,
    /// Those that wait and those under way.
    asked: BTreeSet<(RunId, TaskNo)>,
    /// Taken out before: where the word was lost with the memory it is said again, for the queue would say *not there*.
    taken: BTreeSet<(RunId, TaskNo)>,
    /// The same in the order of their going.
    gone: VecDeque<(RunId, TaskNo)>,
}

impl Withdrawals {
    /// The next moment at which a queue may be asked again.
    pub(super) fn next(&self) -> Option<Instant> {
        let queues = self.queues.values();
        let waiting = queues.filter(|queue| !queue.waiting.is_empty() && !queue.under_way);
        waiting.filter_map(|queue| queue.not_before).min()
    }

    /// `offers`: how many there have been by now.
    fn put(&mut self, withdrawal: Withdrawal, offers: u64) {
        let is_new = self.waiting < MOST_WAITING && self.asked.insert(name(&withdrawal));
        if is_new {
            self.push(withdrawal, offers);
        }
    }

    /// Its queue has not answered.
    fn put_back(&mut self, withdrawal: Withdrawal) {
        if self.waiting < MOST_WAITING {
            self.push(withdrawal, 0);
        } else {
            self.asked.remove(&name(&withdrawal));
        }
    }

    fn push(&mut self, withdrawal: Withdrawal, offers: u64) {
        self.waiting += 1;
        let queue = self.queues.entry(place(&withdrawal)).or_default();
        queue.waiting.push_back(Waiting { withdrawal, offers });
    }

    /// Queues whose turn it is and that have something to be asked for; first those that have not been asked for longest.
    fn ready(&self, now: Instant, is_out: impl Fn(&Waiting) -> bool) -> Vec<Place> {
        let ready = self.queues.iter().filter(|(_, queue)| queue.is_ready(now));
        let mut ready: Vec<_> = ready
            .filter(|(_, queue)| queue.waiting.front().is_some_and(&is_out))
            .collect();
        ready.sort_by_key(|(_, queue)| queue.asked_at);
        ready.truncate(ABREAST.saturating_sub(self.under_way));
        ready.into_iter().map(|(place, _)| place.clone()).collect()
    }

    /// All that wait for the queue and are out.
    fn take(&mut self, place: &Place, is_out: impl Fn(&Waiting) -> bool) -> Vec<Withdrawal> {
        let Some(queue) = self.queues.get_mut(place) else {
            return Vec::new();
        };
        let (out, others): (VecDeque<_>, VecDeque<_>) = queue.waiting.drain(..).partition(is_out);
        queue.waiting = others;
        self.waiting -= out.len();
        out.into_iter().map(|waiting| waiting.withdrawal).collect()
    }

    fn began(&mut self, place: &Place, now: Instant) {
        if let Some(queue) = self.queues.get_mut(place) {
            (queue.under_way, queue.asked_at) = (true, Some(now));
            self.under_way += 1;
        }
    }

    /// `said`: it has answered for one at least.
    fn ended(&mut self, place: &Place, now: Instant, said: bool) {
        let Some(queue) = self.queues.get_mut(place) else {
            return;
        };
        self.under_way -= usize::from(std::mem::take(&mut queue.under_way));
        let rest = if said {
            queue.pause = Duration::ZERO;
            queue
                .asked_at
                .map_or(Duration::ZERO, |began| now - began)
                .min(LONGEST_REST)
        } else {
            queue.pause = (queue.pause * 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
            queue.pause
        };
        queue.not_before = Some(now + rest);
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

fn place(withdrawal: &Withdrawal) -> Place {
    (withdrawal.run.namespace.clone(), withdrawal.queue.clone())
}

impl<S: Store, B: Bus> Loop<S, B> {
    pub(super) fn withdraw_soon(&mut self, withdrawals: Vec<Withdrawal>) {
        for withdrawal in withdrawals {
            let task = name(&withdrawal);
            if self.withdrawals.taken.contains(&task) {
                self.say_withdrawn(&withdrawal, true);
            } else {
                self.withdrawals.put(withdrawal, self.offers.begun());
            }
        }
    }

    /// Asks the queues whose turn it is.
    pub(super) fn withdraw(&mut self) {
        if self.withdrawals.queues.is_empty() {
            return;
        }
        let (published_to, oldest_offer) = (self.offers.published_to(), self.offers.oldest_under_way());
        let is_out = |waiting: &Waiting| {
            waiting.withdrawal.since <= published_to && oldest_offer.is_none_or(|oldest| oldest > waiting.offers)
        };
        let now = Instant::now();
        for place in self.withdrawals.ready(now, is_out) {
            let mut taken = Vec::new();
            for withdrawal in self.withdrawals.take(&place, is_out) {
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
            if !taken.is_empty() {
                self.withdrawals.began(&place, now);
                self.ask_to_withdraw(place, taken);
            }
        }
        let idle = |queue: &OfQueue| queue.waiting.is_empty() && queue.is_ready(now);
        self.withdrawals.queues.retain(|_, queue| !idle(queue));
    }

    fn ask_to_withdraw(&self, place: Place, taken: Vec<Withdrawal>) {
        let bus = std::sync::Arc::clone(&self.bus);
        let panicked = taken.iter().cloned().map(|withdrawal| (withdrawal, None)).collect();
        self.beside(Done::Withdrawn(place.clone(), panicked), async move {
            let tasks: Vec<_> = taken.iter().map(name).collect();
            let (namespace, queue) = &place;
            let mut answers = bus.withdraw(namespace, queue, &tasks).await.into_iter();
            let answers = taken
                .into_iter()
                .map(|withdrawal| (withdrawal, answers.next().flatten()))
                .collect();
            Done::Withdrawn(place, answers)
        });
    }

    /// What a queue has said; `None` where it has not answered.
    pub(super) fn withdrawn(&mut self, place: &Place, answers: Vec<(Withdrawal, Option<bool>)>) {
        let said = answers.iter().any(|(_, withdrawn)| withdrawn.is_some());
        self.withdrawals.ended(place, Instant::now(), said);
        for (withdrawal, withdrawn) in answers {
            let task = name(&withdrawal);
            let Some(withdrawn) = withdrawn else {
                self.withdrawals.put_back(withdrawal);
                continue;
            };
            self.withdrawals.asked.remove(&task);
            if withdrawn {
                self.withdrawals.was_taken(task);
            }
            self.say_withdrawn(&withdrawal, withdrawn);
        }
    }

    /// One that has closed is not loaded for that.
    fn say_withdrawn(&mut self, withdrawal: &Withdrawal, withdrawn: bool) {
        if !withdrawal.is_told {
            return;
        }
        let (run_id, task) = name(withdrawal);
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
        of("orders", task)
    }

    fn of(queue: &str, task: u32) -> Withdrawal {
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
            queue: QueueName::new(queue),
            since: Timestamp(1),
            is_told: true,
        }
    }

    fn tasks(withdrawals: &[Withdrawal]) -> Vec<u32> {
        withdrawals.iter().map(|withdrawal| withdrawal.task.0).collect()
    }

    const OUT: fn(&Waiting) -> bool = |_| true;

    /// Begins with those that are ready, and says with what.
    fn begin(withdrawals: &mut Withdrawals) -> Vec<(Place, Vec<Withdrawal>)> {
        let now = Instant::now();
        let ready = withdrawals.ready(now, OUT).into_iter();
        let begun = ready.map(|place| {
            let taken = withdrawals.take(&place, OUT);
            withdrawals.began(&place, now);
            (place, taken)
        });
        begun.collect()
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_wait_for_a_queue_are_looked_for_at_once() {
        let mut withdrawals = Withdrawals::default();
        withdrawals.put(withdrawal(1), 5);
        let begun = begin(&mut withdrawals);
        assert_eq!(tasks(&begun[0].1), [1]);
        for task in 1..=300 {
            withdrawals.put(withdrawal(task), 5);
        }
        assert!(begin(&mut withdrawals).is_empty(), "it is being asked");
        // It has taken long, and is left alone as long.
        tokio::time::advance(Duration::from_secs(3)).await;
        withdrawals.ended(&begun[0].0, Instant::now(), true);
        assert!(begin(&mut withdrawals).is_empty());
        assert_eq!(withdrawals.next(), Some(Instant::now() + Duration::from_secs(3)));
        tokio::time::advance(Duration::from_secs(3)).await;
        // What waits or is under way is not asked for twice.
        assert_eq!(tasks(&begin(&mut withdrawals)[0].1), (2..=300).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_does_not_answer_keeps_no_other_waiting() {
        let mut withdrawals = Withdrawals::default();
        withdrawals.put(of("silent", 1), 5);
        let (silent, mut asked) = begin(&mut withdrawals).remove(0);
        withdrawals.put(of("orders", 2), 5);
        assert_eq!(
            tasks(&begin(&mut withdrawals)[0].1),
            [2],
            "while the other is being asked"
        );
        withdrawals.ended(&silent, Instant::now(), false);
        withdrawals.put_back(asked.remove(0));
        // It went out before it was looked for the first time.
        assert_eq!(withdrawals.queues[&silent].waiting[0].offers, 0);
        assert!(begin(&mut withdrawals).is_empty());
        // Even where so many are silent that others have to wait for one of them, it is in turns.
        let many = u32::try_from(ABREAST).unwrap();
        for task in 0..many {
            withdrawals.put(of(&format!("silent-{task}"), 10 + task), 5);
        }
        let begun = begin(&mut withdrawals);
        assert_eq!(begun.len(), ABREAST - 1, "one is under way still");
        withdrawals.put(of("zealous", 99), 5);
        assert!(begin(&mut withdrawals).is_empty());
        tokio::time::advance(LONGEST_PAUSE).await;
        for (place, asked) in begun {
            withdrawals.ended(&place, Instant::now(), false);
            asked
                .into_iter()
                .for_each(|withdrawal| withdrawals.put_back(withdrawal));
        }
        tokio::time::advance(LONGEST_PAUSE).await;
        let next: Vec<_> = begin(&mut withdrawals)
            .iter()
            .map(|(place, _)| place.1.to_string())
            .collect();
        assert!(next.contains(&"zealous".to_owned()), "{next:?}");
    }

    /// One whose publication may be under way waits, and the others of its queue do not, once one of them may be asked for.
    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_out_yet_is_asked_for_later() {
        let mut withdrawals = Withdrawals::default();
        for (task, offers) in [(1, 1), (2, 7), (3, 1)] {
            withdrawals.put(withdrawal(task), offers);
        }
        let is_out = |waiting: &Waiting| waiting.offers < 5;
        let place = withdrawals.ready(Instant::now(), is_out).remove(0);
        assert_eq!(tasks(&withdrawals.take(&place, is_out)), [1, 3]);
        assert!(withdrawals.ready(Instant::now(), is_out).is_empty());
        assert_eq!(withdrawals.waiting, 1);
    }

    #[test]
    fn what_there_is_no_room_for_is_left_to_its_run() {
        let mut withdrawals = Withdrawals::default();
        let full = withdrawal(1);
        withdrawals.put(full.clone(), 1);
        while withdrawals.waiting < MOST_WAITING {
            withdrawals.push(full.clone(), 1);
        }
        let place = place(&full);
        withdrawals.queues.get_mut(&place).unwrap().waiting.pop_front().unwrap();
        withdrawals.waiting -= 1;
        withdrawals.put(withdrawal(2), 1);
        withdrawals.put_back(full);
        assert!(withdrawals.asked.contains(&name(&withdrawal(2))));
        assert!(!withdrawals.asked.contains(&name(&withdrawal(1))), "it may ask again");
        assert_eq!(withdrawals.waiting, MOST_WAITING);
    }
}
