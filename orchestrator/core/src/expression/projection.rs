//! What of the scope an expression needs: built from its references, so that nothing else is converted.
//!
//! A path that leads nowhere becomes *undefined* where the expression is prepared for it, and otherwise a value that raises
//! an error of ours when (and only when) it is read: a branch that is not taken may name what is not there.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::Value as EngineValue;
use minijinja::{Error, ErrorKind};
use serde_json::Value;

use super::convert::{Budget, to_engine};
use super::{Reference, Scope, Segment};

#[derive(Debug)]
pub(super) struct Projection {
    roots: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    name: Arc<str>,
    /// From the root, for messages.
    path: Arc<str>,
    /// Read as a whole; then its children are part of it.
    whole: bool,
    guarded: bool,
    children: Vec<Node>,
}

impl Projection {
    pub(super) fn of(references: &[Reference]) -> Self {
        let mut roots = Vec::new();
        for reference in references {
            let mut node = child(&mut roots, &reference.path.root, &reference.path.root);
            for segment in &reference.path.segments {
                // An index needs the whole list.
                let Segment::Key(key) = segment else { break };
                let path = format!("{}.{key}", node.path);
                node = child(&mut node.children, key, &path);
            }
            node.whole = true;
            node.guarded |= reference.guarded;
        }
        Self { roots }
    }

    pub(super) fn build(&self, scope: &dyn Scope, budget: &mut Budget) -> Result<EngineValue, String> {
        let mut entries = Vec::with_capacity(self.roots.len());
        for root in &self.roots {
            let value = match root.name.as_ref() {
                "steps" => {
                    let mut steps = Vec::with_capacity(root.children.len());
                    for step in &root.children {
                        let output = scope.step(&step.name).map(Arc::as_ref);
                        steps.extend(step.entry(output, budget)?);
                    }
                    Some((Arc::clone(&root.name), EngineValue::from_pairs(steps)))
                }
                "input" => root.entry(scope.input().map(Arc::as_ref), budget)?,
                name => {
                    let value = scope.root(name);
                    root.entry(value.as_ref().map(Cow::as_ref), budget)?
                }
            };
            entries.extend(value);
        }
        Ok(EngineValue::from_pairs(entries))
    }
}

fn child<'a>(nodes: &'a mut Vec<Node>, name: &Arc<str>, path: &str) -> &'a mut Node {
    let at = nodes.iter().position(|node| node.name == *name).unwrap_or_else(|| {
        nodes.push(Node {
            name: Arc::clone(name),
            path: Arc::from(path),
            whole: false,
            guarded: false,
            children: Vec::new(),
        });
        nodes.len() - 1
    });
    &mut nodes[at]
}

impl Node {
    /// The node's name and value in its parent; nothing where it is undefined.
    fn entry(&self, value: Option<&Value>, budget: &mut Budget) -> Result<Option<(Arc<str>, EngineValue)>, String> {
        Ok(self.value(value, budget)?.map(|value| (Arc::clone(&self.name), value)))
    }

    fn value(&self, value: Option<&Value>, budget: &mut Budget) -> Result<Option<EngineValue>, String> {
        if self.whole {
            return match value {
                Some(value) => to_engine(value, budget).map(Some),
                None if self.guarded => Ok(None),
                None => Ok(Some(EngineValue::from(Error::new(
                    ErrorKind::UndefinedError,
                    format!("`{}` leads to nothing", self.path),
                )))),
            };
        }
        let object = value.and_then(Value::as_object);
        let mut entries = Vec::with_capacity(self.children.len());
        for child in &self.children {
            entries.extend(child.entry(object.and_then(|object| object.get(child.name.as_ref())), budget)?);
        }
        Ok(Some(EngineValue::from_pairs(entries)))
    }
}
