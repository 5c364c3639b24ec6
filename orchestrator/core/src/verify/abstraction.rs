//! The plan that is explored: the shape of the definition's own, with opaque data.
//!
//! | in the definition | in the plan that is explored |
//! |---|---|
//! | a condition that asks only what is there (`steps.x is defined`) | kept |
//! | another condition, a list | left open ([`super::choice`]), as far as what is there does not decide it |
//! | an input, an output, a body, what a loop collects | reads each step and variable that it reads unguarded, where it does, and nothing of them |
//! | a `set` | its constant, else an opaque value, after the same reading |
//! | `wait`, timeouts | kept, and never due before they are chosen to be |
//! | start-to-close, and the other timeouts of activities | so long that no task is ever late: how they end an attempt is explored as its outcome |
//! | `match` of a signal, ids, search attributes, schemas, the run's timeout and its retry | left out |

use std::collections::BTreeSet;

use serde_json::Value;

use super::choice::{Choices, OPAQUE, Open, OpenKind, Place, Variants};
use super::{MAX_ITEMS, MAX_ITERATIONS};
use crate::definition::duration;
use crate::definition::plan::{
    Activity, Call, Case, Catch, ChildWorkflow, Emit, Fail, ForEach, Handler, Node, NodeId, NodeKind, Parallel, Plan,
    RetryPolicy, Savepoint, Timeouts, Try, Undo, Wait, WaitFor, While,
};
use crate::expression::{Expression, ExpressionError, Formula, Presence, Reference, Segment, Template};
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
            retry: None,
            triggers: Vec::new(),
            handlers: original.handlers.clone(),
            // Whoever asks changes nothing.
            queries: Default::default(),
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
            Some(condition) => Some(self.condition(id, Place::If, condition)?),
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
                    stable: each.list.references().into_iter().all(|it| self.is_stable(it, None)),
                    of_vars: None,
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
                        let when = case.when.as_ref();
                        let when = when.map(|when| self.condition(id, Place::Case(at), when));
                        Ok(Case {
                            when: when.transpose()?,
                            body: case.body,
                        })
                    })
                    .collect::<Result<_, ExpressionError>>()?,
            ),
            NodeKind::While(repeat) => NodeKind::While(Box::new(While {
                when: self.while_condition(id, repeat)?,
                max_iterations: repeat.max_iterations.min(MAX_ITERATIONS),
                body: repeat.body,
            })),
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
            NodeKind::Handlers { children } => NodeKind::Handlers {
                children: children.clone(),
            },
            // What does not fit, or is refused, never reaches it.
            NodeKind::Handler(handler) => NodeKind::Handler(Box::new(Handler {
                schema: None,
                body: handler.body,
                validate: None,
                output: reading(handler.output.as_ref())?,
            })),
            NodeKind::Complete(output) => NodeKind::Complete(reading(output.as_ref())?),
            NodeKind::ContinueAsNew(input) => NodeKind::ContinueAsNew(reading(input.as_ref())?),
        })
    }

    fn condition(&mut self, node: NodeId, place: Place, condition: &Expression) -> Result<Expression, ExpressionError> {
        let presence = condition.presence()?;
        let fine = Presence::has_all(&presence.reads);
        let (truth, falsehood) = (&presence.surely_true, &presence.surely_false);
        if presence.is_known() {
            return Expression::compile(&checked(truth, &fine));
        }
        let references = condition.references();
        // One that reads nothing goes the same way for ever: a loop by it has no end of its own.
        let of_vars = references.iter().all(|it| &*it.path.root == "vars");
        let variants = Variants {
            open: Formula::all([fine.clone(), Formula::any([truth.clone(), falsehood.clone()])]).not(),
            decided: truth.clone(),
            of_false: checked(truth, &fine),
            of_true: checked(&falsehood.not(), &fine),
        };
        self.open.push(Open {
            node,
            kind: OpenKind::Condition(place, variants),
            text: condition.source().to_owned(),
            stable: references.iter().all(|it| self.is_stable(it, Some(&presence))),
            of_vars: of_vars.then(|| Expression::compile(condition.source()).ok()).flatten(),
        });
        stand_in()
    }

    fn while_condition(&mut self, node: NodeId, repeat: &While) -> Result<Expression, ExpressionError> {
        let kept = self.open.len();
        let when = self.condition(node, Place::While, &repeat.when)?;
        // In one transition a choice goes one way. A loop that nothing interrupts is asked again in the same one, so the
        // constants that it begins with do not say how it ends, where it computes others: it may do nothing as well.
        if self.turns_by_itself(repeat) {
            self.open[kept..].iter_mut().for_each(|open| open.of_vars = None);
        }
        Ok(when)
    }

    /// Whether the body, without waiting for anything, computes a variable that the condition reads.
    fn turns_by_itself(&self, repeat: &While) -> bool {
        let references = repeat.when.references();
        let read: BTreeSet<&str> = references
            .iter()
            .filter_map(|reference| match reference.path.segments.first() {
                Some(Segment::Key(name)) => Some(&**name),
                _ => None,
            })
            .collect();
        let mut computes = false;
        for (at, node) in self.original.nodes.iter().enumerate() {
            if !self.is_within(NodeId(at), repeat.body) {
                continue;
            }
            match &node.kind {
                NodeKind::Activity(_) | NodeKind::Wait(_) | NodeKind::WaitFor(_) | NodeKind::Workflow(_) => {
                    return false;
                }
                NodeKind::Set(entries) => {
                    computes |= entries
                        .iter()
                        .any(|(name, value)| read.contains(&**name) && value.constant().is_none());
                }
                _ => {}
            }
        }
        computes
    }

    fn is_within(&self, node: NodeId, body: NodeId) -> bool {
        let parents = std::iter::successors(Some(node), |id| self.original.node(*id).parent);
        parents.into_iter().any(|id| id == body)
    }

    /// Whether what is read never changes in a run, as far as it decides anything.
    fn is_stable(&self, reference: &Reference, presence: Option<&Presence>) -> bool {
        let path = &reference.path;
        match (&*path.root, path.step()) {
            ("input" | "run", _) => true,
            ("steps", Some(id)) if !self.is_in_loop(id) => {
                // Whether it is there may change. Then it must be there wherever anything is left open.
                let base = format!("steps.{id}");
                let decides = |it: &Presence| {
                    Formula::any([it.surely_true.without(&base), it.surely_false.without(&base)]) == Formula::Always
                };
                !reference.guarded || presence.is_some_and(decides)
            }
            _ => false,
        }
    }

    fn is_in_loop(&self, id: &str) -> bool {
        let found = self.original.nodes.iter().find(|node| &*node.name == id);
        let mut at = found.and_then(|node| node.parent);
        while let Some(node) = at.map(|id| self.original.node(id)) {
            if matches!(
                node.kind,
                NodeKind::ForEach(_) | NodeKind::While(_) | NodeKind::Handler(_)
            ) {
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
        on_exhausted: call.on_exhausted,
    })
}

