//! `workflow`: a child.

use super::steps::Reader;
use super::value::{computed_text, whole, word};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::fields::Fields;
use crate::definition::keys::WORKFLOW;
use crate::definition::model::{ChildWorkflow, Text};
use crate::definition::names::name;
use crate::definition::plan::ParentClose;
use crate::definition::tree::{Kind, Node, Place};

impl Reader<'_> {
    pub(super) fn child(&mut self, node: &Node, place: &Place) -> Option<ChildWorkflow> {
        if matches!(node.kind, Kind::String(_)) {
            let message = "`workflow` must be a mapping, not a string";
            let finding = Diagnostic::error(code::SHAPE, node.span.clone(), message);
            self.found.push(finding.help("write `workflow: { name: … }`"));
            return None;
        }
        let fields = Fields::open(node, &WORKFLOW, self.found)?;
        let workflow = match fields.get("name") {
            Some(node) => name(node, "workflow", self.found),
            None => {
                self.missing(&fields, "`workflow`", "name", place);
                None
            }
        };
        let detached = fields.flag("detached", self.found);
        let words = [
            ("request_cancel", ParentClose::RequestCancel),
            ("terminate", ParentClose::Terminate),
            ("abandon", ParentClose::Abandon),
        ];
        let parent_close = word(&fields, "parent_close", &words, self.found);
        if detached
            && let Some(ParentClose::RequestCancel | ParentClose::Terminate) = parent_close
            && let Some(place) = fields.key_place("parent_close")
        {
            let message = "`parent_close` contradicts `detached`: a detached child is left alone";
            self.found.push(Diagnostic::error(code::CONTRADICTION, place, message));
        }
        let default = if detached {
            ParentClose::Abandon
        } else {
            ParentClose::default()
        };
        Some(ChildWorkflow {
            name: workflow.unwrap_or(Text {
                text: "unreadable".to_owned(),
                place: place.clone(),
            }),
            version: whole(&fields, "version", i32::MAX.unsigned_abs(), self.found),
            id: fields.get("id").and_then(|node| computed_text(node, "id", self.found)),
            input: fields.get("input").cloned(),
            parent_close: parent_close.unwrap_or(default),
            detached,
        })
    }
}
