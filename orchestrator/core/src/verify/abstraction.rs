//! The plan that is explored: the shape of the definition's own, with opaque data.
//!
//! | in the definition | in the plan that is explored |
//! |---|---|
//! | a condition, a list | left open ([`super::choice`]) |
//! | an input, an output, a body, what a loop collects | reads each step and variable that it reads unguarded, and nothing of them |
//! | a `set` | its constant, else an opaque value, after the same reading |
//! | `wait`, timeouts | kept, and never due before they are chosen to be |
//! | start-to-close, and the other timeouts of activities | so long that no task is ever late: how they end an attempt is explored as its outcome |
//! | `match` of a signal, ids, search attributes, schemas, the run's timeout | left out |

use std::collections::BTreeSet;

use serde_json::Value;

use super::choice::{Choices, OPAQUE, Open, OpenKind};
use super::{MAX_ITEMS, MAX_ITERATIONS};
use crate::definition::duration;
use crate::definition::plan::{
    Activity, Call, Case, Catch, ChildWorkflow, Emit, Fail, ForEach, Node, NodeId, NodeKind, Parallel, Plan,
    RetryPolicy, Savepoint, Timeouts, Try, Undo, Wait, WaitFor, While,
};
use crate::expression::{Expression, ExpressionError, Reference, Segment, Template};
use crate::time::Span;

pub(super) struct Model {
    pub(super) plan: Plan,
    pub(super) choices: Choices,
}

impl Model {
    pub(super) fn of(original: &Plan) -> Result<Self, ExpressionError> {
        let mut maker = Maker {
            original,
            open: Vec::new(),
        };
        let ids = (0..original.nodes.len()).map(NodeId);
        let nodes = ids.map(|id| maker.node(id)).collect::<Result<_, _>>()?;
        let mut plan = Plan {
            workflow: original.workflow.clone(),
            version: original.version,
            hash: original.hash.clone(),
            nodes,
            root: original.root,
            id: None,
            input_schema: None,
            output: reading(original.output.as_ref())?,
            search_attributes: Default::default(),
            timeout: None,
            compensation: original.compensation,
            schedule: None,
            // A run that waits for its turn has done nothing; what is explored is a run that has begun.
            concurrency: None,
            priority: None,
            triggers: Vec::new(),
        };
        let mut choices = Choices::of(maker.open)?;
        choices.install(&mut plan);
        Ok(Self { plan, choices })
    }
}

struct Maker<'a> {
    original: &'a Plan,
    open: Vec<Open>,
}

