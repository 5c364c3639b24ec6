//! Reading expressions out of values, and where their parts stand in the document.

use super::facts::Facts;
use super::walk::{At, Walk};
use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::Text;
use crate::definition::tree::{Kind, Node, Place};
use crate::expression::{self, Expression, ExpressionError, Part, Path};
use crate::json::MAX_DEPTH;

impl<'a> Walk<'a, '_> {
    pub(super) fn condition(&mut self, condition: &'a Text, facts: &Facts<'a>, at: &At<'a>) {
        self.expression(&condition.text, &condition.place, 0, facts, at);
    }

    /// Every string in a structure.
    pub(super) fn template(&mut self, node: &'a Node, facts: &Facts<'a>, at: &At<'a>) {
        if node.depth() > MAX_DEPTH {
            let message = format!("the value is nested deeper than {MAX_DEPTH} levels");
            self.found
                .push(Diagnostic::error(code::TOO_LARGE, node.span.clone(), message));
        }
        let mut strings = Vec::new();
        node.visit(&mut |node| match &node.kind {
            Kind::String(text) => strings.push((text.as_str(), &node.span)),
            Kind::Object(entries) => {
                for (position, (key, _)) in entries.iter().enumerate() {
                    if entries[..position].iter().any(|(earlier, _)| earlier.text == key.text) {
                        let message = format!("the key `{}` appears twice", key.text);
                        self.found
                            .push(Diagnostic::error(code::DUPLICATE_KEY, key.span.clone(), message));
                    }
                    if key.text.contains("${") {
                        let message = "keys are not evaluated";
                        let finding = Diagnostic::error(code::EXPRESSION, key.span.clone(), message);
                        self.found
                            .push(finding.help("build the object in an expression: `${ {name: value} }`"));
                    }
                }
            }
            _ => {}
        });
        for (text, place) in strings {
            match expression::split(text) {
                Ok(parts) => {
                    for part in parts {
                        if let Part::Expression(range) = part {
                            self.expression(&text[range.clone()], place, range.start, facts, at);
                        }
                    }
                }
                Err(error) => {
                    let place = self.place_of(text, place, 0, error.range.as_ref());
                    self.found
                        .push(Diagnostic::error(code::EXPRESSION, place, error.message));
                }
            }
        }
    }

    /// `offset`: of the expression within its string, to tell repeats apart.
    fn expression(&mut self, source: &str, place: &Place, offset: usize, facts: &Facts<'a>, at: &At<'a>) {
        match Expression::compile(source) {
            Err(error) => self.bad_expression(source, place, offset, error),
            Ok(expression) => {
                let references = expression.references();
                for reference in references {
                    let guarded = reference.guarded || references.iter().any(|other| other.guards(reference));
                    let place = self.place_of(source, place, offset, Some(&reference.range));
                    self.reference(reference, guarded, place, facts, at);
                }
            }
        }
    }

    fn bad_expression(&mut self, source: &str, place: &Place, offset: usize, error: ExpressionError) {
        let place = self.place_of(source, place, offset, error.range.as_ref());
        let unknown = error.message.starts_with("there is no ");
        let code = if unknown { code::UNKNOWN_NAME } else { code::EXPRESSION };
        let finding = Diagnostic::error(code, place, error.message).suggest(error.suggestion);
        self.found.push(match error.remedy {
            Some(remedy) => finding.help(remedy),
            None => finding,
        });
    }

    /// The path a value is, if it is one and nothing else, and where it stands.
    pub(super) fn only_path(&self, node: &Node) -> Option<(Path, Place)> {
        let text = node.as_str()?;
        let parts = expression::split(text).ok()?;
        let [Part::Expression(range)] = parts.as_slice() else {
            return None;
        };
        let source = &text[range.clone()];
        let expression = Expression::compile(source).ok()?;
        let [reference] = expression.references() else {
            return None;
        };
        let place = self.place_of(source, &node.span, range.start, Some(&reference.range));
        (source[reference.range.clone()] == *source.trim()).then(|| (reference.path.clone(), place))
    }

    /// Where a part of an expression stands in the document: within its string if that is written there as it is.
    fn place_of(&self, source: &str, place: &Place, offset: usize, range: Option<&Place>) -> Place {
        let Some(written) = self.text.get(place.clone()) else {
            return place.clone();
        };
        // An earlier repeat in the same string ends before the offset, give or take the quote.
        let from = offset.min(written.len());
        let found = written
            .get(from..)
            .and_then(|rest| rest.find(source))
            .map(|at| from + at)
            .or_else(|| written.find(source));
        // What was written without `${ }` has lost the space that was put around it.
        let (found, source, cut) = match found {
            Some(at) => (Some(at), source, 0),
            None => {
                let trimmed = source.trim();
                let cut = source.len() - source.trim_start().len();
                (written.find(trimmed), trimmed, cut)
            }
        };
        match (found, range) {
            (Some(at), Some(range)) if range.end.saturating_sub(cut) <= source.len() => {
                let start = place.start + at + range.start.saturating_sub(cut);
                start..(place.start + at + range.end.max(range.start).saturating_sub(cut))
            }
            (Some(at), _) => place.start + at..place.start + at + source.len(),
            (None, _) => place.clone(),
        }
    }
}
