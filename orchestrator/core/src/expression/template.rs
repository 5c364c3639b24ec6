//! Templates: a JSON structure whose string leaves may hold `${ expression }`.
//!
//! A leaf that is exactly one expression keeps the type of its value; text around it makes a string. `$${` is a literal `${`.

use std::ops::Range;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::convert::Budget;
use super::{Expression, ExpressionError, MAX_TEMPLATE_BYTES, Reference, Scope};
use crate::json::MAX_DEPTH;

/// A compiled template.
#[derive(Debug)]
pub struct Template {
    root: Root,
}

#[derive(Debug)]
enum Root {
    /// No expression anywhere: shared by every evaluation.
    Constant(Arc<Value>),
    /// Nothing but one expression; a whole output or input is passed on without a copy.
    Expression(Expression),
    Tree(Node),
}

#[derive(Debug)]
enum Node {
    Constant(Value),
    Expression(Expression),
    Text(Vec<TextPart>),
    Array(Vec<Node>),
    Object(Vec<(String, Node)>),
}

#[derive(Debug)]
enum TextPart {
    Literal(String),
    Expression(Expression),
}

/// A piece of a string leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// With `$${` already taken back to `${`.
    Literal(String),
    /// The bytes between `${` and `}`, without the space around them.
    Expression(Range<usize>),
}

/// Cuts a string leaf into literal text and expressions.
pub fn split(text: &str) -> Result<Vec<Part>, ExpressionError> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut at = 0;
    while let Some(found) = text[at..].find("${") {
        let start = at + found;
        if text[..start].ends_with('$') && start > at {
            literal.push_str(&text[at..start - 1]);
            literal.push_str("${");
            at = start + 2;
            continue;
        }
        literal.push_str(&text[at..start]);
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        let inner = start + 2;
        let Some(length) = closing_brace(&text[inner..]) else {
            return Err(
                ExpressionError::new(text, "`${` is not closed by `}`; write `$${` for a literal one")
                    .at(start..text.len()),
            );
        };
        let source = &text[inner..inner + length];
        let trimmed_start = inner + (length - source.trim_start().len());
        let trimmed_end = trimmed_start + source.trim().len();
        if trimmed_start >= trimmed_end {
            return Err(ExpressionError::new(text, "`${ }` holds no expression").at(start..inner + length + 1));
        }
        parts.push(Part::Expression(trimmed_start..trimmed_end));
        at = inner + length + 1;
    }
    literal.push_str(&text[at..]);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

