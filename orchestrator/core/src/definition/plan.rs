//! The compiled form of a definition: a tree of nodes in one arena, with every expression compiled and every name resolved.
//!
//! **Invariant:** a plan is immutable and complete; running it can fail on data, never on its shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::expression::{Expression, Template};
use crate::ids::{ActivityName, DefinitionHash, QueueName, WorkflowName};
use crate::limit::{OnConflict, Rate};
use crate::run::{SIGNALS, UPDATES};
use crate::schedule::Spec;
use crate::time::Span;
use crate::trigger;

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
    /// When a run that has ended without success is followed by another attempt.
    pub retry: Option<Box<RetryPolicy>>,
    pub compensation: CompensationPolicy,
    /// When it is started by itself.
    pub schedule: Option<Spec>,
    /// How many runs of it are open at a time.
    pub concurrency: Option<Box<RunConcurrency>>,
    /// Of its runs, where a start says nothing: from 1, the most important, to 5.
    pub priority: Option<u8>,
    /// What starts and signals its runs, by name.
    pub triggers: Vec<trigger::Spec>,
    /// The bodies beside the main one: those of signals, `$signals`, and of updates, `$updates`, where there are any.
    pub handlers: Vec<NodeId>,
    /// What may be asked of its runs, by name.
    pub queries: BTreeMap<Arc<str>, Template>,
}

/// `concurrency:` of a definition: over all runs of the workflow in a namespace, whatever their version.
#[derive(Debug)]
pub struct RunConcurrency {
    pub limit: u32,
    /// One limit for each of its values; `None` = one for all.
    pub key: Option<Template>,
    pub on_conflict: OnConflict,
}

/// How a failed run is undone (`compensation:`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CompensationPolicy {
    pub order: UndoOrder,
    pub on_exhausted: OnExhausted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UndoOrder {
    /// Branches and iterations that ran side by side are undone side by side, each in reverse.
    #[default]
    Dependencies,
    /// One after the other, in the reverse order of dispatch.
    Sequential,
}

/// What an undo that is parked means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExhausted {
    #[default]
    Continue,
    Halt,
}

impl OnExhausted {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "continue",
            Self::Halt => "halt",
        }
    }
}

/// A JSON Schema, compiled once.
#[derive(Debug, Clone)]
pub struct InputSchema(pub Arc<jsonschema::Validator>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One place in the tree. What runs is an *instance* of it, addressed by a step path.
///
/// A path is the ids of the steps on the way, joined by dots. The main body of a step adds no segment (its node has an empty
/// name), other bodies add their fixed name: `split.card.charge` (a branch), `choose.case_2.ship` and `choose.else.ship`,
/// `guard.catch_1.notify`, `guard.finally.release`, `reserve.otherwise.ask`, `approval.on_timeout.escalate`. An iteration
/// stands behind its loop's id, counted from 0: `lines[3].reserve`; so does what is done for one of the signals of a name:
/// `$signals.paid[3].note`.
#[derive(Debug)]
pub struct Node {
    /// `None` at the root alone.
    pub parent: Option<NodeId>,
    /// The step's id, or the fixed name of a body within its step; a segment of the path. Empty at the root and at main bodies.
    pub name: Arc<str>,
    /// `if:`; a step whose condition is false is skipped and has no output.
    pub condition: Option<Expression>,
    pub kind: NodeKind,
}

/// What a node does. Each kind has one file of behaviour under `run/`. Every body is a [`NodeKind::Sequence`].
#[derive(Debug)]
pub enum NodeKind {
    /// A `steps:` list: children one after the other.
    Sequence {
        children: Vec<NodeId>,
    },
    Activity(Box<Activity>),
    /// `set:`, assigned to `vars` in the order written.
    Set(Vec<(Arc<str>, Template)>),
    Parallel(Parallel),
    ForEach(Box<ForEach>),
    /// The first case that is true, else nothing.
    Switch(Vec<Case>),
    While(Box<While>),
    Try(Try),
    Scope(Savepoint),
    Wait(Wait),
    WaitFor(Box<WaitFor>),
    Workflow(Box<ChildWorkflow>),
    Emit(Box<Emit>),
    /// Beside the main body: a handler for each name.
    Handlers {
        children: Vec<NodeId>,
    },
    Handler(Box<Handler>),
    /// Ends the innermost scope, `try` or run with a typed error.
    Fail(Box<Fail>),
    /// Ends the run with this output.
    Complete(Option<Template>),
    /// Ends the run and starts the next one under the same workflow id with this input.
    ContinueAsNew(Option<Template>),
}

#[derive(Debug)]
pub struct Parallel {
    /// Named by their branches, in the order written.
    pub branches: Vec<NodeId>,
    pub join: Join,
    pub losers: Losers,
}

/// When a `parallel` has succeeded. It fails as soon as it can no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    All,
    /// The first success.
    Any,
    AtLeast(u32),
}

