//! The bodies beside the main one.

use super::steps::Compiler;
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::{Handler, JsonSchema};
use crate::definition::plan::{self, InputSchema, NodeId, NodeKind};
use crate::definition::schema;
use crate::run::SIGNALS;

impl Compiler {
    /// The node of all handlers, if there are any.
    pub(super) fn handlers(&mut self, root: NodeId, handlers: &[Handler]) -> Result<Vec<NodeId>, Diagnostic> {
        if handlers.is_empty() {
            return Ok(Vec::new());
        }
        let group = self.reserve(Some(root), SIGNALS);
        let mut children = Vec::with_capacity(handlers.len());
        for handler in handlers {
            let id = self.reserve(Some(group), &handler.name.text);
            let body = self.sequence(Some(id), "", &handler.steps)?;
            let schema = handler.schema.as_ref().map(compiled).transpose()?;
            self.nodes[id.0].kind = NodeKind::Handler(Box::new(plan::Handler { schema, body }));
            children.push(id);
        }
        self.nodes[group.0].kind = NodeKind::Handlers { children };
        Ok(vec![group])
    }
}

pub(super) fn compiled(of: &JsonSchema) -> Result<InputSchema, Diagnostic> {
    schema::compile(&of.schema).map_err(|problem| Diagnostic::error(code::SCHEMA, of.place.clone(), problem))
}
