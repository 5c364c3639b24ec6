//! What the data decides, and nobody knows here: conditions and the lengths of lists.
//!
//! An undecided one is an expression that leads to nothing and names itself. A transition that meets it fails there, which
//! its events tell; it is then made again, once for each way the choice can go.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::MAX_ITEMS;
use crate::definition::plan::{NodeId, NodeKind, Plan};
use crate::expression::{Expression, ExpressionError, Scope, Template};
use crate::run::{Event, State};

/// What every opaque value is.
pub(super) const OPAQUE: &str = "any value";
const UNDECIDED: &str = "undecided.choice_";

pub(super) struct Choice {
    node: NodeId,
    place: Place,
    /// As the author wrote it.
    pub(super) text: String,
    /// Goes the same way every time it is asked in a run.
    pub(super) stable: bool,
    /// Reads nothing but variables: evaluated where those hold constants.
    of_vars: Option<Expression>,
    variants: Vec<Option<Variant>>,
    /// The one that is in the plan.
    current: usize,
}

#[derive(Clone, Copy)]
enum Place {
    If,
    Case(usize),
    While,
    List,
}

enum Variant {
    Condition(Expression),
    List(Template),
}

/// Of a condition.
const FALSE: usize = 1;
const TRUE: usize = 2;

pub(super) struct Choices(Vec<Choice>);

/// What to leave open, before it is.
pub(super) struct Open {
    pub(super) node: NodeId,
    pub(super) kind: OpenKind,
    pub(super) text: String,
    pub(super) stable: bool,
    pub(super) of_vars: Option<Expression>,
    /// Is true where everything is there that the original reads, and fails where not.
    pub(super) check: String,
}

pub(super) enum OpenKind {
    If,
    Case(usize),
    While,
    List,
}

impl Choices {
    pub(super) fn of(open: Vec<Open>) -> Result<Self, ExpressionError> {
        let choices = open.into_iter().enumerate().map(|(index, open)| choice(index, open));
        choices.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn get(&self, index: usize) -> &Choice {
        &self.0[index]
    }

    /// The texts of those that were ever forced, each once.
    pub(super) fn texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.0.iter().map(|choice| choice.text.clone()).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// Puts what is decided into the plan, and leaves everything else open.
    pub(super) fn put(&mut self, plan: &mut Plan, decided: &[(usize, usize)]) {
        for (index, choice) in self.0.iter_mut().enumerate() {
            let wanted = decided
                .iter()
                .find(|(of, _)| *of == index)
                .map_or(0, |(_, variant)| *variant);
            if wanted != choice.current
                && let Some(variant) = choice.variants[wanted].take()
            {
                let before = exchange(plan, choice, variant);
                let current = choice.current;
                choice.variants[current] = before;
                choice.current = wanted;
            }
        }
    }

    /// Moves the undecided variants into the plan that is to be explored.
    pub(super) fn install(&mut self, plan: &mut Plan) {
        for choice in &mut self.0 {
            if let Some(variant) = choice.variants[0].take() {
                exchange(plan, choice, variant);
            }
        }
    }

    /// The first choice that these events failed for.
    pub(super) fn met(events: &[Event]) -> Option<usize> {
        events.iter().find_map(|event| {
            let (Event::StepFailed { error, .. } | Event::StepParked { error, .. }) = event else {
                return None;
            };
            let (_, rest) = error.message.split_once(UNDECIDED)?;
            let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok()
        })
    }

    /// The ways a choice can go in this state.
    pub(super) fn ways(&self, index: usize, state: &State) -> Vec<usize> {
        let choice = &self.0[index];
        if let Some(expression) = &choice.of_vars {
            let vars = Vars(state);
            if vars.are_constant(expression)
                && let Ok(truth) = expression.is_true(&vars)
            {
                return vec![if truth { TRUE } else { FALSE }];
            }
        }
        (1..choice.variants.len()).collect()
    }
}

impl Choice {
    pub(super) fn words(&self, way: usize) -> String {
        match self.place {
            Place::List => format!("`{}` has {}", self.text, items(way - 1)),
            _ if way == TRUE => format!("`{}` is true", self.text),
            _ => format!("`{}` is false", self.text),
        }
    }
}

fn items(count: usize) -> String {
    match count {
        1 => "1 item".to_owned(),
        count => format!("{count} items"),
    }
}

fn choice(index: usize, open: Open) -> Result<Choice, ExpressionError> {
    let undecided = format!("{UNDECIDED}{index}");
    let condition = |text: &str| Expression::compile(text).map(|it| Some(Variant::Condition(it)));
    let (place, variants) = match open.kind {
        OpenKind::If | OpenKind::Case(_) | OpenKind::While => {
            let place = match open.kind {
                OpenKind::Case(case) => Place::Case(case),
                OpenKind::While => Place::While,
                _ => Place::If,
            };
            let check = &open.check;
            let not = format!("not ({check})");
            (place, vec![condition(&undecided)?, condition(&not)?, condition(check)?])
        }
        OpenKind::List => {
            let list = |value: Value| Template::compile(&value).map(|it| Some(Variant::List(it)));
            let mut variants = vec![list(Value::String(format!("${{ {undecided} }}")))?];
            for count in 0..=MAX_ITEMS {
                variants.push(list((0..count).map(|_| OPAQUE).collect())?);
            }
            (Place::List, variants)
        }
    };
    Ok(Choice {
        node: open.node,
        place,
        text: open.text,
        stable: open.stable,
        of_vars: open.of_vars,
        variants,
        current: 0,
    })
}

fn exchange(plan: &mut Plan, choice: &Choice, variant: Variant) -> Option<Variant> {
    let node = &mut plan.nodes[choice.node.0];
    match (choice.place, variant, &mut node.kind) {
        (Place::If, Variant::Condition(new), _) => node.condition.replace(new).map(Variant::Condition),
        (Place::Case(case), Variant::Condition(new), NodeKind::Switch(cases)) => {
            cases[case].when.replace(new).map(Variant::Condition)
        }
        (Place::While, Variant::Condition(new), NodeKind::While(repeat)) => {
            Some(Variant::Condition(std::mem::replace(&mut repeat.when, new)))
        }
        (Place::List, Variant::List(new), NodeKind::ForEach(each)) => {
            Some(Variant::List(std::mem::replace(&mut each.list, new)))
        }
        // A choice is made for the node it is of.
        (_, variant, _) => Some(variant),
    }
}

struct Vars<'a>(&'a State);

impl Vars<'_> {
    fn are_constant(&self, expression: &Expression) -> bool {
        let named = expression
            .references()
            .iter()
            .filter_map(|reference| match reference.path.segments.first() {
                Some(crate::expression::Segment::Key(name)) => Some(name),
                _ => None,
            });
        // One that is not set yet is as good as a constant: what reads it says what to do without it.
        named.into_iter().all(|name| {
            let value = self.0.vars().get(name);
            value.is_none_or(|value| value.as_str() != Some(OPAQUE))
        })
    }
}

impl Scope for Vars<'_> {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        let vars = self.0.vars().iter();
        let vars = || {
            vars.map(|(name, value)| (name.to_string(), Value::clone(value)))
                .collect()
        };
        (name == "vars").then(|| Cow::Owned(Value::Object(vars())))
    }

    fn step(&self, _: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        None
    }
}
