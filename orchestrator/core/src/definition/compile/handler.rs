//! The bodies beside the main one.

use super::expressions::{condition, template};
use super::steps::Compiler;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Definition, Handler, JsonSchema};
use crate::definition::plan::{self, InputSchema, NodeId, NodeKind};
use crate::definition::schema;
use crate::run::{SIGNALS, UPDATES};

impl Compiler {
    /// A node for those of signals and one for those of updates, where there are any.
    pub(super) fn handlers(&mut self, root: NodeId, definition: &Definition) -> Result<Vec<NodeId>, Diagnostic> {
        let mut groups = Vec::new();
        for (name, handlers) in [(SIGNALS, &definition.signals), (UPDATES, &definition.updates)] {
            if !handlers.is_empty() {
                groups.push(self.handlers_of(root, name, handlers)?);
            }
        }
        Ok(groups)
    }

    fn handlers_of(&mut self, root: NodeId, name: &str, handlers: &[Handler]) -> Result<NodeId, Diagnostic> {
        let group = self.reserve(Some(root), name);
        let mut children = Vec::with_capacity(handlers.len());
        for handler in handlers {
            let id = self.reserve(Some(group), &handler.name.text);
            let body = self.sequence(Some(id), "", &handler.steps)?;
            self.nodes[id.0].kind = NodeKind::Handler(Box::new(plan::Handler {
                schema: handler.schema.as_ref().map(compiled).transpose()?,
                body,
                validate: handler.validate.as_ref().map(condition).transpose()?,
                output: handler.output.as_ref().map(template).transpose()?,
            }));
            children.push(id);
        }
        self.nodes[group.0].kind = NodeKind::Handlers { children };
        Ok(group)
    }
}

pub(super) fn compiled(of: &JsonSchema) -> Result<InputSchema, Diagnostic> {
    schema::compile(&of.schema).map_err(|problem| Diagnostic::error(code::SCHEMA, of.place.clone(), problem))
}