/// The offset of the `}` that ends an expression: braces nest, and strings hide them.
fn closing_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut quote = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (Some(_), _) if escaped => escaped = false,
            (Some(_), b'\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth == 0 => return Some(at),
            (None, b'}') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

impl Template {
    pub fn compile(structure: &Value) -> Result<Self, ExpressionError> {
        let root = match compile(structure, 0)? {
            Node::Constant(value) => Root::Constant(Arc::new(value)),
            Node::Expression(expression) => Root::Expression(expression),
            tree => Root::Tree(tree),
        };
        Ok(Self { root })
    }

    /// The value; constants and whole outputs are shared, everything else is made anew.
    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Arc<Value>, ExpressionError> {
        match &self.root {
            Root::Constant(value) => Ok(Arc::clone(value)),
            Root::Expression(expression) => expression.evaluate_shared(scope, &mut Budget::new(MAX_TEMPLATE_BYTES)),
            Root::Tree(node) => node.evaluate(scope, &mut Budget::new(MAX_TEMPLATE_BYTES)).map(Arc::new),
        }
    }

    /// The value, if there is no expression in it.
    pub fn constant(&self) -> Option<&Value> {
        match &self.root {
            Root::Constant(value) => Some(value),
            Root::Expression(_) | Root::Tree(_) => None,
        }
    }

    /// As a person would write it: a lone expression without `${ }`, a constant as it is, anything else as in the definition.
    pub fn source(&self) -> String {
        match &self.root {
            Root::Constant(value) => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
            Root::Expression(expression) => expression.source().to_owned(),
            Root::Tree(node) => match node.source() {
                Value::String(text) => text,
                other => other.to_string(),
            },
        }
    }

    /// Every path read, in the order of the structure.
    pub fn references(&self) -> Vec<&Reference> {
        self.expressions()
            .into_iter()
            .flat_map(Expression::references)
            .collect()
    }

    /// In the order of the structure.
    pub(crate) fn expressions(&self) -> Vec<&Expression> {
        let mut expressions = Vec::new();
        match &self.root {
            Root::Constant(_) => {}
            Root::Expression(expression) => expressions.push(expression),
            Root::Tree(node) => node.collect_expressions(&mut expressions),
        }
        expressions
    }
}

fn compile(value: &Value, depth: usize) -> Result<Node, ExpressionError> {
    if depth > MAX_DEPTH {
        return Err(ExpressionError::new(
            "",
            format!("nested deeper than {MAX_DEPTH} levels"),
        ));
    }
    match value {
        Value::String(text) => compile_text(text),
        Value::Array(items) => {
            let nodes = items
                .iter()
                .map(|item| compile(item, depth + 1))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(match constants(nodes) {
                Ok(values) => Node::Constant(Value::Array(values)),
                Err(nodes) => Node::Array(nodes),
            })
        }
        Value::Object(entries) => {
            let mut keys = Vec::with_capacity(entries.len());
            let mut nodes = Vec::with_capacity(entries.len());
            for (key, item) in entries {
                keys.push(key.clone());
                nodes.push(compile(item, depth + 1)?);
            }
            Ok(match constants(nodes) {
                Ok(values) => Node::Constant(Value::Object(keys.into_iter().zip(values).collect())),
                Err(nodes) => Node::Object(keys.into_iter().zip(nodes).collect()),
            })
        }
        other => Ok(Node::Constant(other.clone())),
    }
}

/// The values, if every node is constant.
fn constants(nodes: Vec<Node>) -> Result<Vec<Value>, Vec<Node>> {
    if !nodes.iter().all(|node| matches!(node, Node::Constant(_))) {
        return Err(nodes);
    }
    Ok(nodes
        .into_iter()
        .filter_map(|node| match node {
            Node::Constant(value) => Some(value),
            _ => None,
        })
        .collect())
}

fn compile_text(text: &str) -> Result<Node, ExpressionError> {
    let mut parts = split(text)?;
    match parts.as_slice() {
        [Part::Literal(_)] => {
            if let Some(Part::Literal(literal)) = parts.pop() {
                return Ok(Node::Constant(Value::String(literal)));
            }
        }
        [Part::Expression(range)] => return Expression::compile(&text[range.clone()]).map(Node::Expression),
        _ => {}
    }
    let parts = parts
        .into_iter()
        .map(|part| match part {
            Part::Literal(literal) => Ok(TextPart::Literal(literal)),
            Part::Expression(range) => Expression::compile(&text[range]).map(TextPart::Expression),
        })
        .collect::<Result<_, _>>()?;
    Ok(Node::Text(parts))
}

impl Node {
    fn evaluate(&self, scope: &dyn Scope, budget: &mut Budget) -> Result<Value, ExpressionError> {
        match self {
            Self::Constant(value) => Ok(value.clone()),
            Self::Expression(expression) => expression.evaluate_owned(scope, budget),
            Self::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        TextPart::Literal(literal) => text.push_str(literal),
                        TextPart::Expression(expression) => match expression.evaluate_owned(scope, budget)? {
                            Value::String(value) => text.push_str(&value),
                            Value::Null => {
                                return Err(expression.error("null cannot be part of a text".to_owned()));
                            }
                            other => text.push_str(&other.to_string()),
                        },
                    }
                }
                Ok(Value::String(text))
            }
            Self::Array(nodes) => nodes
                .iter()
                .map(|node| node.evaluate(scope, budget))
                .collect::<Result<_, _>>()
                .map(Value::Array),
            Self::Object(entries) => {
                let mut object = Map::with_capacity(entries.len());
                for (key, node) in entries {
                    object.insert(key.clone(), node.evaluate(scope, budget)?);
                }
                Ok(Value::Object(object))
            }
        }
    }

    fn source(&self) -> Value {
        match self {
            Self::Constant(value) => value.clone(),
            Self::Expression(expression) => Value::String(format!("${{ {} }}", expression.source())),
            Self::Text(parts) => {
                let parts = parts.iter().map(|part| match part {
                    TextPart::Literal(literal) => literal.replace("${", "$${"),
                    TextPart::Expression(expression) => format!("${{ {} }}", expression.source()),
                });
                Value::String(parts.collect())
            }
            Self::Array(nodes) => nodes.iter().map(Self::source).collect(),
            Self::Object(entries) => entries.iter().map(|(key, node)| (key.clone(), node.source())).collect(),
        }
    }

    fn collect_expressions<'a>(&'a self, expressions: &mut Vec<&'a Expression>) {
        match self {
            Self::Constant(_) => {}
            Self::Expression(expression) => expressions.push(expression),
            Self::Text(parts) => {
                expressions.extend(parts.iter().filter_map(|part| match part {
                    TextPart::Literal(_) => None,
                    TextPart::Expression(expression) => Some(expression),
                }));
            }
            Self::Array(nodes) => nodes.iter().for_each(|node| node.collect_expressions(expressions)),
            Self::Object(entries) => entries
                .iter()
                .for_each(|(_, node)| node.collect_expressions(expressions)),
        }
    }
}
