//! What a definition compiles to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::def::{Def, DefKind, LimitsDef, OnTimeoutDef, UndoDef, seq};
use crate::definition::plan::{
    self, Activity, Call, InputSchema, Node, NodeId, NodeKind, Plan, RetryPolicy, Timeouts, Undo,
};
use crate::expression::{Expression, Template};
use crate::ids::DefinitionHash;
use crate::limit::Rate;
use crate::time::Span;

pub(crate) fn template(value: &Value) -> Template {
    Template::compile(value).unwrap()
}

fn retry(maximum_attempts: Option<u32>, non_retryable: &[String]) -> RetryPolicy {
    RetryPolicy {
        initial_interval: Span::from_secs(1),
        backoff_coefficient: 2.0,
        maximum_interval: Span::from_secs(100),
        maximum_attempts,
        non_retryable: non_retryable.iter().map(|name| Arc::from(name.as_str())).collect(),
    }
}

/// A body of a step; the main one has no name.
fn body(nodes: &mut Vec<Node>, step: NodeId, name: &str, steps: &[Def]) -> NodeId {
    add(nodes, Some(step), &seq(name, steps.to_vec()))
}

fn expression(text: &str) -> Expression {
    Expression::compile(text).unwrap()
}

fn add(nodes: &mut Vec<Node>, parent: Option<NodeId>, def: &Def) -> NodeId {
    let id = NodeId(nodes.len());
    nodes.push(Node {
        parent,
        name: Arc::from(def.name.as_str()),
        condition: def.condition.as_deref().map(|text| Expression::compile(text).unwrap()),
        kind: NodeKind::Sequence { children: vec![] },
    });
    let kind = match &def.kind {
        DefKind::Sequence(children) => NodeKind::Sequence {
            children: children.iter().map(|child| add(nodes, Some(id), child)).collect(),
        },
        DefKind::Set(assignments) => NodeKind::Set(
            assignments
                .iter()
                .map(|(name, value)| (Arc::from(name.as_str()), template(value)))
                .collect(),
        ),
        DefKind::Parallel { branches, join, losers } => {
            let branches = branches.iter().map(|(name, steps)| body(nodes, id, name, steps));
            NodeKind::Parallel(plan::Parallel {
                branches: branches.collect(),
                join: *join,
                losers: *losers,
            })
        }
        DefKind::ForEach {
            list,
            at_once,
            collect,
            steps,
        } => NodeKind::ForEach(Box::new(plan::ForEach {
            list: template(list),
            item: Arc::from("item"),
            max_concurrency: *at_once,
            body: body(nodes, id, "", steps),
            collect: collect.as_ref().map(template),
        })),
        DefKind::Switch(cases) => {
            let cases = cases.iter().enumerate().map(|(index, (when, steps))| plan::Case {
                when: when.as_deref().map(expression),
                body: match when {
                    Some(_) => body(nodes, id, &format!("case_{}", index + 1), steps),
                    None => body(nodes, id, "else", steps),
                },
            });
            NodeKind::Switch(cases.collect())
        }
        DefKind::While { when, max, steps } => NodeKind::While(Box::new(plan::While {
            when: expression(when),
            max_iterations: *max,
            body: body(nodes, id, "", steps),
        })),
        DefKind::Try {
            steps,
            catches,
            finally,
        } => {
            let main = body(nodes, id, "", steps);
            let catches = catches.iter().enumerate().map(|(index, (types, steps))| plan::Catch {
                types: types.iter().map(|name| Arc::from(name.as_str())).collect(),
                body: body(nodes, id, &format!("catch_{}", index + 1), steps),
            });
            let catches = catches.collect();
            NodeKind::Try(plan::Try {
                body: main,
                catches,
                finally: finally.as_ref().map(|steps| body(nodes, id, "finally", steps)),
            })
        }
        DefKind::Scope { steps, otherwise } => NodeKind::Scope(plan::Savepoint {
            body: body(nodes, id, "", steps),
            otherwise: otherwise.as_ref().map(|steps| body(nodes, id, "otherwise", steps)),
        }),
        DefKind::Wait(span) => NodeKind::Wait(plan::Wait::For(*span)),
        DefKind::WaitUntil(until) => NodeKind::Wait(plan::Wait::Until(template(until))),
        DefKind::WaitFor {
            signal,
            matches,
            timeout,
            on_timeout,
        } => NodeKind::WaitFor(Box::new(plan::WaitFor {
            signal: Arc::from(signal.as_str()),
            matches: matches.as_deref().map(expression),
            timeout: *timeout,
            on_timeout: match on_timeout {
                OnTimeoutDef::Fail => plan::OnTimeout::Fail,
                OnTimeoutDef::Continue => plan::OnTimeout::Continue,
                OnTimeoutDef::Steps(steps) => plan::OnTimeout::Steps(body(nodes, id, "on_timeout", steps)),
            },
        })),
        DefKind::Workflow {
            id,
            input,
            parent_close,
            detached,
        } => NodeKind::Workflow(Box::new(plan::ChildWorkflow {
            workflow: "shipping".into(),
            version: None,
            id: id.as_ref().map(template),
            input: input.as_ref().map(template),
            parent_close: *parent_close,
            detached: *detached,
        })),
        DefKind::Emit { subject, body } => NodeKind::Emit(Box::new(plan::Emit {
            subject: template(subject),
            body: body.as_ref().map(template),
        })),
        DefKind::Fail(error_type) => NodeKind::Fail(Box::new(plan::Fail {
            error_type: template(&json!(error_type)),
            message: None,
        })),
        DefKind::Complete(output) => NodeKind::Complete(Some(template(output))),
        DefKind::ContinueAsNew(input) => NodeKind::ContinueAsNew(input.as_ref().map(template)),
        DefKind::Activity {
            input,
            undo,
            attempts,
            undo_attempts,
            non_retryable,
            on_failure,
            compensate_on_failure,
            start_to_close,
            timeouts,
            undo_timeouts,
            cancellation,
            pivot,
            limits,
        } => {
            let call = |activity: String, input: &Option<Value>, attempts, timeouts: &Timeouts| Call {
                activity: activity.as_str().into(),
                queue: "main".into(),
                input: input.as_ref().map(template),
                start_to_close: *start_to_close,
                timeouts: *timeouts,
                retry: retry(attempts, non_retryable),
                on_exhausted: None,
            };
            NodeKind::Activity(Box::new(Activity {
                call: call(format!("do-{}", def.name), input, *attempts, timeouts),
                undo: match undo {
                    UndoDef::Input(input) => {
                        Undo::Compensate(call(format!("undo-{}", def.name), input, *undo_attempts, undo_timeouts))
                    }
                    UndoDef::ReadOnly => Undo::ReadOnly,
                    UndoDef::NoUndo => Undo::None {
                        reason: Arc::from("it cannot be"),
                    },
                },
                on_failure: *on_failure,
                compensate_on_failure: *compensate_on_failure,
                pivot: *pivot,
                limiting: limiting(limits),
                cancellation: *cancellation,
            }))
        }
    };
    nodes[id.0].kind = kind;
    id
}