impl Maker<'_> {
    fn node(&mut self, id: NodeId) -> Result<Node, ExpressionError> {
        let node = self.original.node(id);
        let condition = match &node.condition {
            Some(condition) => {
                self.leave_open(id, OpenKind::If, condition);
                Some(stand_in()?)
            }
            None => None,
        };
        Ok(Node {
            parent: node.parent,
            name: node.name.clone(),
            condition,
            kind: self.kind(id, &node.kind)?,
        })
    }

    fn kind(&mut self, id: NodeId, kind: &NodeKind) -> Result<NodeKind, ExpressionError> {
        Ok(match kind {
            NodeKind::Sequence { children } => NodeKind::Sequence {
                children: children.clone(),
            },
            NodeKind::Activity(activity) => NodeKind::Activity(Box::new(self::activity(activity)?)),
            NodeKind::Set(entries) => NodeKind::Set(
                entries
                    .iter()
                    .map(|(name, template)| Ok((name.clone(), variable(template)?)))
                    .collect::<Result<_, ExpressionError>>()?,
            ),
            NodeKind::Parallel(parallel) => NodeKind::Parallel(Parallel {
                branches: parallel.branches.clone(),
                join: parallel.join,
                losers: parallel.losers,
            }),
            NodeKind::ForEach(each) => {
                self.open.push(Open {
                    node: id,
                    kind: OpenKind::List,
                    text: each.list.source(),
                    stable: each.list.references().into_iter().all(|it| self.is_stable(it)),
                    of_vars: None,
                    check: String::new(),
                });
                NodeKind::ForEach(Box::new(ForEach {
                    list: Template::compile(&Value::Array(Vec::new()))?,
                    item: each.item.clone(),
                    max_concurrency: each.max_concurrency.filter(|limit| (*limit as usize) < MAX_ITEMS),
                    body: each.body,
                    collect: reading(each.collect.as_ref())?,
                }))
            }
            NodeKind::Switch(cases) => NodeKind::Switch(
                cases
                    .iter()
                    .enumerate()
                    .map(|(at, case)| {
                        let when = case.when.as_ref().map(|when| {
                            self.leave_open(id, OpenKind::Case(at), when);
                            stand_in()
                        });
                        let body = case.body;
                        let when = when.transpose()?;
                        Ok(Case { when, body })
                    })
                    .collect::<Result<_, ExpressionError>>()?,
            ),
            NodeKind::While(repeat) => {
                self.leave_open(id, OpenKind::While, &repeat.when);
                NodeKind::While(Box::new(While {
                    when: stand_in()?,
                    max_iterations: repeat.max_iterations.min(MAX_ITERATIONS),
                    body: repeat.body,
                }))
            }
            NodeKind::Try(guard) => NodeKind::Try(Try {
                body: guard.body,
                catches: guard
                    .catches
                    .iter()
                    .map(|catch| Catch {
                        types: catch.types.clone(),
                        body: catch.body,
                    })
                    .collect(),
                finally: guard.finally,
            }),
            NodeKind::Scope(scope) => NodeKind::Scope(Savepoint {
                body: scope.body,
                otherwise: scope.otherwise,
            }),
            NodeKind::Wait(Wait::For(span)) => NodeKind::Wait(Wait::For(*span)),
            NodeKind::Wait(Wait::Until(_)) => NodeKind::Wait(Wait::For(Span::from_secs(3_600))),
            NodeKind::WaitFor(wait) => NodeKind::WaitFor(Box::new(WaitFor {
                signal: wait.signal.clone(),
                matches: None,
                timeout: wait.timeout,
                on_timeout: wait.on_timeout,
            })),
            NodeKind::Workflow(child) => NodeKind::Workflow(Box::new(ChildWorkflow {
                workflow: child.workflow.clone(),
                version: child.version,
                id: None,
                input: reading_all([child.id.as_ref(), child.input.as_ref()])?,
                parent_close: child.parent_close,
                detached: child.detached,
            })),
            NodeKind::Emit(emit) => NodeKind::Emit(Box::new(Emit {
                subject: constant("explored")?,
                body: reading_all([Some(&emit.subject), emit.body.as_ref()])?,
            })),
            NodeKind::Fail(fail) => NodeKind::Fail(Box::new(Fail {
                error_type: if fail.error_type.references().is_empty() {
                    constant(&fail.error_type.source())?
                } else {
                    constant("computed")?
                },
                message: None,
            })),
            NodeKind::Complete(output) => NodeKind::Complete(reading(output.as_ref())?),
            NodeKind::ContinueAsNew(input) => NodeKind::ContinueAsNew(reading(input.as_ref())?),
        })
    }

    fn leave_open(&mut self, node: NodeId, kind: OpenKind, condition: &Expression) {
        let references = condition.references();
        // One that reads nothing goes the same way for ever: a loop by it has no end of its own.
        let of_vars = references.iter().all(|it| &*it.path.root == "vars");
        self.open.push(Open {
            node,
            kind,
            text: condition.source().to_owned(),
            stable: references.iter().all(|reference| self.is_stable(reference)),
            of_vars: of_vars.then(|| Expression::compile(condition.source()).ok()).flatten(),
            check: check(references.iter()),
        });
    }

    /// Whether what is read never changes in a run, once it is there.
    fn is_stable(&self, reference: &Reference) -> bool {
        match &*reference.path.root {
            "input" | "run" => true,
            // Whether it is there may change.
            "steps" if !reference.guarded => reference.path.step().is_some_and(|id| !self.is_in_loop(id)),
            _ => false,
        }
    }

    fn is_in_loop(&self, id: &str) -> bool {
        let found = self.original.nodes.iter().find(|node| &*node.name == id);
        let mut at = found.and_then(|node| node.parent);
        while let Some(node) = at.map(|id| self.original.node(id)) {
            if matches!(node.kind, NodeKind::ForEach(_) | NodeKind::While(_)) {
                return true;
            }
            at = node.parent;
        }
        false
    }
}

