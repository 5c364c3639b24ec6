//! The limiters that the runs of a family ask, as their owners have them: what is stored is rows alone.

use std::collections::BTreeMap;

use super::watched::Played;
use crate::definition::plan::NodeKind;
use crate::ids::{MessageNo, QueueName};
use crate::limit::{Bound, Changes, Grant, LimitKind, LimitName, Limiter, Row, Setting};
use crate::run::message::{Body, Sender};
use crate::run::{QueueLimits, State, TaskLimit};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Limiters {
    desks: BTreeMap<LimitName, Desk>,
    /// What operators allow the queues.
    pub(super) queues: QueueLimits,
    /// By activity, the most tasks that any definition allows at a time; of those whose limit is one for all.
    most: BTreeMap<String, u32>,
}

#[derive(Debug, Default)]
struct Desk {
    limiter: Limiter,
    rows: BTreeMap<i64, Row>,
}

impl Desk {
    fn store(&mut self, changes: Changes) -> Vec<Grant> {
        for (no, row) in changes.rows {
            match row {
                Some(row) => drop(self.rows.insert(no, row)),
                None => drop(self.rows.remove(&no)),
            }
        }
        changes.granted
    }
}

impl Limiters {
    pub(super) fn new(plans: &[Played]) -> Self {
        let mut most = BTreeMap::new();
        for node in plans.iter().flat_map(|played| &played.plan.nodes) {
            let NodeKind::Activity(activity) = &node.kind else {
                continue;
            };
            let Some(concurrency) = activity.limiting.as_ref().and_then(|it| it.concurrency.as_ref()) else {
                continue;
            };
            let most = most.entry(activity.call.activity.as_str().to_owned()).or_insert(0);
            *most = concurrency.to.max(*most);
        }
        Self {
            most,
            ..Self::default()
        }
    }

    /// A message to one of them: whom to tell that a permit is theirs.
    pub(super) fn receive(&mut self, from: &Sender, number: MessageNo, body: &Body, now: Timestamp) -> Vec<Grant> {
        match body {
            Body::Ask(ask) => {
                let setting = self.setting(&ask.limit);
                let desk = self.desks.entry(ask.limit.clone()).or_default();
                desk.limiter.set(setting);
                let changes = desk.limiter.ask(from.clone(), number, (**ask).clone(), now);
                desk.store(changes)
            }
            Body::Release { limit, ask, of } => {
                let Some(desk) = self.desks.get_mut(limit) else {
                    return Vec::new();
                };
                let changes = desk.limiter.release(of.unwrap_or(from.run), *ask, now);
                desk.store(changes)
            }
            _ => Vec::new(),
        }
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, now: Timestamp) -> Vec<Grant> {
        let mut granted = Vec::new();
        for desk in self.desks.values_mut() {
            if desk.limiter.wake_at().is_some_and(|at| at <= now) {
                let changes = desk.limiter.wake(now);
                granted.extend(desk.store(changes));
            }
        }
        granted
    }

    /// When the next of them has something to do: whoever asks it may be gone by then.
    pub(super) fn wake_at(&self) -> Option<Timestamp> {
        self.desks.values().filter_map(|desk| desk.limiter.wake_at()).min()
    }

    /// Their owner is another one.
    pub(super) fn reload(&mut self) {
        let names: Vec<_> = self.desks.keys().cloned().collect();
        for name in names {
            let setting = self.setting(&name);
            if let Some(desk) = self.desks.get_mut(&name) {
                desk.limiter = Limiter::load(desk.rows.clone());
                desk.limiter.set(setting);
            }
        }
    }

    /// An operator says how much of a queue may be out at once; `None` = as much as there is.
    pub(super) fn limit_queue(&mut self, queue: &str, most: Option<u32>, now: Timestamp) -> Vec<Grant> {
        let name = LimitName {
            kind: LimitKind::Queue,
            of: queue.into(),
            key: "".into(),
        };
        match most {
            Some(most) => {
                let limit = TaskLimit {
                    name: name.clone(),
                    bound: Bound::Concurrent(most),
                };
                self.queues.insert(QueueName::new(queue), vec![limit]);
            }
            None => drop(self.queues.remove(queue)),
        }
        let setting = self.setting(&name);
        let Some(desk) = self.desks.get_mut(&name) else {
            return Vec::new();
        };
        desk.limiter.set(setting);
        let changes = desk.limiter.wake(now);
        desk.store(changes)
    }

    fn setting(&self, limit: &LimitName) -> Setting {
        if !limit.kind.is_of_queue() {
            return Setting::AsAsked;
        }
        let of_queue = self.queues.iter().find(|(queue, _)| queue.as_str() == &*limit.of);
        let bound = of_queue.and_then(|(_, limits)| limits.iter().find(|it| it.name == *limit));
        bound.map_or(Setting::Unlimited, |limit| Setting::Bound(limit.bound))
    }

    /// Never more tasks are out than there may be.
    pub(super) fn check<'s>(&self, runs: impl Iterator<Item = &'s State>) {
        if self.most.is_empty() {
            return;
        }
        let mut out: BTreeMap<&LimitName, u32> = BTreeMap::new();
        for state in runs {
            // What is parked as a whole, or has just been, may have heard of an end that it has not taken in.
            for view in state.open_tasks().filter(|view| !state.has_heard_of(view.open.task)) {
                let limits = view.execution.limits.iter().flat_map(|limits| &limits.of);
                for limit in limits.filter(|limit| limit.name.kind == LimitKind::Activity) {
                    *out.entry(&limit.name).or_default() += 1;
                }
            }
        }
        for (name, count) in out {
            let most = self.most.get(&*name.of).copied().unwrap_or_default();
            assert!(count <= most, "{count} tasks are out by {name}, and {most} may be");
        }
    }

    /// At the end: nobody keeps or wants anything.
    pub(super) fn check_end(&self) {
        for (name, desk) in &self.desks {
            assert_eq!(desk.limiter.name(), None, "{name} has permits that nobody needs");
            assert!(desk.limiter.is_empty() && desk.rows.is_empty(), "{name} keeps a row");
        }
    }
}