fn limiting(limits: &LimitsDef) -> Option<Box<plan::Limiting>> {
    let key = |key: Option<&str>| key.map(|key| template(&json!(key)));
    let limiting = plan::Limiting {
        concurrency: limits.concurrency.map(|(to, of)| plan::Limited { to, key: key(of) }),
        rate: limits.rate.map(|limit| plan::Limited {
            to: Rate {
                limit,
                per: Span::from_secs(1),
            },
            key: None,
        }),
        priority: limits.priority,
        fairness_key: key(limits.fairness_key),
    };
    let said = limits.concurrency.is_some() || limits.rate.is_some() || limits.priority.is_some();
    said.then(|| Box::new(limiting))
}

pub(crate) fn plan(children: Vec<Def>) -> Plan {
    let mut nodes = Vec::new();
    let root = add(&mut nodes, None, &seq("", children));
    Plan {
        workflow: "order".into(),
        version: 1,
        hash: DefinitionHash(Arc::from("abc")),
        nodes,
        root,
        id: None,
        input_schema: None,
        output: None,
        search_attributes: BTreeMap::new(),
        timeout: None,
        compensation: Default::default(),
        schedule: None,
        concurrency: None,
        priority: None,
        retry: None,
        triggers: Vec::new(),
        handlers: Vec::new(),
        queries: BTreeMap::new(),
    }
}

pub(crate) fn with_compensation(mut plan: Plan, order: plan::UndoOrder, on_exhausted: plan::OnExhausted) -> Plan {
    plan.compensation = plan::CompensationPolicy { order, on_exhausted };
    plan
}

pub(crate) fn with_output(mut plan: Plan, output: Value) -> Plan {
    plan.output = Some(template(&output));
    plan
}

pub(crate) fn with_timeout(mut plan: Plan, seconds: u64) -> Plan {
    plan.timeout = Some(Span::from_secs(seconds));
    plan
}

/// Every 10 s, doubling; `Broken` is not tried again.
pub(crate) fn with_retry(mut plan: Plan, attempts: Option<u32>) -> Plan {
    plan.retry = Some(Box::new(plan::RetryPolicy {
        initial_interval: Span::from_secs(10),
        backoff_coefficient: 2.0,
        maximum_interval: Span::from_secs(1_000),
        maximum_attempts: attempts,
        non_retryable: vec!["Broken".into()],
    }));
    plan
}

pub(crate) fn with_schema(mut plan: Plan, schema: &Value) -> Plan {
    plan.input_schema = Some(InputSchema(Arc::new(jsonschema::validator_for(schema).unwrap())));
    plan
}

pub(crate) fn with_search_attribute(mut plan: Plan, name: &str, value: &Value) -> Plan {
    plan.search_attributes.insert(name.to_owned(), template(value));
    plan
}
