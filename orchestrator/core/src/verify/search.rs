//! Breadth first, so that the first way to anything is a shortest one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::abstraction::Model;
use super::ends::{self, Seen};
use super::moves::{self, Move};
use super::paths::Edges;
use super::report::{Bound, Coverage, Finding, Report, Severity};
use super::{MAX_ITEMS, MAX_ITERATIONS, MAX_PARKED, code};
use crate::definition::plan::Plan;
use crate::ids::RunId;
use crate::run::input::{Rejected, Start};
use crate::run::{self, State, Status, Transition};
use crate::time::Timestamp;

const RUN: RunId = RunId(uuid::Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
const NOW: Timestamp = Timestamp(1_767_225_600_000_000);
/// Decisions of one transition: a loop of nothing but conditions ends by its own bound.
const MAX_DECIDED: usize = 4_096;

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most states of one search.
    pub states: u64,
    /// Most faults on one way; `None` = as many as `states` leaves room for.
    pub faults: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            states: 20_000,
            faults: None,
        }
    }
}

/// Explores what a definition may do. Fails only on a plan whose expressions were not checked.
pub fn verify(plan: &Plan, limits: Limits) -> Result<Report, crate::expression::ExpressionError> {
    let mut model = Model::of(plan)?;
    let mut best = Search::run(plan, &mut model, limits);
    if best.cut && limits.faults.is_none() {
        // Everything with few faults says more than a part of everything.
        for faults in 1.. {
            let narrow = Limits {
                faults: Some(faults),
                ..limits
            };
            let search = Search::run(plan, &mut model, narrow);
            if search.cut {
                break;
            }
            best = search;
        }
    }
    Ok(best.report(plan, &model))
}

/// A state, and what is fixed about its data.
struct Situation {
    state: State,
    /// Choices that go the same way every time, and how.
    fixed: Vec<(usize, usize)>,
    faults: u32,
}

/// Equal for situations from which the same may follow.
type Print = (u128, Vec<(usize, usize)>, u32);

struct Known {
    parent: u32,
    /// What led here from there.
    words: Arc<str>,
}

pub(super) struct Search<'p> {
    plan: &'p Plan,
    limits: Limits,
    known: Vec<Known>,
    by_print: BTreeMap<Print, u32>,
    left: VecDeque<(u32, Situation)>,
    edges: Edges,
    ends: Vec<u32>,
    statuses: BTreeMap<String, u64>,
    /// Where each thing was seen first, and how often.
    seen: BTreeMap<Seen, (u32, u64)>,
    transitions: u64,
    cut: bool,
}

/// One way a transition can go.
pub(super) struct Way {
    pub(super) state: State,
    transition: Transition,
    pub(super) decided: Vec<(usize, usize)>,
}

impl<'p> Search<'p> {
    pub(super) fn run(plan: &'p Plan, model: &mut Model, limits: Limits) -> Self {
        let mut search = Self {
            plan,
            limits,
            known: Vec::new(),
            by_print: BTreeMap::new(),
            left: VecDeque::new(),
            edges: Edges::default(),
            ends: Vec::new(),
            statuses: BTreeMap::new(),
            seen: BTreeMap::new(),
            transitions: 0,
            cut: false,
        };
        let root = search.add_root();
        for way in ways(model, &[], begin) {
            search.take(model, (root, &[]), "", 0, way);
        }
        while let Some((id, situation)) = search.left.pop_front() {
            search.expand(model, id, &situation);
            if search.cut {
                break;
            }
        }
        search
    }

    /// Before the start.
    fn add_root(&mut self) -> u32 {
        self.known.push(Known {
            parent: 0,
            words: Arc::from(""),
        });
        0
    }

    fn expand(&mut self, model: &mut Model, id: u32, situation: &Situation) {
        let all = moves::moves(self.plan, &situation.state);
        for seen in ends::of_state(self.plan, &situation.state, &all) {
            self.note(seen, id);
        }
        let mut moved = false;
        for it in &all {
            let faults = situation.faults + it.faults;
            if self.limits.faults.is_some_and(|most| faults > most) {
                // Within the bound this is no end.
                moved = true;
                continue;
            }
            moved |= self.go(model, id, situation, it);
        }
        if !moved || !all.iter().any(Move::is_by_itself) {
            self.ends.push(id);
            *self.statuses.entry(situation.state.status().to_string()).or_default() += 1;
        }
    }

    fn go(&mut self, model: &mut Model, id: u32, situation: &Situation, it: &Move) -> bool {
        let apply = |plan: &Plan| {
            let mut state = situation.state.clone();
            let transition = it.apply(plan, &mut state)?;
            Ok(transition.map(|transition| (state, transition)))
        };
        let found = ways(model, &situation.fixed, apply);
        let moved = !found.is_empty();
        for way in found {
            self.take(
                model,
                (id, &situation.fixed),
                &it.words,
                situation.faults + it.faults,
                way,
            );
        }
        moved
    }

