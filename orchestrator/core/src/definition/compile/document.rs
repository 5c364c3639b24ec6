//! The document around the steps.

use std::sync::Arc;

use super::expressions::template;
use super::handler::compiled;
use super::steps::Compiler;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model;
use crate::definition::plan::{Plan, RunConcurrency};
use crate::ids::{DefinitionHash, WorkflowName};

/// Fails only on a model that was not checked.
pub(crate) fn plan(definition: &model::Definition, hash: DefinitionHash) -> Result<Plan, Diagnostic> {
    let mut compiler = Compiler::default();
    let root = compiler.sequence(None, "", &definition.steps)?;
    let handlers = compiler.handlers(root, definition)?;
    let input_schema = definition.input_schema.as_ref().map(compiled);
    let search_attributes = definition
        .search_attributes
        .iter()
        .map(|(name, value)| Ok((name.text.clone(), template(value)?)))
        .collect::<Result<_, Diagnostic>>()?;
    let queries = definition.queries.iter();
    let queries = queries.map(|(name, value)| Ok((Arc::from(name.text.as_str()), template(value)?)));
    let queries = queries.collect::<Result<_, Diagnostic>>()?;
    let concurrency = definition.concurrency.as_ref().map(|it| {
        Ok(Box::new(RunConcurrency {
            limit: it.limit,
            key: it.key.as_ref().map(template).transpose()?,
            on_conflict: it.on_conflict,
        }))
    });
    Ok(Plan {
        workflow: WorkflowName::new(&definition.workflow.text),
        version: definition.version,
        hash,
        nodes: compiler.nodes,
        root,
        id: definition.id.as_ref().map(template).transpose()?,
        input_schema: input_schema.transpose()?,
        output: definition.output.as_ref().map(template).transpose()?,
        search_attributes,
        timeout: definition.timeout,
        retry: definition.retry.clone().map(Box::new),
        compensation: definition.compensation,
        schedule: definition.schedule.clone(),
        concurrency: concurrency.transpose()?,
        priority: definition.priority,
        triggers: definition.triggers.clone(),
        handlers,
        queries,
    })
}
