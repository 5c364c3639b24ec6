//! From the checked, resolved model to the plan.

use std::sync::Arc;

use super::code;
use super::diagnostic::Diagnostic;
use super::model;
use super::plan::{Activity, Call, CompensationPolicy, Node, NodeId, NodeKind, Plan, Undo};
use super::schema;
use super::tree::{self, Place};
use crate::expression::{Expression, ExpressionError, Template};
use crate::ids::{ActivityName, DefinitionHash, WorkflowName};

const ROOT: NodeId = NodeId(0);

/// Fails only on a model that was not checked.
pub(super) fn plan(definition: &model::Definition, hash: DefinitionHash) -> Result<Plan, Diagnostic> {
    let mut nodes = vec![Node {
        parent: None,
        name: Arc::from(""),
        condition: None,
        kind: NodeKind::Sequence { children: Vec::new() },
    }];
    let mut children = Vec::with_capacity(definition.steps.len());
    for step in &definition.steps {
        children.push(NodeId(nodes.len()));
        nodes.push(node(step)?);
    }
    nodes[ROOT.0].kind = NodeKind::Sequence { children };
    let input_schema = definition.input_schema.as_ref().map(|input| {
        schema::compile(&input.schema).map_err(|problem| Diagnostic::error(code::SCHEMA, input.place.clone(), problem))
    });
    let search_attributes = definition
        .search_attributes
        .iter()
        .map(|(name, value)| Ok((name.text.clone(), template(value)?)))
        .collect::<Result<_, Diagnostic>>()?;
    Ok(Plan {
        workflow: WorkflowName::new(&definition.workflow.text),
        version: definition.version,
        hash,
        nodes,
        root: ROOT,
        id: definition.id.as_ref().map(template).transpose()?,
        input_schema: input_schema.transpose()?,
        output: definition.output.as_ref().map(template).transpose()?,
        search_attributes,
        timeout: definition.timeout,
        compensation: CompensationPolicy::default(),
    })
}

fn node(step: &model::Step) -> Result<Node, Diagnostic> {
    let kind = match &step.kind {
        model::StepKind::Activity(activity) => NodeKind::Activity(Box::new(self::activity(activity, step)?)),
        model::StepKind::Set(entries) => NodeKind::Set(
            entries
                .iter()
                .map(|(name, value)| Ok((Arc::from(name.text.as_str()), template(value)?)))
                .collect::<Result<_, Diagnostic>>()?,
        ),
        model::StepKind::Broken => return Err(unchecked(step)),
    };
    let condition = step.condition.as_ref().map(|condition| {
        Expression::compile(&condition.text).map_err(|error| in_expression(&error, condition.place.clone()))
    });
    Ok(Node {
        parent: Some(ROOT),
        name: Arc::from(step.id.text.as_str()),
        condition: condition.transpose()?,
        kind,
    })
}

fn activity(activity: &model::Activity, step: &model::Step) -> Result<Activity, Diagnostic> {
    let undo = match &activity.undo {
        model::Undo::Compensate(undo) => Undo::Compensate(call(undo, step)?),
        model::Undo::ReadOnly => Undo::ReadOnly,
        model::Undo::None { reason } => Undo::None {
            reason: Arc::from(reason.as_str()),
        },
        model::Undo::Undeclared => Undo::None {
            reason: Arc::from("the definition declares no undo"),
        },
    };
    Ok(Activity {
        call: call(&activity.call, step)?,
        undo,
        on_failure: activity.on_failure,
        compensate_on_failure: activity.compensate_on_failure,
        pivot: false,
    })
}

fn call(call: &model::Call, step: &model::Step) -> Result<Call, Diagnostic> {
    let settings = call.settings.clone().ok_or_else(|| unchecked(step))?;
    Ok(Call {
        activity: ActivityName::new(&call.activity.text),
        queue: settings.queue,
        input: call.input.as_ref().map(template).transpose()?,
        start_to_close: settings.start_to_close,
        retry: settings.retry,
    })
}

fn template(node: &tree::Node) -> Result<Template, Diagnostic> {
    Template::compile(&node.to_json()).map_err(|error| in_expression(&error, node.span.clone()))
}

fn in_expression(error: &ExpressionError, place: Place) -> Diagnostic {
    Diagnostic::error(code::EXPRESSION, place, error.to_string())
}

fn unchecked(step: &model::Step) -> Diagnostic {
    let message = format!("the step `{}` is incomplete", step.id.text);
    Diagnostic::error(code::STEP_KIND, step.id.place.clone(), message)
}
