//! Every step of a definition with its number, in the order of the text, and where it stands in the tree.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::definition::model::{Definition, Handler, Step, StepKind, Steps};

pub(super) struct Index<'a> {
    entries: Vec<Entry<'a>>,
    by_id: BTreeMap<&'a str, usize>,
    /// Each handler with the numbers of the steps in it; those of the main body come first.
    handlers: Vec<(&'a Handler, Range<usize>)>,
}

struct Entry<'a> {
    step: &'a Step,
    /// The step around it, and which of its bodies.
    parent: Option<(usize, usize)>,
}

/// How a step stands to one that reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Same,
    /// The reader is inside of it.
    Around,
    /// In another branch of the same `parallel`.
    Beside {
        parallel: usize,
    },
    /// In another body of a step that takes one of them.
    Instead {
        of: usize,
    },
    /// In a `for_each` that has ended.
    InLoop {
        each: usize,
    },
    Later,
    /// Before the reader in the text, and on no way that leads to it.
    Never,
}

impl<'a> Index<'a> {
    pub(super) fn of(definition: &'a Definition) -> Self {
        let mut index = Self {
            entries: Vec::new(),
            by_id: BTreeMap::new(),
            handlers: Vec::new(),
        };
        index.add(&definition.steps, None);
        for handler in definition.handlers() {
            let first = index.len();
            index.add(&handler.steps, None);
            index.handlers.push((handler, first..index.len()));
        }
        index
    }

    /// The handler that a step is in.
    pub(super) fn handler_around(&self, number: usize) -> Option<&'a Handler> {
        let mut handlers = self.handlers.iter();
        let (handler, _) = handlers.find(|(_, steps)| steps.contains(&number))?;
        Some(handler)
    }

    fn add(&mut self, steps: &'a Steps, parent: Option<(usize, usize)>) {
        for step in &steps.list {
            let number = self.entries.len();
            self.entries.push(Entry { step, parent });
            self.by_id.insert(&step.id.text, number);
            for (body, (_, steps)) in step.bodies().into_iter().enumerate() {
                self.add(steps, Some((number, body)));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn number(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(super) fn step(&self, number: usize) -> &'a Step {
        self.entries[number].step
    }

    pub(super) fn id(&self, number: usize) -> &'a str {
        &self.entries[number].step.id.text
    }

    /// The `parallel` that has a branch of this name.
    pub(super) fn parallel_of(&self, branch: &str) -> Option<&'a str> {
        self.steps().find_map(|step| match &step.kind {
            StepKind::Parallel(parallel) if parallel.branches.iter().any(|one| one.name.text == branch) => {
                Some(step.id.text.as_str())
            }
            _ => None,
        })
    }

    pub(super) fn steps(&self) -> impl Iterator<Item = &'a Step> {
        self.entries.iter().map(|entry| entry.step)
    }

    /// The step and those around it, from the inside, each with the body through which the way leads (none for itself).
    fn around(&self, number: usize) -> Vec<(usize, Option<usize>)> {
        let mut way = vec![(number, None)];
        let mut at = number;
        while let Some((parent, body)) = self.entries[at].parent {
            way.push((parent, Some(body)));
            at = parent;
        }
        way
    }

    /// Of a step that the walk has not seen on the way to the end.
    pub(super) fn ended(&self, step: usize) -> Standing {
        let around = self.around(step);
        let each = around.iter().rev().find(|(around, body)| self.is_each(*around, *body));
        each.map_or(Standing::Never, |(each, _)| Standing::InLoop { each: *each })
    }

    fn is_each(&self, step: usize, body: Option<usize>) -> bool {
        body.is_some() && matches!(self.step(step).kind, StepKind::ForEach(_))
    }

    /// Of a step that the walk has not seen on the way to the reader.
    pub(super) fn standing(&self, step: usize, reader: usize) -> Standing {
        if step == reader {
            return Standing::Same;
        }
        let of_step = self.around(step);
        let of_reader = self.around(reader);
        if of_reader.iter().any(|(around, _)| *around == step) {
            return Standing::Around;
        }
        let mut pairs = of_step.iter().rev().zip(of_reader.iter().rev());
        let mut here = (step, reader);
        for ((a, body_a), (b, body_b)) in &mut pairs {
            here = (*a, *b);
            if a != b {
                break;
            }
            if let (Some(x), Some(y)) = (body_a, body_b)
                && x != y
            {
                return match &self.step(*a).kind {
                    StepKind::Parallel(_) => Standing::Beside { parallel: *a },
                    StepKind::Switch(_) => Standing::Instead { of: *a },
                    StepKind::Try(_) if *x > 0 && x < y => Standing::Instead { of: *a },
                    _ => Standing::Later,
                };
            }
        }
        if here.0 >= here.1 {
            return Standing::Later;
        }
        let each = of_step
            .iter()
            .rev()
            .find(|each| self.is_each(each.0, each.1) && !of_reader.iter().any(|(around, _)| *around == each.0));
        each.map_or(Standing::Never, |(each, _)| Standing::InLoop { each: *each })
    }
}
