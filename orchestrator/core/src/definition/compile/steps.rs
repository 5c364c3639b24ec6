//! Steps and their bodies, laid out in one arena.

use std::sync::Arc;

use super::activity::activity;
use super::expressions::{condition, template};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{self, StepKind, Steps};
use crate::definition::plan::{
    Case, Catch, ChildWorkflow, Emit, Fail, ForEach, Node, NodeId, NodeKind, OnTimeout, Parallel, Savepoint, Try, Wait,
    WaitFor, While,
};
use crate::expression::Template;
use crate::ids::WorkflowName;

#[derive(Default)]
pub(super) struct Compiler {
    pub(super) nodes: Vec<Node>,
}

impl Compiler {
    pub(super) fn sequence(&mut self, parent: Option<NodeId>, name: &str, steps: &Steps) -> Result<NodeId, Diagnostic> {
        let id = self.reserve(parent, name);
        let children = steps.list.iter().map(|step| self.step(id, step));
        let children = children.collect::<Result<_, _>>()?;
        self.nodes[id.0].kind = NodeKind::Sequence { children };
        Ok(id)
    }

    /// A node whose kind is not known before its bodies are.
    pub(super) fn reserve(&mut self, parent: Option<NodeId>, name: &str) -> NodeId {
        let id = NodeId(self.nodes.len());
        self.nodes.push(Node {
            parent,
            name: Arc::from(name),
            condition: None,
            kind: NodeKind::Sequence { children: Vec::new() },
        });
        id
    }

    fn step(&mut self, parent: NodeId, step: &model::Step) -> Result<NodeId, Diagnostic> {
        let id = self.reserve(Some(parent), &step.id.text);
        self.nodes[id.0].condition = step.condition.as_ref().map(condition).transpose()?;
        let mut bodies = Vec::new();
        for (name, steps) in step.bodies() {
            bodies.push(self.sequence(Some(id), &name, steps)?);
        }
        let mut bodies = bodies.into_iter();
        let kind = kind(step, &mut bodies)?;
        debug_assert_eq!(bodies.next(), None, "every body of `{}` has its place", step.id.text);
        self.nodes[id.0].kind = kind;
        Ok(id)
    }
}

/// Takes the bodies in the order in which the step has them.
fn kind(step: &model::Step, bodies: &mut impl Iterator<Item = NodeId>) -> Result<NodeKind, Diagnostic> {
    let mut body = || bodies.next().ok_or_else(|| unchecked(step));
    Ok(match &step.kind {
        StepKind::Activity(it) => NodeKind::Activity(Box::new(activity(it, step)?)),
        StepKind::Set(entries) => NodeKind::Set(
            entries
                .iter()
                .map(|(name, value)| Ok((Arc::from(name.text.as_str()), template(value)?)))
                .collect::<Result<_, Diagnostic>>()?,
        ),
        StepKind::Parallel(it) => NodeKind::Parallel(Parallel {
            branches: it.branches.iter().map(|_| body()).collect::<Result<_, _>>()?,
            join: it.join,
            losers: it.losers,
        }),
        StepKind::ForEach(it) => NodeKind::ForEach(Box::new(ForEach {
            list: template(&it.list)?,
            item: Arc::from(it.item.text.as_str()),
            max_concurrency: it.max_concurrency,
            body: body()?,
            collect: optional(it.collect.as_ref())?,
        })),
        StepKind::Switch(cases) => NodeKind::Switch(
            cases
                .iter()
                .map(|case| {
                    Ok(Case {
                        when: case.when.as_ref().map(condition).transpose()?,
                        body: body()?,
                    })
                })
                .collect::<Result<_, Diagnostic>>()?,
        ),
        StepKind::While(it) => NodeKind::While(Box::new(While {
            when: condition(&it.when)?,
            max_iterations: it.max_iterations,
            body: body()?,
        })),
        StepKind::Try(it) => NodeKind::Try(Try {
            body: body()?,
            catches: it
                .catches
                .iter()
                .map(|catch| {
                    Ok(Catch {
                        types: catch.types.iter().map(|t| Arc::from(t.as_str())).collect(),
                        body: body()?,
                    })
                })
                .collect::<Result<_, Diagnostic>>()?,
            finally: it.finally.as_ref().map(|_| body()).transpose()?,
        }),
        StepKind::Scope(it) => NodeKind::Scope(Savepoint {
            body: body()?,
            otherwise: it.otherwise.as_ref().map(|_| body()).transpose()?,
        }),
        StepKind::Wait(model::Wait::For(span)) => NodeKind::Wait(Wait::For(*span)),
        StepKind::Wait(model::Wait::Until(until)) => NodeKind::Wait(Wait::Until(template(until)?)),
        StepKind::WaitFor(it) => NodeKind::WaitFor(Box::new(WaitFor {
            signal: Arc::from(it.signal.text.as_str()),
            matches: it.matches.as_ref().map(condition).transpose()?,
            timeout: it.timeout,
            on_timeout: match it.on_timeout {
                model::OnTimeout::Fail => OnTimeout::Fail,
                model::OnTimeout::Continue => OnTimeout::Continue,
                model::OnTimeout::Steps(_) => OnTimeout::Steps(body()?),
            },
        })),
        StepKind::Workflow(it) => NodeKind::Workflow(Box::new(ChildWorkflow {
            workflow: WorkflowName::new(&it.name.text),
            version: it.version,
            id: optional(it.id.as_ref())?,
            input: optional(it.input.as_ref())?,
            parent_close: it.parent_close,
            detached: it.detached,
        })),
        StepKind::Emit(it) => NodeKind::Emit(Box::new(Emit {
            subject: template(&it.subject)?,
            body: optional(it.body.as_ref())?,
        })),
        StepKind::Fail(it) => NodeKind::Fail(Box::new(Fail {
            error_type: template(&it.error_type)?,
            message: optional(it.message.as_ref())?,
        })),
        StepKind::Complete(output) => NodeKind::Complete(optional(output.as_ref())?),
        StepKind::ContinueAsNew(input) => NodeKind::ContinueAsNew(optional(input.as_ref())?),
        StepKind::Broken => return Err(unchecked(step)),
    })
}

fn optional(node: Option<&crate::definition::tree::Node>) -> Result<Option<Template>, Diagnostic> {
    node.map(template).transpose()
}

pub(super) fn unchecked(step: &model::Step) -> Diagnostic {
    let message = format!("the step `{}` is incomplete", step.id.text);
    Diagnostic::error(code::STEP_KIND, step.id.place.clone(), message)
}
