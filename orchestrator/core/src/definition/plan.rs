//! The compiled form of a definition: a tree of nodes in one arena, with every expression compiled and every name resolved.
//!
//! **Invariant:** a plan is immutable and complete; running it can fail on data, never on its shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::expression::{Expression, Template};
use crate::ids::{ActivityName, DefinitionHash, QueueName, WorkflowName};
use crate::time::Span;

/// A definition, ready to run.
#[derive(Debug)]
pub struct Plan {
    pub workflow: WorkflowName,
    pub version: u32,
    pub hash: DefinitionHash,
    /// Every node; a [`NodeId`] is an index into it.
    pub nodes: Vec<Node>,
    /// The top-level `steps:`, a sequence.
    pub root: NodeId,
    /// The expression that gives an un-keyed start its workflow id.
    pub id: Option<Template>,
    pub input_schema: Option<InputSchema>,
    /// What the run returns; `null` where the definition says nothing.
    pub output: Option<Template>,
    pub search_attributes: BTreeMap<String, Template>,
    /// Of the whole run, from its start.
    pub timeout: Option<Span>,
}

/// A JSON Schema, compiled once.
#[derive(Debug, Clone)]
pub struct InputSchema(pub Arc<jsonschema::Validator>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One place in the tree. What runs is an *instance* of it, addressed by a step path.
#[derive(Debug)]
pub struct Node {
    /// `None` at the root alone.
    pub parent: Option<NodeId>,
    /// The step's id, or the fixed name of a body within its step; a segment of the path.
    pub name: Arc<str>,
    /// `if:`; a step whose condition is false is skipped and has no output.
    pub condition: Option<Expression>,
    pub kind: NodeKind,
}

/// What a node does. Each kind has one file of behaviour under `run/`.
#[derive(Debug)]
pub enum NodeKind {
    /// A `steps:` list: children one after the other.
    Sequence {
        children: Vec<NodeId>,
    },
    Activity(Box<Activity>),
    /// `set:`, assigned to `vars` in the order written.
    Set(Vec<(Arc<str>, Template)>),
}

#[derive(Debug)]
pub struct Activity {
    pub call: Call,
    pub undo: Undo,
    pub on_failure: OnFailure,
    /// Undo the step even when it surely was not done (steps that are not atomic).
    pub compensate_on_failure: bool,
}

/// What a task says to a worker, forwards or as an undo.
#[derive(Debug)]
pub struct Call {
    pub activity: ActivityName,
    pub queue: QueueName,
    /// `null` where the definition gives none.
    pub input: Option<Template>,
    pub start_to_close: Span,
    pub retry: RetryPolicy,
}

/// What becomes of a step when the run fails after it.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one a step of a definition, boxed with its activity"
)]
pub enum Undo {
    Compensate(Call),
    ReadOnly,
    /// With the author's reason.
    None {
        reason: Arc<str>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Fail,
    Continue,
}

/// Defaults are Temporal's for activities (1 s, 2.0, 100 × initial, unlimited); an undo defaults to 10 attempts, up to 5 m apart.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    pub initial_interval: Span,
    pub backoff_coefficient: f64,
    pub maximum_interval: Span,
    /// `None` = unlimited.
    pub maximum_attempts: Option<u32>,
    pub non_retryable: Vec<Arc<str>>,
}

impl Plan {
    /// # Panics
    /// Never: node ids come from this plan.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    /// Every queue that tasks of this plan go to, each once, in the order of the tree.
    pub fn queues(&self) -> Vec<QueueName> {
        let mut queues = Vec::new();
        let mut add = |queue: &QueueName| {
            if !queues.contains(queue) {
                queues.push(queue.clone());
            }
        };
        for node in &self.nodes {
            if let NodeKind::Activity(activity) = &node.kind {
                add(&activity.call.queue);
                if let Undo::Compensate(call) = &activity.undo {
                    add(&call.queue);
                }
            }
        }
        queues
    }
}
