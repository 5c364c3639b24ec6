//! What is known at one place of a definition, whatever way a run has taken to it.

use std::collections::BTreeMap;

use crate::definition::model::{StepKind, Steps};

/// Why a step may not have run: an index into [`Doubts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DoubtId(usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// On no way to here.
    No,
    Maybe(DoubtId),
    Surely,
}

#[derive(Debug, Clone)]
pub(super) struct Facts<'a> {
    /// By the step's number: its output is there.
    steps: Vec<Seen>,
    vars: BTreeMap<&'a str, Var<'a>>,
    /// The pivot that may have been passed, and whether it surely was.
    pub(super) pivot: Option<(usize, bool)>,
    /// A step that may have done something that has an undo.
    pub(super) holds: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Var<'a> {
    pub(super) seen: Seen,
    /// The id of the step that sets it.
    pub(super) by: &'a str,
}

/// Why something that may be there may not be.
#[derive(Debug)]
pub(super) struct Doubt<'a> {
    /// Completes `the step … and then has no output`.
    pub(super) why: String,
    /// It is there where all of these are true; empty where no condition tells.
    pub(super) conditions: Vec<&'a str>,
}

#[derive(Debug, Default)]
pub(super) struct Doubts<'a>(Vec<Doubt<'a>>);

impl<'a> Doubts<'a> {
    pub(super) fn add(&mut self, why: String, conditions: Vec<&'a str>) -> DoubtId {
        self.0.push(Doubt { why, conditions });
        DoubtId(self.0.len() - 1)
    }

    pub(super) fn get(&self, id: DoubtId) -> &Doubt<'a> {
        &self.0[id.0]
    }

    /// The same doubt, and a condition more.
    pub(super) fn and(&mut self, id: DoubtId, condition: &'a str) -> DoubtId {
        let doubt = self.get(id);
        if doubt.conditions.is_empty() {
            return id;
        }
        let (why, mut conditions) = (doubt.why.clone(), doubt.conditions.clone());
        conditions.push(condition);
        self.add(why, conditions)
    }
}

impl<'a> Facts<'a> {
    /// At the start of a run.
    pub(super) fn none(steps: usize) -> Self {
        Self {
            steps: vec![Seen::No; steps],
            vars: BTreeMap::new(),
            pivot: None,
            holds: None,
        }
    }

    pub(super) fn step(&self, number: usize) -> Seen {
        self.steps[number]
    }

    pub(super) fn set_step(&mut self, number: usize, seen: Seen) {
        self.steps[number] = seen;
    }

    pub(super) fn var(&self, name: &str) -> Option<Var<'a>> {
        self.vars.get(name).copied()
    }

    pub(super) fn set_var(&mut self, name: &'a str, by: &'a str) {
        self.vars.insert(name, Var { seen: Seen::Surely, by });
    }

    /// Where two ways meet: what only one of them knows is doubtful. No condition settles `doubt`.
    #[must_use]
    pub(super) fn or(mut self, other: Self, doubt: DoubtId) -> Self {
        for (mine, others) in self.steps.iter_mut().zip(&other.steps) {
            *mine = either(*mine, *others, doubt);
        }
        for (name, var) in &mut self.vars {
            let others = other.var(name).map_or(Seen::No, |var| var.seen);
            var.seen = either(var.seen, others, doubt);
        }
        for (name, var) in other.vars {
            self.vars.entry(name).or_insert(Var {
                seen: either(Seen::No, var.seen, doubt),
                ..var
            });
        }
        self.pivot = match (self.pivot, other.pivot) {
            (Some((pivot, mine)), Some((_, others))) => Some((pivot, mine && others)),
            (one, another) => one.or(another).map(|(pivot, _)| (pivot, false)),
        };
        self.holds = self.holds.or(other.holds);
        self
    }

    /// Where ways that ran side by side meet, each of them taken: what one knows is known.
    pub(super) fn and(&mut self, other: &Self) {
        for (mine, others) in self.steps.iter_mut().zip(&other.steps) {
            if *mine != Seen::Surely && *others != Seen::No {
                *mine = *others;
            }
        }
        for (name, var) in &other.vars {
            if self.var(name).is_none_or(|mine| mine.seen != Seen::Surely) {
                self.vars.insert(name, *var);
            }
        }
        self.pivot = match (self.pivot, other.pivot) {
            (Some((pivot, mine)), Some((_, others))) => Some((pivot, mine || others)),
            (one, another) => one.or(another),
        };
        self.holds = self.holds.or(other.holds);
    }

    /// Where the way that a condition opens meets the one around it. What was not known before is there only if the condition
    /// is true, together with what made it doubtful already.
    #[must_use]
    pub(super) fn only_if(self, before: &Self, condition: &'a str, doubt: DoubtId, doubts: &mut Doubts<'a>) -> Self {
        let mut facts = self;
        let mut meet = |mine: &mut Seen, earlier: Seen| {
            *mine = match (*mine, earlier) {
                (Seen::Surely, Seen::No | Seen::Maybe(_)) => Seen::Maybe(doubt),
                (Seen::Maybe(id), earlier) if earlier != Seen::Maybe(id) => Seen::Maybe(doubts.and(id, condition)),
                (mine, _) => mine,
            };
        };
        for (mine, earlier) in facts.steps.iter_mut().zip(&before.steps) {
            meet(mine, *earlier);
        }
        for (name, var) in &mut facts.vars {
            let earlier = before.var(name).map_or(Seen::No, |var| var.seen);
            meet(&mut var.seen, earlier);
        }
        facts.pivot = facts
            .pivot
            .map(|(pivot, surely)| (pivot, surely && before.pivot.is_some_and(|(_, s)| s)));
        facts
    }

    /// These steps may or may not have run.
    pub(super) fn doubt_steps(&mut self, numbers: impl Iterator<Item = usize>, doubt: DoubtId) {
        for number in numbers {
            if self.steps[number] == Seen::No {
                self.steps[number] = Seen::Maybe(doubt);
            }
        }
    }

    /// The variables that steps set may or may not be.
    pub(super) fn doubt_vars(&mut self, steps: &'a Steps, doubt: DoubtId) {
        steps.visit(&mut |step| {
            if let StepKind::Set(entries) = &step.kind {
                for (name, _) in entries {
                    self.vars.entry(&name.text).or_insert(Var {
                        seen: Seen::Maybe(doubt),
                        by: &step.id.text,
                    });
                }
            }
        });
    }

    /// They cannot be read any more.
    pub(super) fn hide_steps(&mut self, numbers: impl Iterator<Item = usize>) {
        for number in numbers {
            self.steps[number] = Seen::No;
        }
    }
}

/// A condition that tells on one way tells nothing where the other way has it not, or for another reason.
fn either(one: Seen, other: Seen, doubt: DoubtId) -> Seen {
    match (one, other) {
        (Seen::Surely, Seen::Surely) => Seen::Surely,
        (Seen::No, Seen::No) => Seen::No,
        (Seen::Maybe(id), Seen::Surely) | (Seen::Surely, Seen::Maybe(id)) => Seen::Maybe(id),
        (Seen::Maybe(id), Seen::Maybe(same)) if id == same => Seen::Maybe(id),
        _ => Seen::Maybe(doubt),
    }
}