/// What becomes of branches that are not needed once a `parallel` has succeeded: they are cancelled, and what they did is
/// undone at the join or kept (and undone only if the run fails).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Losers {
    Undo,
    Keep,
}

#[derive(Debug)]
pub struct ForEach {
    /// Gives a list.
    pub list: Template,
    /// The name of the item within the body; `index` stands beside it.
    pub item: Arc<str>,
    /// `None` = all at once, up to the limits of a run.
    pub max_concurrency: Option<u32>,
    pub body: NodeId,
    /// What an iteration contributes to the step's output, a list in the order of the items; `null` where it is not given.
    pub collect: Option<Template>,
}

#[derive(Debug)]
pub struct Case {
    /// `None` = `else`, always last.
    pub when: Option<Expression>,
    pub body: NodeId,
}

#[derive(Debug)]
pub struct While {
    pub when: Expression,
    /// One more fails the step.
    pub max_iterations: u32,
    pub body: NodeId,
}

#[derive(Debug)]
pub struct Try {
    pub body: NodeId,
    pub catches: Vec<Catch>,
    /// Also when the run is cancelled, never when it is terminated.
    pub finally: Option<NodeId>,
}

#[derive(Debug)]
pub struct Catch {
    /// Error types; empty = every one.
    pub types: Vec<Arc<str>>,
    pub body: NodeId,
}

/// `scope:`, a savepoint: its failure undoes its own steps, then takes `otherwise`, or fails outward.
#[derive(Debug)]
pub struct Savepoint {
    pub body: NodeId,
    pub otherwise: Option<NodeId>,
}

#[derive(Debug)]
pub enum Wait {
    For(Span),
    /// Gives an RFC 3339 time or a number of seconds since the epoch; one that has passed waits for nothing.
    Until(Template),
}

#[derive(Debug)]
pub struct WaitFor {
    pub signal: Arc<str>,
    /// A signal for which this is false stays buffered; sees the body as `signal`.
    pub matches: Option<Expression>,
    pub timeout: Option<Span>,
    pub on_timeout: OnTimeout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTimeout {
    Fail,
    /// Passed, without an output.
    Continue,
    /// The last output of this body is the step's.
    Steps(NodeId),
}

/// Takes every signal, or update, of its name, one after the other.
#[derive(Debug)]
pub struct Handler {
    /// What does not fit is refused.
    pub schema: Option<InputSchema>,
    /// Sees what was sent as `signal`, or `update`.
    pub body: NodeId,
    /// Of an update: it is refused where this is false, or a text that says why.
    pub validate: Option<Expression>,
    /// Of an update: what it is answered with; sees the steps of the body.
    pub output: Option<Template>,
}

#[derive(Debug)]
pub struct ChildWorkflow {
    pub workflow: WorkflowName,
    /// `None` = the highest registered one when the child starts.
    pub version: Option<u32>,
    /// `None` = derived from the parent's workflow id and the step's path.
    pub id: Option<Template>,
    pub input: Option<Template>,
    pub parent_close: ParentClose,
    /// Started and left alone: not waited for, not cancelled, not undone.
    pub detached: bool,
}

/// What becomes of a child when its parent closes before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ParentClose {
    #[default]
    RequestCancel,
    Terminate,
    Abandon,
}

#[derive(Debug)]
pub struct Emit {
    pub subject: Template,
    pub body: Option<Template>,
}

