//! Reading an expression's syntax tree: which paths it reads, whether it is prepared for their absence, which names are wrong.

use minijinja::machinery::{Span, ast, parse_expr, tokenize};
use minijinja::value::ValueKind;
use serde_json::Value;

use super::convert::{Budget, to_json};
use super::foreign;
use super::{ExpressionError, FILTERS, FUNCTIONS, MAX_TOKENS, MAX_VALUE_BYTES, Path, Reference, Segment, TESTS};
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
    // The engine bounds how deep parentheses nest, but not how deep a chain of operators makes its tree.
    // Behind what is no token there is only the same error, without end.
    let tokens = tokenize(source, true, Default::default()).take_while(Result::is_ok);
    if tokens.take(MAX_TOKENS + 1).count() > MAX_TOKENS {
        let message = format!("has more than {MAX_TOKENS} names, values and operators");
        return Err(ExpressionError::new(source, message));
    }
    let tree =
        parse_expr(source).map_err(|error| foreign::operator(source).unwrap_or_else(|| from_engine(source, &error)))?;
    let mut walk = Walk::of(source);
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
pub(super) fn path_of(expression: &ast::Expr<'_>) -> Option<(Path, Span)> {
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
    // The engine's own span of a lookup begins at the dot.
    let mut span = expression.span();
    let root = loop {
        match at {
            ast::Expr::Var(name) => {
                span.start_offset = at.span().start_offset;
                break name.id;
            }
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
    Some((root, segments, span))
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

pub(super) struct Walk<'s> {
    source: &'s str,
    pub(super) references: Vec<Reference>,
}

type Pending<'t, 's> = Vec<(&'t ast::Expr<'s>, bool)>;

impl<'a> Walk<'a> {
    pub(super) fn of(source: &'a str) -> Self {
        Self {
            source,
            references: Vec::new(),
        }
    }

    /// In the order of the source; with a stack of its own, because trees are as deep as sources are long.
    fn visit(&mut self, tree: &ast::Expr<'_>) -> Result<(), ExpressionError> {
        let mut pending: Pending<'_, '_> = vec![(tree, false)];
        let mut children: Pending<'_, '_> = Vec::new();
        while let Some((expression, guarded)) = pending.pop() {
            self.visit_one(expression, guarded, &mut children)?;
            pending.extend(children.drain(..).rev());
        }
        Ok(())
    }

    /// What it reads by itself is added to the references, and its parts to `children`, with whether each is guarded.
    pub(super) fn visit_one<'t, 's>(
        &mut self,
        expression: &'t ast::Expr<'s>,
        guarded: bool,
        children: &mut Pending<'t, 's>,
    ) -> Result<(), ExpressionError> {
        match expression {
            ast::Expr::Var(_) | ast::Expr::GetAttr(_) | ast::Expr::GetItem(_) => {
                self.visit_chain(expression, guarded, children);
            }
            ast::Expr::Const(_) => {}
            ast::Expr::UnaryOp(unary) => children.push((&unary.expr, false)),
            ast::Expr::BinOp(binary) => children.extend([(&binary.left, false), (&binary.right, false)]),
            ast::Expr::Compare(compare) => {
                children.push((&compare.expr, false));
                children.extend(compare.ops.iter().map(|op| (&op.expr, false)));
            }
            ast::Expr::IfExpr(condition) => {
                children.extend([(&condition.test_expr, false), (&condition.true_expr, false)]);
                children.extend(condition.false_expr.iter().map(|e| (e, false)));
            }
            ast::Expr::Slice(slice) => {
                children.push((&slice.expr, false));
                let bounds = [&slice.start, &slice.stop, &slice.step];
                children.extend(bounds.into_iter().flatten().map(|e| (e, false)));
            }
            ast::Expr::Filter(filter) => {
                self.known("filter", filter.name, FILTERS, expression.span())?;
                let guarded = matches!(filter.name, "default" | "d");
                children.extend(filter.expr.iter().map(|e| (e, guarded)));
                children.extend(filter.args.iter().map(argument));
            }
            ast::Expr::Test(test) => {
                self.known("test", test.name, TESTS, expression.span())?;
                children.push((&test.expr, matches!(test.name, "defined" | "undefined")));
                children.extend(test.args.iter().map(argument));
            }
            ast::Expr::Call(call) => {
                let ast::Expr::Var(name) = &call.expr else {
                    let message = "values have no methods; use a filter (`value | filter`)";
                    return Err(ExpressionError::new(self.source, message).at(range(self.source, call.expr.span())));
                };
                self.known("function", name.id, FUNCTIONS, call.expr.span())?;
                children.extend(call.args.iter().map(argument));
            }
            ast::Expr::List(list) => children.extend(list.items.iter().map(|e| (e, false))),
            ast::Expr::Tuple(tuple) => children.extend(tuple.items.iter().map(|e| (e, false))),
            ast::Expr::Map(map) => {
                for (key, value) in map.keys.iter().zip(&map.values) {
                    children.extend([(key, false), (value, false)]);
                }
            }
        }
        Ok(())
    }

    fn visit_chain<'t, 's>(&mut self, expression: &'t ast::Expr<'s>, guarded: bool, children: &mut Pending<'t, 's>) {
        let Some((root, segments, span)) = chain(expression) else {
            // The lookup is on something computed: `(a | f).b[c]`.
            match expression {
                ast::Expr::GetAttr(get) => children.push((&get.expr, false)),
                ast::Expr::GetItem(get) => children.extend([(&get.expr, false), (&get.subscript_expr, false)]),
                _ => {}
            }
            return;
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
                        children.push((&get.subscript_expr, false));
                    }
                    at = &get.expr;
                }
                _ => return,
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
        let filter = nearest(name, FILTERS.iter().copied()).filter(|_| what == "function");
        error.remedy = match (error.suggestion, filter) {
            (Some(_), _) => None,
            (None, Some(filter)) => Some(format!("`{filter}` is a filter: `value | {filter}`")),
            (None, None) => Some(format!("`knarr explain KN0121` lists every {what}")),
        };
        Err(error)
    }
}

fn argument<'t, 's>(argument: &'t ast::CallArg<'s>) -> (&'t ast::Expr<'s>, bool) {
    match argument {
        ast::CallArg::Pos(expression)
        | ast::CallArg::Kwarg(_, expression)
        | ast::CallArg::PosSplat(expression)
        | ast::CallArg::KwargSplat(expression) => (expression, false),
    }
}

fn range(source: &str, span: Span) -> std::ops::Range<usize> {
    let start = (span.start_offset as usize).min(source.len());
    let end = (span.end_offset as usize).clamp(start, source.len());
    start..end
}
