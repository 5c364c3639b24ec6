//! What the data decides, and nobody knows here: conditions and the lengths of lists.
//!
//! An undecided one is an expression that leads to nothing and names itself. A transition that meets it fails there, which
//! its events tell; it is then made again, once for each way the choice can go. A condition that asks what is there as well
//! (`steps.x is defined and input.y`) is undecided only where that alone does not decide it.

use std::borrow::Cow;
use std::sync::Arc;

use serde_json::Value;

use super::MAX_ITEMS;
use crate::definition::plan::{NodeId, NodeKind, Plan};
use crate::expression::{Expression, ExpressionError, Formula, Scope, Template};
use crate::run::{Event, State};

/// What every opaque value is.
pub(super) const OPAQUE: &str = "any value";
const UNDECIDED: &str = "undecided.choice_";

pub(super) struct Choice {
    /// Where it is asked. What goes the same way every time may be asked in many places.
    sites: Vec<Site>,
    /// As the author wrote it.
    pub(super) text: String,
    /// Goes the same way every time it is asked in a run.
    pub(super) stable: bool,
    /// Reads nothing but variables: evaluated where those hold constants.
    of_vars: Option<Expression>,
    /// The variant that is in the plan.
    current: usize,
}

struct Site {
    node: NodeId,
    place: Place,
    variants: Vec<Option<Variant>>,
}

#[derive(Clone, Copy)]
pub(super) enum Place {
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
}

/// Of a condition.
pub(super) struct Variants {
    /// When it hangs on the data, or something is missing that it reads.
    pub(super) open: Formula,
    /// How it goes else.
    pub(super) decided: Formula,
    pub(super) of_false: String,
    pub(super) of_true: String,
}

pub(super) enum OpenKind {
    Condition(Place, Variants),
    List,
}

impl Open {
    fn is_list(&self) -> bool {
        matches!(self.kind, OpenKind::List)
    }
}

impl Choices {
    pub(super) fn of(open: Vec<Open>) -> Result<Self, ExpressionError> {
        let mut choices: Vec<Choice> = Vec::new();
        for open in open {
            let is_same =
                |it: &Choice| it.stable && open.stable && it.text == open.text && it.is_list() == open.is_list();
            let same = choices.iter().position(is_same);
            let site = site(same.unwrap_or(choices.len()), &open)?;
            match same {
                Some(at) => choices[at].sites.push(site),
                None => choices.push(Choice {
                    sites: vec![site],
                    text: open.text,
                    stable: open.stable,
                    of_vars: open.of_vars,
                    current: 0,
                }),
            }
        }
        Ok(Self(choices))
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
            if wanted == choice.current {
                continue;
            }
            for site in &mut choice.sites {
                if let Some(variant) = site.variants[wanted].take() {
                    site.variants[choice.current] = exchange(plan, site, variant);
                }
            }
            choice.current = wanted;
        }
    }

    /// Moves the undecided variants into the plan that is to be explored.
    pub(super) fn install(&mut self, plan: &mut Plan) {
        for site in self.0.iter_mut().flat_map(|choice| &mut choice.sites) {
            if let Some(variant) = site.variants[0].take() {
                exchange(plan, site, variant);
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
        if choice.is_list() {
            (1..=MAX_ITEMS + 1).collect()
        } else {
            vec![FALSE, TRUE]
        }
    }
}

impl Choice {
    fn is_list(&self) -> bool {
        self.sites.iter().any(|site| matches!(site.place, Place::List))
    }

    pub(super) fn words(&self, way: usize) -> String {
        match way {
            way if self.is_list() => format!("`{}` has {}", self.text, items(way - 1)),
            TRUE => format!("`{}` is true", self.text),
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

fn site(index: usize, open: &Open) -> Result<Site, ExpressionError> {
    let undecided = format!("{UNDECIDED}{index}");
    let condition = |text: &str| Expression::compile(text).map(|it| Some(Variant::Condition(it)));
    let (place, variants) = match &open.kind {
        OpenKind::Condition(place, variants) => {
            let first = match &variants.open {
                Formula::Always => undecided,
                open => format!("{undecided} if {open} else ({})", variants.decided),
            };
            let [of_false, of_true] = [&variants.of_false, &variants.of_true].map(|text| condition(text));
            (*place, vec![condition(&first)?, of_false?, of_true?])
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
    Ok(Site {
        node: open.node,
        place,
        variants,
    })
}

fn exchange(plan: &mut Plan, site: &Site, variant: Variant) -> Option<Variant> {
    let node = &mut plan.nodes[site.node.0];
    match (site.place, variant, &mut node.kind) {
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
