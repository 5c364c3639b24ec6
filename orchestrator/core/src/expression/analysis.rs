//! Reading an expression's syntax tree: which paths it reads, whether it is prepared for their absence, which names are wrong.

use minijinja::machinery::{Span, ast, parse_expr};
use minijinja::value::ValueKind;
use serde_json::Value;

use super::convert::{Budget, to_json};
use super::{ExpressionError, FILTERS, FUNCTIONS, MAX_VALUE_BYTES, Path, Reference, Segment, TESTS};
use crate::definition::near::nearest;

pub(super) struct Analysis {
    pub(super) references: Vec<Reference>,
    pub(super) shape: Shape,
}

/// Forms that need no engine.
pub(super) enum Shape {
    Path(Path),
    PathOr(Path, Value),
    Other,
}

/// An error of the engine in our words: its message without its own decoration.
pub(super) fn from_engine(source: &str, error: &minijinja::Error) -> ExpressionError {
    let message = match error.kind() {
        minijinja::ErrorKind::OutOfFuel => "too much work for one expression".to_owned(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_owned),
    };
    let mut result = ExpressionError::new(source, message);
    result.range = error
        .range()
        .filter(|range| range.start <= range.end && range.end <= source.len());
    result
}

pub(super) fn analyse(source: &str) -> Result<Analysis, ExpressionError> {
    let tree = parse_expr(source).map_err(|error| from_engine(source, &error))?;
    let mut walk = Walk {
        source,
        references: Vec::new(),
    };
    walk.visit(&tree)?;
    let shape = shape(&tree);
    Ok(Analysis {
        references: walk.references,
        shape,
    })
}

fn shape(tree: &ast::Expr<'_>) -> Shape {
    if let Some((path, _)) = path_of(tree) {
        return Shape::Path(path);
    }
    if let ast::Expr::Filter(filter) = tree
        && matches!(filter.name, "default" | "d")
        && let Some((path, _)) = filter.expr.as_ref().and_then(path_of)
        && let [ast::CallArg::Pos(ast::Expr::Const(default))] = filter.args.as_slice()
        && let Ok(default) = to_json(&default.value, &mut Budget::new(MAX_VALUE_BYTES))
    {
        return Shape::PathOr(path, default);
    }
    Shape::Other
}

/// The path an expression is, if it is nothing else.
fn path_of(expression: &ast::Expr<'_>) -> Option<(Path, Span)> {
    let (root, segments, span) = chain(expression)?;
    let complete = segments.iter().all(Option::is_some);
    complete.then(|| {
        (
            Path {
                root: root.into(),
                segments: segments.into_iter().flatten().collect(),
            },
            span,
        )
    })
}

/// A chain of lookups down to a name; `None` for a segment that is computed.
fn chain<'a>(expression: &ast::Expr<'a>) -> Option<(&'a str, Vec<Option<Segment>>, Span)> {
    let mut segments = Vec::new();
    let mut at = expression;
    let root = loop {
        match at {
            ast::Expr::Var(name) => break name.id,
            ast::Expr::GetAttr(get) => {
                segments.push(Some(Segment::Key(get.name.into())));
                at = &get.expr;
            }
            ast::Expr::GetItem(get) => {
                segments.push(constant_segment(&get.subscript_expr));
                at = &get.expr;
            }
            _ => return None,
        }
    };
    segments.reverse();
    Some((root, segments, expression.span()))
}

fn constant_segment(expression: &ast::Expr<'_>) -> Option<Segment> {
    let ast::Expr::Const(constant) = expression else {
        return None;
    };
    match constant.value.kind() {
        ValueKind::String => Some(Segment::Key(constant.value.as_str()?.into())),
        ValueKind::Number if constant.value.is_integer() => {
            usize::try_from(constant.value.clone()).ok().map(Segment::Index)
        }
        _ => None,
    }
}

struct Walk<'s> {
    source: &'s str,
    references: Vec<Reference>,
}

