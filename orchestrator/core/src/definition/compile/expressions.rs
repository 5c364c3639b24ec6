//! Expressions and templates, with the place of what is wrong with them.

use crate::definition::code;
use crate::definition::diagnostic::Diagnostic;
use crate::definition::model::Text;
use crate::definition::tree::{Node, Place};
use crate::expression::{Expression, ExpressionError, Template};

pub(super) fn template(node: &Node) -> Result<Template, Diagnostic> {
    Template::compile(&node.to_json()).map_err(|error| bad(&error, &node.span))
}

pub(super) fn condition(text: &Text) -> Result<Expression, Diagnostic> {
    Expression::compile(&text.text).map_err(|error| bad(&error, &text.place))
}

fn bad(error: &ExpressionError, place: &Place) -> Diagnostic {
    Diagnostic::error(code::EXPRESSION, place.clone(), error.to_string())
}
