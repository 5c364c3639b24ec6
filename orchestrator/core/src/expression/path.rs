//! Paths: `steps.pay.items[0].id`, resolved on JSON without the expression engine.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::{Outcome, Scope};

/// A root name and what is read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    pub root: Arc<str>,
    pub segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    Key(Arc<str>),
    Index(usize),
}

impl Path {
    /// The id of the step whose output is read, if it is one.
    pub fn step(&self) -> Option<&str> {
        match (self.root.as_ref(), self.segments.first()) {
            ("steps", Some(Segment::Key(id))) => Some(id),
            _ => None,
        }
    }

    pub(super) fn resolve<'a>(&self, scope: &'a dyn Scope) -> Option<Outcome<'a>> {
        let (start, rest) = match self.root.as_ref() {
            "steps" => (scope.step(self.step()?)?, self.segments.get(1..)?),
            "input" => (scope.input()?, self.segments.as_slice()),
            name => {
                return match scope.root(name)? {
                    Cow::Borrowed(value) => walk(value, &self.segments).map(|v| Outcome::Seen(Cow::Borrowed(v))),
                    Cow::Owned(value) if self.segments.is_empty() => Some(Outcome::Seen(Cow::Owned(value))),
                    Cow::Owned(value) => walk(&value, &self.segments).map(|v| Outcome::Seen(Cow::Owned(v.clone()))),
                };
            }
        };
        if rest.is_empty() {
            Some(Outcome::Shared(start))
        } else {
            walk(start, rest).map(|value| Outcome::Seen(Cow::Borrowed(value)))
        }
    }
}

fn walk<'a>(value: &'a Value, segments: &[Segment]) -> Option<&'a Value> {
    segments.iter().try_fold(value, |value, segment| match segment {
        Segment::Key(key) => value.as_object()?.get(key.as_ref()),
        Segment::Index(index) => value.as_array()?.get(*index),
    })
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.root)?;
        for segment in &self.segments {
            match segment {
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