fn activity(activity: &Activity) -> Result<Activity, ExpressionError> {
    let limiting = activity.limiting.as_deref();
    let keys = limiting.map_or([None; 3], |it| {
        let concurrency = it.concurrency.as_ref().and_then(|it| it.key.as_ref());
        let rate = it.rate.as_ref().and_then(|it| it.key.as_ref());
        [concurrency, rate, it.fairness_key.as_ref()]
    });
    let [first, second, third] = keys;
    Ok(Activity {
        call: Call {
            input: reading_all([activity.call.input.as_ref(), first, second, third])?,
            ..call(&activity.call)?
        },
        undo: match &activity.undo {
            Undo::Compensate(undo) => Undo::Compensate(call(undo)?),
            Undo::ReadOnly => Undo::ReadOnly,
            Undo::None { reason } => Undo::None { reason: reason.clone() },
        },
        on_failure: activity.on_failure,
        compensate_on_failure: activity.compensate_on_failure,
        pivot: activity.pivot,
        // Whoever waits for a permit gets it, sooner or later.
        limiting: None,
        cancellation: activity.cancellation,
    })
}

fn call(call: &Call) -> Result<Call, ExpressionError> {
    Ok(Call {
        activity: call.activity.clone(),
        queue: call.queue.clone(),
        input: reading(call.input.as_ref())?,
        start_to_close: duration::MAX,
        timeouts: Timeouts::default(),
        retry: RetryPolicy {
            non_retryable: Vec::new(),
            ..call.retry.clone()
        },
    })
}

/// What is read unguarded, as far as it may be missing: a step's output as a whole, a variable, the error.
fn needed<'r>(references: impl Iterator<Item = &'r Reference>) -> BTreeSet<String> {
    let unguarded = references.filter(|reference| !reference.guarded);
    let paths = unguarded.filter_map(|reference| {
        let path = &reference.path;
        match (&*path.root, path.segments.first()) {
            (root @ ("steps" | "vars"), Some(Segment::Key(name))) => Some(format!("{root}.{name}")),
            ("error", _) => Some("error".to_owned()),
            _ => None,
        }
    });
    paths.collect()
}

fn reading(template: Option<&Template>) -> Result<Option<Template>, ExpressionError> {
    reading_all([template])
}

fn reading_all<const N: usize>(templates: [Option<&Template>; N]) -> Result<Option<Template>, ExpressionError> {
    let references = templates.into_iter().flatten().flat_map(Template::references);
    let paths = needed(references);
    if paths.is_empty() {
        return Ok(None);
    }
    let list: Value = paths.iter().map(|path| format!("${{ {path} }}")).collect();
    Template::compile(&list).map(Some)
}

fn variable(template: &Template) -> Result<Template, ExpressionError> {
    let references = template.references();
    if references.is_empty() {
        // What is computed of nothing is as good as opaque, and so is what would have to be escaped.
        let plain = template.constant().filter(|value| !value.to_string().contains("${"));
        return plain.map_or_else(|| constant(OPAQUE), Template::compile);
    }
    let check = check(references.into_iter());
    Template::compile(&Value::String(format!("${{ '{OPAQUE}' if ({check}) }}")))
}

/// A condition that is true, and fails where something is missing.
fn check<'r>(references: impl Iterator<Item = &'r Reference>) -> String {
    let paths = needed(references);
    if paths.is_empty() {
        return "true".to_owned();
    }
    let defined: Vec<_> = paths.iter().map(|path| format!("{path} is defined")).collect();
    format!("true if ({}) else missing.data", defined.join(" and "))
}

fn constant(text: &str) -> Result<Template, ExpressionError> {
    Template::compile(&Value::String(text.replace("${", "$${")))
}

/// Until the choice is put there.
fn stand_in() -> Result<Expression, ExpressionError> {
    Expression::compile("true")
}