#[derive(Debug)]
pub struct Fail {
    pub error_type: Template,
    pub message: Option<Template>,
}

#[derive(Debug)]
pub struct Activity {
    pub call: Call,
    pub undo: Undo,
    pub on_failure: OnFailure,
    /// Undo the step even when it surely was not done (steps that are not atomic).
    pub compensate_on_failure: bool,
    /// Once it has completed, the run only goes forward (SEMANTICS §2.7).
    pub pivot: bool,
    /// What its tasks wait for beside a worker; `None` = nothing, and they cost nothing for it.
    pub limiting: Option<Box<Limiting>>,
    pub cancellation: Cancellation,
}

/// Limits over all runs, workers and replicas; an undo is under those of its step.
#[derive(Debug, Default)]
pub struct Limiting {
    /// So many tasks at a time.
    pub concurrency: Option<Limited<u32>>,
    pub rate: Option<Limited<Rate>>,
    /// From 1, the most important, to 5.
    pub priority: Option<u8>,
    /// Those who wait are served key by key; where it is not given the key of a limit takes its place.
    pub fairness_key: Option<Template>,
}

#[derive(Debug)]
pub struct Limited<T> {
    pub to: T,
    /// One limit for each of its values; `None` = one for all.
    pub key: Option<Template>,
}

/// What becomes of a task under way when its step is not wanted any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancellation {
    /// Its worker is asked to stop, and waited for within the task's own timeouts.
    #[default]
    TryCancel,
    /// Its worker is asked to stop, and waited for until it says how the task ended, or is lost: start-to-close does not end
    /// the wait, `heartbeat` and `schedule_to_close` do.
    WaitCancelled,
    /// Its worker is neither asked to stop nor waited for; what it may have done counts as unknown, and is undone.
    Abandon,
}

/// Timeouts of an activity beside start-to-close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Timeouts {
    /// Of a task, until a worker takes it. Not retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_start: Option<Span>,
    /// Of all attempts together, with the pauses between them. Not retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_close: Option<Span>,
    /// Of a worker's silence. Retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Span>,
}

/// What a task says to a worker, forwards or as an undo.
#[derive(Debug)]
pub struct Call {
    pub activity: ActivityName,
    pub queue: QueueName,
    /// `null` where the definition gives none.
    pub input: Option<Template>,
    pub start_to_close: Span,
    pub timeouts: Timeouts,
    pub retry: RetryPolicy,
    /// Of an undo, what it means for the others when this one is parked; `None` = as the policy of the plan has it.
    pub on_exhausted: Option<OnExhausted>,
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

/// The reason of a step that says nothing about undoing it.
pub const UNDECLARED: &str = "the definition declares no undo";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    Fail,
    Continue,
}

/// Defaults are Temporal's for activities and workflows (1 s, 2.0, 100 × initial, unlimited); an undo defaults to 10 attempts, up to 5 m apart.
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

    /// What takes the signals of a name, and where it is.
    pub fn handler_of(&self, signal: &str) -> Option<(NodeId, &Handler)> {
        self.signal_handlers().find(|(id, _)| *self.node(*id).name == *signal)
    }

    /// The same of an update.
    pub fn update_of(&self, name: &str) -> Option<(NodeId, &Handler)> {
        self.update_handlers().find(|(id, _)| *self.node(*id).name == *name)
    }

    pub fn signal_handlers(&self) -> impl Iterator<Item = (NodeId, &Handler)> {
        self.handlers_in(SIGNALS)
    }

    pub fn update_handlers(&self) -> impl Iterator<Item = (NodeId, &Handler)> {
        self.handlers_in(UPDATES)
    }

    fn handlers_in(&self, named: &'static str) -> impl Iterator<Item = (NodeId, &Handler)> {
        let groups = self.handlers.iter().map(|group| self.node(*group));
        let groups = groups.filter_map(move |group| match &group.kind {
            NodeKind::Handlers { children } if *group.name == *named => Some(children),
            _ => None,
        });
        groups.flatten().filter_map(move |id| match &self.node(*id).kind {
            NodeKind::Handler(handler) => Some((*id, &**handler)),
            _ => None,
        })
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