impl Walk<'_> {
    fn visit(&mut self, expression: &ast::Expr<'_>) -> Result<(), ExpressionError> {
        match expression {
            ast::Expr::Var(_) | ast::Expr::GetAttr(_) | ast::Expr::GetItem(_) => self.visit_chain(expression, false),
            ast::Expr::Const(_) => Ok(()),
            ast::Expr::UnaryOp(unary) => self.visit(&unary.expr),
            ast::Expr::BinOp(binary) => {
                self.visit(&binary.left)?;
                self.visit(&binary.right)
            }
            ast::Expr::Compare(compare) => {
                self.visit(&compare.expr)?;
                compare.ops.iter().try_for_each(|op| self.visit(&op.expr))
            }
            ast::Expr::IfExpr(condition) => {
                self.visit(&condition.test_expr)?;
                self.visit(&condition.true_expr)?;
                self.visit_optional(condition.false_expr.as_ref())
            }
            ast::Expr::Slice(slice) => {
                self.visit(&slice.expr)?;
                self.visit_optional(slice.start.as_ref())?;
                self.visit_optional(slice.stop.as_ref())?;
                self.visit_optional(slice.step.as_ref())
            }
            ast::Expr::Filter(filter) => {
                self.known("filter", filter.name, FILTERS, expression.span())?;
                let guarded = matches!(filter.name, "default" | "d");
                if let Some(inner) = &filter.expr {
                    self.visit_guarded(inner, guarded)?;
                }
                self.visit_args(&filter.args)
            }
            ast::Expr::Test(test) => {
                self.known("test", test.name, TESTS, expression.span())?;
                self.visit_guarded(&test.expr, matches!(test.name, "defined" | "undefined"))?;
                self.visit_args(&test.args)
            }
            ast::Expr::Call(call) => {
                match &call.expr {
                    ast::Expr::Var(name) => self.known("function", name.id, FUNCTIONS, call.expr.span())?,
                    other => {
                        return Err(ExpressionError::new(
                            self.source,
                            "values have no methods; use a filter (`value | filter`)",
                        )
                        .at(range(self.source, other.span())));
                    }
                }
                self.visit_args(&call.args)
            }
            ast::Expr::List(list) => list.items.iter().try_for_each(|item| self.visit(item)),
            ast::Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.visit(item)),
            ast::Expr::Map(map) => {
                map.keys.iter().try_for_each(|key| self.visit(key))?;
                map.values.iter().try_for_each(|value| self.visit(value))
            }
        }
    }

    fn visit_optional(&mut self, expression: Option<&ast::Expr<'_>>) -> Result<(), ExpressionError> {
        expression.map_or(Ok(()), |expression| self.visit(expression))
    }

    fn visit_args(&mut self, args: &[ast::CallArg<'_>]) -> Result<(), ExpressionError> {
        args.iter().try_for_each(|arg| match arg {
            ast::CallArg::Pos(expression)
            | ast::CallArg::Kwarg(_, expression)
            | ast::CallArg::PosSplat(expression)
            | ast::CallArg::KwargSplat(expression) => self.visit(expression),
        })
    }

    fn visit_guarded(&mut self, expression: &ast::Expr<'_>, guarded: bool) -> Result<(), ExpressionError> {
        if chain(expression).is_some() {
            self.visit_chain(expression, guarded)
        } else {
            self.visit(expression)
        }
    }

    fn visit_chain(&mut self, expression: &ast::Expr<'_>, guarded: bool) -> Result<(), ExpressionError> {
        let Some((root, segments, span)) = chain(expression) else {
            // The lookup is on something computed: `(a | f).b[c]`.
            return match expression {
                ast::Expr::GetAttr(get) => self.visit(&get.expr),
                ast::Expr::GetItem(get) => {
                    self.visit(&get.expr)?;
                    self.visit(&get.subscript_expr)
                }
                other => self.visit(other),
            };
        };
        let known: Vec<Segment> = segments.iter().map_while(Clone::clone).collect();
        // What follows a computed segment cannot be looked at before the value is there.
        let guarded = guarded && known.len() == segments.len();
        self.references.push(Reference {
            path: Path {
                root: root.into(),
                segments: known,
            },
            guarded,
            range: range(self.source, span),
        });
        let mut at = expression;
        loop {
            match at {
                ast::Expr::GetAttr(get) => at = &get.expr,
                ast::Expr::GetItem(get) => {
                    if constant_segment(&get.subscript_expr).is_none() {
                        self.visit(&get.subscript_expr)?;
                    }
                    at = &get.expr;
                }
                _ => return Ok(()),
            }
        }
    }

    fn known(&self, what: &str, name: &str, names: &'static [&'static str], span: Span) -> Result<(), ExpressionError> {
        if names.contains(&name) {
            return Ok(());
        }
        let mut error =
            ExpressionError::new(self.source, format!("there is no {what} `{name}`")).at(range(self.source, span));
        error.suggestion = nearest(name, names.iter().copied());
        Err(error)
    }
}

fn range(source: &str, span: Span) -> std::ops::Range<usize> {
    let start = (span.start_offset as usize).min(source.len());
    let end = (span.end_offset as usize).clamp(start, source.len());
    start..end
}