    fn take(&mut self, model: &Model, (from, before): (u32, &[(usize, usize)]), words: &str, faults: u32, way: Way) {
        self.transitions += 1;
        let fixed: Vec<_> = way
            .decided
            .iter()
            .copied()
            .filter(|(choice, _)| model.choices.get(*choice).stable)
            .collect();
        // Without a bound it does not matter how many there were.
        let faults = if self.limits.faults.is_some() { faults } else { 0 };
        let print = (way.state.fingerprint(), fixed.clone(), faults);
        if let Some(known) = self.by_print.get(&print).copied() {
            self.edges.add(from, known);
            return;
        }
        if self.by_print.len() as u64 >= self.limits.states {
            self.cut = true;
            return;
        }
        let id = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        self.by_print.insert(print, id);
        self.edges.add(from, id);
        let told = way.decided.iter().filter(|it| !before.contains(it));
        let told = told.map(|(choice, variant)| model.choices.get(*choice).words(*variant));
        let words = Some(words.to_owned()).filter(|words| !words.is_empty());
        let words: Vec<String> = words.into_iter().chain(told).collect();
        self.known.push(Known {
            parent: from,
            words: Arc::from(words.join("; ")),
        });
        for seen in ends::of_events(&way.transition.events) {
            self.note(seen, id);
        }
        self.left.push_back((
            id,
            Situation {
                state: way.state,
                fixed,
                faults,
            },
        ));
    }

    #[cfg(test)]
    pub(super) fn prints(&self) -> impl Iterator<Item = u128> {
        self.by_print.keys().map(|(print, ..)| *print)
    }

    #[cfg(test)]
    pub(super) fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.seen.keys()
    }

    fn note(&mut self, seen: Seen, at: u32) {
        let entry = self.seen.entry(seen).or_insert((at, 0));
        entry.1 += 1;
    }

    fn way_to(&self, mut at: u32) -> Vec<String> {
        let mut way = Vec::new();
        while at != 0 {
            let known = &self.known[at as usize];
            if !known.words.is_empty() {
                way.push(known.words.to_string());
            }
            at = known.parent;
        }
        way.reverse();
        way
    }

    fn report(mut self, plan: &Plan, model: &Model) -> Report {
        let states = u32::try_from(self.known.len()).unwrap_or(u32::MAX);
        if !self.cut
            && self.limits.faults.is_none()
            && let Some(lost) = self.edges.first_without_end(states, &self.ends)
        {
            let message = "from here no end can be reached".to_owned();
            let seen = Seen {
                severity: Severity::Error,
                code: code::NO_END.code,
                step: None,
                message,
                remedy: code::NO_END.remedy,
            };
            self.note(seen, lost);
        }
        let completes = [Status::Completed, Status::ContinuedAsNew];
        let completes = completes
            .iter()
            .any(|status| self.statuses.contains_key(status.as_str()));
        if !self.cut
            && self.limits.faults.is_none()
            && !completes
            && let Some(end) = self.ends.first().copied()
        {
            let seen = Seen {
                severity: Severity::Error,
                code: code::NEVER_COMPLETES.code,
                step: None,
                message: "no run can complete, whatever its data and its workers say".to_owned(),
                remedy: code::NEVER_COMPLETES.remedy,
            };
            self.note(seen, end);
        }
        let mut findings: Vec<_> = self
            .seen
            .iter()
            .map(|(seen, (at, states))| Finding {
                code: seen.code,
                severity: seen.severity,
                step: seen.step.clone(),
                message: seen.message.clone(),
                remedy: seen.remedy,
                way: self.way_to(*at),
                states: *states,
            })
            .collect();
        findings.sort_by_key(|finding| (finding.severity, finding.way.len()));
        Report {
            workflow: plan.workflow.to_string(),
            version: plan.version,
            findings,
            coverage: Coverage {
                states: self.by_print.len() as u64,
                transitions: self.transitions,
                paths: self.edges.paths(states),
                ends: self.statuses.clone(),
                bound: Bound {
                    list_items: MAX_ITEMS,
                    while_iterations: MAX_ITERATIONS,
                    parked_undos: MAX_PARKED,
                    faults: self.limits.faults,
                    states: self.limits.states,
                },
                exhaustive: !self.cut,
                forced: model.choices.texts(),
            },
        }
    }
}

/// Every way a transition can go that needs decisions. What was fixed before stays so.
pub(super) fn ways(
    model: &mut Model,
    fixed: &[(usize, usize)],
    apply: impl Fn(&Plan) -> Result<Option<(State, Transition)>, Rejected>,
) -> Vec<Way> {
    let mut ways = Vec::new();
    let mut left = vec![fixed.to_vec()];
    while let Some(decided) = left.pop() {
        model.choices.put(&mut model.plan, &decided);
        // What core refuses does not happen.
        let Ok(Some((state, transition))) = apply(&model.plan) else {
            continue;
        };
        match super::choice::Choices::met(&transition.events) {
            Some(choice) if left.len() < MAX_DECIDED && !decided.iter().any(|(other, _)| *other == choice) => {
                for variant in model.choices.ways(choice, &state).into_iter().rev() {
                    let mut more = decided.clone();
                    more.push((choice, variant));
                    left.push(more);
                }
            }
            _ => ways.push(Way {
                state,
                transition,
                decided,
            }),
        }
    }
    ways
}

pub(super) fn begin(plan: &Plan) -> Result<Option<(State, Transition)>, Rejected> {
    let start = Start {
        run_id: RUN,
        namespace: "default".into(),
        workflow_id: "explored".into(),
        input: Arc::new(super::choice::OPAQUE.into()),
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
    run::start(plan, start, NOW).map(Some)
}
