//! The limiters that the runs of a family ask, as their owners have them: what is stored is rows alone.

use std::collections::BTreeMap;

use super::watched::Played;
use crate::definition::plan::NodeKind;
use crate::ids::{MessageNo, QueueName};
use crate::limit::{Bound, Changes, LimitKind, LimitName, Limiter, Rate, Row, Setting};
use crate::run::message::{Answer, Body, Sender};
use crate::run::{QueueLimits, State, TaskLimit};
use crate::time::Timestamp;

#[derive(Debug, Default)]
pub(super) struct Limiters {
    desks: BTreeMap<LimitName, Desk>,
    /// What operators allow the queues.
    pub(super) queues: QueueLimits,
    /// By activity, the most tasks that any definition allows at a time; of those whose limit is one for all.
    most: BTreeMap<String, u32>,
    /// By workflow, the most runs that any of its versions allows to be open.
    places: BTreeMap<String, u32>,
    /// By activity, the fastest rate.
    rates: BTreeMap<String, Rate>,
}

#[derive(Debug, Default)]
struct Desk {
    limiter: Limiter,
    rows: BTreeMap<i64, Row>,
    granted_at: Vec<Timestamp>,
}

/// What those who asked are told.
type Told = Vec<(Sender, MessageNo, Answer)>;

impl Desk {
    fn store(&mut self, changes: Changes, setting: Setting, now: Timestamp) -> Told {
        for (no, row) in changes.rows {
            match row {
                Some(row) => drop(self.rows.insert(no, row)),
                None => drop(self.rows.remove(&no)),
            }
        }
        let new = changes.granted.iter().filter(|grant| grant.waited.is_some());
        for _ in new {
            self.granted_at.push(now);
            self.has_room(setting);
        }
        let granted = changes.granted.into_iter().map(|grant| {
            let (limit, at) = (grant.limit, grant.at);
            (grant.to, grant.number, Answer::Granted { limit, at })
        });
        let said = changes.said.into_iter().map(|said| (said.to, said.number, said.answer));
        granted.chain(said).collect()
    }

    /// Who was granted something was not above the limit by it.
    fn has_room(&self, setting: Setting) {
        let permits = self.rows.values().filter_map(|row| match row {
            Row::Permit(permit) if permit.granted_at.is_some() => Some(permit),
            _ => None,
        });
        let newest = permits.clone().max_by_key(|permit| permit.granted_at);
        let bound = match (setting, newest) {
            (Setting::AsAsked, Some(newest)) => newest.ask.bound,
            (Setting::Bound(bound), _) => bound,
            _ => return,
        };
        // Of versions that allow less than others, at least what the greatest allows.
        let most = permits.clone().filter_map(|permit| match permit.ask.bound {
            Bound::Concurrent(most) => Some(most),
            Bound::Rate(_) => None,
        });
        let most = most.max().unwrap_or_default();
        if let Bound::Concurrent(limit) = bound {
            let out = permits.count();
            let limit = match setting {
                Setting::AsAsked => limit.max(most),
                _ => limit,
            };
            assert!(out <= limit as usize, "{out} permits are out, and {limit} may be");
        }
    }

    /// In no stretch of time more than the rate allows, and what it lets one catch up with.
    fn keeps_pace(&self, rate: Rate) {
        for (first, at) in self.granted_at.iter().enumerate() {
            let within = self.granted_at[first..]
                .iter()
                .take_while(|other| other.since(*at) < rate.per);
            let (count, most) = (within.count(), rate.limit as usize * 11 / 10 + 1);
            assert!(count <= most, "{count} in a stretch of a rate that allows {most}");
        }
    }
}

impl Limiters {
    pub(super) fn new(plans: &[Played]) -> Self {
        let (mut most, mut rates, mut places) = (BTreeMap::new(), BTreeMap::<String, Rate>::new(), BTreeMap::new());
        for plan in plans.iter().map(|played| &played.plan) {
            if let Some(concurrency) = &plan.concurrency {
                let most = places.entry(plan.workflow.as_str().to_owned()).or_insert(0);
                *most = concurrency.limit.max(*most);
            }
        }
        for node in plans.iter().flat_map(|played| &played.plan.nodes) {
            let NodeKind::Activity(activity) = &node.kind else {
                continue;
            };
            let name = activity.call.activity.as_str().to_owned();
            if let Some(rate) = activity.limiting.as_ref().and_then(|it| it.rate.as_ref()) {
                let known = rates.entry(name.clone()).or_insert(rate.to);
                *known = if known.limit < rate.to.limit { rate.to } else { *known };
            }
            let Some(concurrency) = activity.limiting.as_ref().and_then(|it| it.concurrency.as_ref()) else {
                continue;
            };
            let most = most.entry(name).or_insert(0);
            *most = concurrency.to.max(*most);
        }
        Self {
            most,
            places,
            rates,
            ..Self::default()
        }
    }