/// What may be missing where it is read, and when: of every expression by itself.
fn reads<'t>(templates: impl Iterator<Item = &'t Template>) -> Result<BTreeSet<(String, Formula)>, ExpressionError> {
    let mut reads = BTreeSet::new();
    for expression in templates.flat_map(Template::expressions) {
        reads.extend(expression.presence()?.reads);
    }
    Ok(reads)
}

fn reading(template: Option<&Template>) -> Result<Option<Template>, ExpressionError> {
    reading_all([template])
}

fn reading_all<const N: usize>(templates: [Option<&Template>; N]) -> Result<Option<Template>, ExpressionError> {
    let reads = reads(templates.into_iter().flatten())?;
    if reads.is_empty() {
        return Ok(None);
    }
    let list: Value = reads
        .iter()
        .map(|(path, when)| match when {
            Formula::Always => format!("${{ {path} }}"),
            when => format!("${{ {path} if {when} else none }}"),
        })
        .collect();
    Template::compile(&list).map(Some)
}

fn variable(template: &Template) -> Result<Template, ExpressionError> {
    if template.references().is_empty() {
        // What is computed of nothing is as good as opaque, and so is what would have to be escaped.
        let plain = template.constant().filter(|value| !value.to_string().contains("${"));
        return plain.map_or_else(|| constant(OPAQUE), Template::compile);
    }
    let reads: Vec<_> = reads(std::iter::once(template))?.into_iter().collect();
    match Presence::has_all(&reads) {
        Formula::Always => constant(OPAQUE),
        fine => Template::compile(&Value::String(format!("${{ '{OPAQUE}' if {fine} else missing.data }}"))),
    }
}

/// A condition that fails where something is missing.
fn checked(truth: &Formula, fine: &Formula) -> String {
    match fine {
        Formula::Always => truth.to_string(),
        fine => format!("({truth}) if {fine} else missing.data"),
    }
}

fn constant(text: &str) -> Result<Template, ExpressionError> {
    Template::compile(&Value::String(text.replace("${", "$${")))
}

/// Until the choice is put there.
fn stand_in() -> Result<Expression, ExpressionError> {
    Expression::compile("true")
}