    /// A message to one of them: whom to tell what.
    pub(super) fn receive(&mut self, from: &Sender, number: MessageNo, body: &Body, now: Timestamp) -> Told {
        match body {
            Body::Ask(ask) => {
                let setting = self.setting(&ask.limit);
                let desk = self.desks.entry(ask.limit.clone()).or_default();
                desk.limiter.set(setting);
                let changes = desk.limiter.ask(from.clone(), number, (**ask).clone(), now);
                desk.store(changes, setting, now)
            }
            Body::Release { limit, ask, of } => {
                let setting = self.setting(limit);
                let Some(desk) = self.desks.get_mut(limit) else {
                    return Vec::new();
                };
                let changes = desk.limiter.release(of.unwrap_or(from.run), *ask, now);
                desk.store(changes, setting, now)
            }
            _ => Vec::new(),
        }
    }

    /// Time has passed.
    pub(super) fn wake(&mut self, now: Timestamp) -> Told {
        let due = |desk: &Desk| desk.limiter.wake_at().is_some_and(|at| at <= now);
        let names: Vec<_> = self
            .desks
            .iter()
            .filter(|(_, desk)| due(desk))
            .map(|(name, _)| name.clone())
            .collect();
        let mut told = Vec::new();
        for name in names {
            let setting = self.setting(&name);
            if let Some(desk) = self.desks.get_mut(&name) {
                let changes = desk.limiter.wake(now);
                told.extend(desk.store(changes, setting, now));
            }
        }
        told
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

    /// An operator says how much of a queue may be out at once, and how fast; `None` = as there is.
    pub(super) fn limit_queue(&mut self, queue: &str, most: Option<u32>, rate: Option<u32>, now: Timestamp) -> Told {
        let name = |kind| LimitName {
            kind,
            of: queue.into(),
            key: "".into(),
        };
        let most = most.map(|most| (LimitKind::Queue, Bound::Concurrent(most)));
        let per = crate::time::Span::from_secs(1);
        let rate = rate.map(|limit| (LimitKind::QueueRate, Bound::Rate(Rate { limit, per })));
        let limits: Vec<_> = most
            .into_iter()
            .chain(rate)
            .map(|(kind, bound)| TaskLimit {
                name: name(kind),
                bound,
            })
            .collect();
        let of = QueueName::new(queue);
        match limits.is_empty() {
            false => drop(self.queues.insert(of, limits)),
            true => drop(self.queues.remove(&of)),
        }
        let mut told = Vec::new();
        for name in [LimitKind::Queue, LimitKind::QueueRate].map(name) {
            let setting = self.setting(&name);
            if let Some(desk) = self.desks.get_mut(&name) {
                desk.limiter.set(setting);
                let changes = desk.limiter.wake(now);
                told.extend(desk.store(changes, setting, now));
            }
        }
        told
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

    /// Never more runs have begun and not closed than there may be.
    pub(super) fn check_places<'s>(&self, runs: impl Iterator<Item = &'s State>) {
        if self.places.is_empty() {
            return;
        }
        let mut open: BTreeMap<&LimitName, u32> = BTreeMap::new();
        // An undo after its end needs no place.
        for state in runs.filter(|state| state.closed_at().is_none() && state.admission().is_none()) {
            if let Some(place) = state.place() {
                *open.entry(&place.limit).or_default() += 1;
            }
        }
        for (name, count) in open {
            let most = self.places.get(&*name.of).copied().unwrap_or_default();
            assert!(count <= most, "{count} runs are open by {name}, and {most} may be");
        }
    }

    /// At the end: nobody keeps or wants anything.
    pub(super) fn check_end(&self) {
        for (name, desk) in &self.desks {
            assert_eq!(desk.limiter.name(), None, "{name} has permits that nobody needs");
            assert!(desk.limiter.is_empty() && desk.rows.is_empty(), "{name} keeps a row");
            if let Some(rate) = self
                .rates
                .get(&*name.of)
                .filter(|_| name.kind == LimitKind::ActivityRate)
            {
                desk.keeps_pace(*rate);
            }
        }
    }
}
