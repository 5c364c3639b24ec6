//! What an expression does where a step has no output, a variable is not set or there is no error: by that alone, whatever
//! the data.
//!
//! **Invariant:** *surely* holds for all data. What the shape of an expression does not tell is left open, and a guard whose
//! effect is not understood (`(steps.x | default(none)) is not none`) is believed, as `knarr check` believes it.

use std::fmt;

use minijinja::machinery::{ast, parse_expr};

use super::analysis::{self, Walk};
use super::{ExpressionError, Path, Reference, Segment};

/// Beyond this an expression is taken by its references alone: what is made of it has to be one expression again.
const MAX_LITERALS: usize = 20;
const MAX_BYTES: usize = 600;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Presence {
    /// What fails where it is missing, and when it is read then.
    pub(crate) reads: Vec<(String, Formula)>,
    pub(crate) surely_true: Formula,
    pub(crate) surely_false: Formula,
}

/// Of what is there and what is missing; displayed as an expression.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Formula {
    Always,
    Never,
    There(String),
    Missing(String),
    All(Vec<Formula>),
    Any(Vec<Formula>),
}

impl Formula {
    pub(crate) fn not(&self) -> Self {
        match self {
            Self::Always => Self::Never,
            Self::Never => Self::Always,
            Self::There(path) => Self::Missing(path.clone()),
            Self::Missing(path) => Self::There(path.clone()),
            Self::All(parts) => Self::Any(parts.iter().map(Self::not).collect()),
            Self::Any(parts) => Self::All(parts.iter().map(Self::not).collect()),
        }
    }

    pub(crate) fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        match joined(parts, &Self::Always) {
            Ok(parts) => Self::All(parts),
            Err(one) => one,
        }
    }

    pub(crate) fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        match joined(parts, &Self::Never) {
            Ok(parts) => Self::Any(parts),
            Err(one) => one,
        }
    }

    /// What is left of it where a path is missing.
    pub(crate) fn without(&self, missing: &str) -> Self {
        match self {
            Self::There(path) if path == missing => Self::Never,
            Self::Missing(path) if path == missing => Self::Always,
            Self::All(parts) => Self::all(parts.iter().map(|part| part.without(missing))),
            Self::Any(parts) => Self::any(parts.iter().map(|part| part.without(missing))),
            other => other.clone(),
        }
    }

    fn literals(&self) -> usize {
        match self {
            Self::Always | Self::Never => 0,
            Self::There(_) | Self::Missing(_) => 1,
            Self::All(parts) | Self::Any(parts) => parts.iter().map(Self::literals).sum(),
        }
    }
}

/// The parts that count, at least two, or what they come to. `unit` changes nothing.
fn joined(parts: impl IntoIterator<Item = Formula>, unit: &Formula) -> Result<Vec<Formula>, Formula> {
    let mut kept: Vec<Formula> = Vec::new();
    for part in parts {
        let inner = match (part, unit) {
            (Formula::All(inner), Formula::Always) | (Formula::Any(inner), Formula::Never) => inner,
            (part, _) => vec![part],
        };
        for part in inner {
            if part == unit.not() || kept.contains(&part.not()) {
                return Err(unit.not());
            }
            if part != *unit && !kept.contains(&part) {
                kept.push(part);
            }
        }
    }
    match kept.len() {
        0 => Err(unit.clone()),
        1 => Err(kept.swap_remove(0)),
        _ => Ok(kept),
    }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, word) = match self {
            Self::Always => return f.write_str("true"),
            Self::Never => return f.write_str("false"),
            Self::There(path) => return write!(f, "{path} is defined"),
            Self::Missing(path) => return write!(f, "{path} is not defined"),
            Self::All(parts) => (parts, "and"),
            Self::Any(parts) => (parts, "or"),
        };
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                write!(f, " {word} ")?;
            }
            write!(f, "({part})")?;
        }
        Ok(())
    }
}

impl Presence {
    /// `references`: those of `source`.
    pub(super) fn of(source: &str, references: &[Reference]) -> Result<Self, ExpressionError> {
        let tree = parse_expr(source).map_err(|error| analysis::from_engine(source, &error))?;
        let mut reader = Reader {
            walk: Walk::of(source),
            reads: Vec::new(),
        };
        let truth = reader.visit(&tree, false, &Under::everything())?;
        let presence = Self {
            reads: reader.reads,
            surely_true: truth.surely_true,
            surely_false: truth.surely_false,
        };
        Ok(if presence.is_small() {
            presence
        } else {
            Self::of_references(references)
        })
    }

    fn is_small(&self) -> bool {
        let reads = self.reads.iter().map(|(_, when)| when);
        let formulas = || reads.clone().chain([&self.surely_true, &self.surely_false]);
        let paths: usize = self.reads.iter().map(|(path, _)| path.len()).sum();
        let bytes: usize = formulas().map(|it| it.to_string().len()).sum();
        let literals: usize = formulas().map(Formula::literals).sum();
        literals + self.reads.len() <= MAX_LITERALS && bytes + paths <= MAX_BYTES
    }

    fn of_references(references: &[Reference]) -> Self {
        let unguarded = references
            .iter()
            .filter(|it| !it.guarded && !references.iter().any(|other| other.guards(it)));
        let mut reads: Vec<_> = unguarded
            .filter_map(|it| Some((base(&it.path)?, Formula::Always)))
            .collect();
        reads.sort();
        reads.dedup();
        Self {
            reads,
            surely_true: Formula::Never,
            surely_false: Formula::Never,
        }
    }

    /// When nothing that is read is missing.
    pub(crate) fn has_all(reads: &[(String, Formula)]) -> Formula {
        let fine = reads
            .iter()
            .map(|(path, when)| Formula::any([when.not(), Formula::There(path.clone())]));
        Formula::all(fine)
    }

    /// It is known whether the value is true wherever nothing is missing that it reads.
    pub(crate) fn is_known(&self) -> bool {
        self.surely_false == self.surely_true.not()
    }
}

/// What of a path may be missing, whatever the data.
pub(crate) fn base(path: &Path) -> Option<String> {
    match (&*path.root, path.segments.first()) {
        (root @ ("steps" | "vars"), Some(Segment::Key(name))) => Some(format!("{root}.{name}")),
        ("error", _) => Some("error".to_owned()),
        _ => None,
    }
}

fn is_base(path: &Path) -> bool {
    path.segments.len() == usize::from(&*path.root != "error")
}

struct Truth {
    surely_true: Formula,
    surely_false: Formula,
    /// Every guarded reference within.
    guards: Vec<Reference>,
    /// Those of them that the two formulas say nothing of.
    opaque: Vec<Reference>,
}

impl Truth {
    fn not(self) -> Self {
        Self {
            surely_true: self.surely_false,
            surely_false: self.surely_true,
            ..self
        }
    }

    fn unknown(self) -> Self {
        Self {
            surely_true: Formula::Never,
            surely_false: Formula::Never,
            ..self
        }
    }

    fn with(mut self, others: impl IntoIterator<Item = Self>) -> Self {
        for other in others {
            self.guards.extend(other.guards);
            self.opaque.extend(other.opaque);
        }
        self
    }
}

/// What has to hold for a part of an expression to be evaluated.
struct Under {
    formula: Formula,
    guards: Vec<Reference>,
}

impl Under {
    fn everything() -> Self {
        Self {
            formula: Formula::Always,
            guards: Vec::new(),
        }
    }

    fn and(&self, formula: Formula, truth: &Truth) -> Self {
        Self {
            formula: Formula::all([self.formula.clone(), formula]),
            guards: self.guards.iter().chain(&truth.opaque).cloned().collect(),
        }
    }
}

struct Reader<'s> {
    walk: Walk<'s>,
    reads: Vec<(String, Formula)>,
}

/// As deep as the tree, which [`super::MAX_TOKENS`] bounds.
impl Reader<'_> {
    fn visit(&mut self, tree: &ast::Expr<'_>, guarded: bool, under: &Under) -> Result<Truth, ExpressionError> {
        match tree {
            ast::Expr::Const(constant) => {
                let mut truth = self.opaque(tree, guarded, under)?;
                truth.surely_true = if constant.value.is_true() {
                    Formula::Always
                } else {
                    Formula::Never
                };
                truth.surely_false = truth.surely_true.not();
                Ok(truth)
            }
            ast::Expr::UnaryOp(unary) if matches!(unary.op, ast::UnaryOpKind::Not) => {
                self.visit(&unary.expr, false, under).map(Truth::not)
            }
            ast::Expr::BinOp(binary) if matches!(binary.op, ast::BinOpKind::ScAnd | ast::BinOpKind::ScOr) => {
                let is_and = matches!(binary.op, ast::BinOpKind::ScAnd);
                let left = self.visit(&binary.left, false, under)?;
                let passed = if is_and { &left.surely_false } else { &left.surely_true };
                let under = under.and(passed.not(), &left);
                let right = self.visit(&binary.right, false, &under)?;
                let trues = [left.surely_true.clone(), right.surely_true.clone()];
                let falses = [left.surely_false.clone(), right.surely_false.clone()];
                let (surely_true, surely_false) = if is_and {
                    (Formula::all(trues), Formula::any(falses))
                } else {
                    (Formula::any(trues), Formula::all(falses))
                };
                let both = left.with([right]);
                Ok(Truth {
                    surely_true,
                    surely_false,
                    ..both
                })
            }
            ast::Expr::IfExpr(choice) => {
                let test = self.visit(&choice.test_expr, false, under)?;
                let then = under.and(test.surely_false.not(), &test);
                let then = self.visit(&choice.true_expr, false, &then)?;
                let Some(otherwise) = &choice.false_expr else {
                    return Ok(then.with([test]).unknown());
                };
                let other = under.and(test.surely_true.not(), &test);
                let other = self.visit(otherwise, false, &other)?;
                let either = |then: &Formula, other: &Formula| {
                    Formula::any([
                        Formula::all([test.surely_true.clone(), then.clone()]),
                        Formula::all([test.surely_false.clone(), other.clone()]),
                        Formula::all([then.clone(), other.clone()]),
                    ])
                };
                let surely_true = either(&then.surely_true, &other.surely_true);
                let surely_false = either(&then.surely_false, &other.surely_false);
                let all = test.with([then, other]);
                Ok(Truth {
                    surely_true,
                    surely_false,
                    ..all
                })
            }
            ast::Expr::Test(test) if matches!(test.name, "defined" | "undefined") => {
                let truth = self.opaque(tree, guarded, under)?;
                let asked = analysis::path_of(&test.expr);
                let Some((path, base)) = asked.and_then(|(path, _)| base(&path).map(|base| (path, base))) else {
                    return Ok(truth);
                };
                let there = Formula::There(base.clone());
                let truth = Truth {
                    surely_true: if is_base(&path) { there } else { Formula::Never },
                    surely_false: Formula::Missing(base),
                    guards: truth.guards,
                    opaque: Vec::new(),
                };
                Ok(if test.name == "defined" { truth } else { truth.not() })
            }
            ast::Expr::Filter(filter) if matches!(filter.name, "default" | "d") => {
                let truth = self.opaque(tree, guarded, under)?;
                let asked = filter.expr.as_ref().and_then(analysis::path_of);
                let default = match filter.args.as_slice() {
                    [] => Some(false),
                    [ast::CallArg::Pos(ast::Expr::Const(constant))] => Some(constant.value.is_true()),
                    _ => None,
                };
                let (Some(base), Some(default)) = (asked.and_then(|(path, _)| base(&path)), default) else {
                    return Ok(truth);
                };
                let falls_back = Truth {
                    surely_true: Formula::Missing(base),
                    surely_false: Formula::Never,
                    guards: truth.guards,
                    opaque: Vec::new(),
                };
                Ok(if default { falls_back } else { falls_back.not() })
            }
            _ => self.opaque(tree, guarded, under),
        }
    }

    /// A part of which nothing is known but what it reads.
    fn opaque(&mut self, tree: &ast::Expr<'_>, guarded: bool, under: &Under) -> Result<Truth, ExpressionError> {
        let mut parts = Vec::new();
        self.walk.visit_one(tree, guarded, &mut parts)?;
        let mut guards = Vec::new();
        for reference in std::mem::take(&mut self.walk.references) {
            if reference.guarded {
                guards.push(reference);
            } else {
                self.read(&reference, under);
            }
        }
        for (part, guarded) in parts {
            guards.extend(self.visit(part, guarded, under)?.guards);
        }
        Ok(Truth {
            surely_true: Formula::Never,
            surely_false: Formula::Never,
            opaque: guards.clone(),
            guards,
        })
    }

    fn read(&mut self, reference: &Reference, under: &Under) {
        let Some(base) = base(&reference.path) else {
            return;
        };
        if under.guards.iter().any(|guard| guard.guards(reference)) {
            return;
        }
        // It matters only where it is missing.
        let when = under.formula.without(&base);
        match self.reads.iter_mut().find(|(path, _)| *path == base) {
            Some((_, before)) => *before = Formula::any([before.clone(), when]),
            None if when == Formula::Never => {}
            None => self.reads.push((base, when)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::expression::{Expression, Scope};

    struct Data {
        a: Option<Arc<Value>>,
        b: Option<Arc<Value>>,
        input: Arc<Value>,
    }

    impl Scope for Data {
        fn root(&self, _: &str) -> Option<Cow<'_, Value>> {
            None
        }

        fn step(&self, id: &str) -> Option<&Arc<Value>> {
            if id == "a" { self.a.as_ref() } else { self.b.as_ref() }
        }

        fn input(&self) -> Option<&Arc<Value>> {
            Some(&self.input)
        }
    }

    /// Everything that may be there, with everything that may be in it, grouped by what is there.
    fn data() -> Vec<Vec<Data>> {
        let flags = [true, false];
        let presence = flags.map(|a| flags.map(|b| (a, b)));
        let group = |(a, b): (bool, bool)| {
            let output = |there: bool, ok: bool| there.then(|| Arc::new(json!({ "ok": ok })));
            let values = flags.map(|x| flags.map(|y| flags.map(|z| (x, y, z))));
            let values = values.into_iter().flatten().flatten();
            let data = values.map(|(x, y, z)| Data {
                a: output(a, x),
                b: output(b, y),
                input: Arc::new(json!({ "x": z })),
            });
            data.collect()
        };
        presence.into_iter().flatten().map(group).collect()
    }

    /// What is said of an expression, against what it gives for all data.
    #[test]
    fn what_is_sure_holds_for_all_data_and_what_fails_does_for_some() {
        for (source, exact) in [
            ("steps.a is defined", true),
            ("steps.a is undefined or steps.a.ok", true),
            ("steps.a is defined and steps.a.ok", true),
            ("steps.a is not defined and steps.a.ok", true),
            ("steps.a is not defined or steps.b.ok", true),
            ("not (steps.a is defined and steps.b is defined)", true),
            ("not (steps.a is defined or input.x) and steps.b.ok", true),
            ("(steps.a.ok if steps.a is defined else steps.b.ok) and input.x", true),
            ("steps.a.ok if steps.b is defined or input.x else false", true),
            ("true if steps.a is defined else false", true),
            ("steps.a.ok | default(false)", true),
            ("(steps.a.ok | default(true)) or steps.b.ok", true),
            ("(steps.a.ok | default(false)) and steps.a.ok", true),
            ("(steps.a | default(none)) is not none", true),
            ("steps.a.ok == steps.b.ok", true),
            ("[steps.a is defined, steps.a.ok][0]", true),
            ("(steps.a | default(none)) is not none and steps.a.ok", true),
            // Such a guard is believed.
            ("(steps.a | default(none)) is none and steps.a.ok", false),
        ] {
            let expression = Expression::compile(source).unwrap();
            let presence = expression.presence().unwrap();
            let holds = |formula: &Formula, data: &Data| {
                let formula = Expression::compile(&formula.to_string()).unwrap();
                formula.is_true(data).unwrap()
            };
            for group in data() {
                let fine = holds(&Presence::has_all(&presence.reads), &group[0]);
                let truths: Vec<_> = group.iter().map(|data| expression.is_true(data).ok()).collect();
                assert!(!exact || fine != truths.contains(&None), "{source} fails: {presence:?}");
                for (formula, truth) in [(&presence.surely_true, true), (&presence.surely_false, false)] {
                    if fine && exact && holds(formula, &group[0]) {
                        assert!(
                            truths.iter().all(|it| *it == Some(truth)),
                            "{source} is {truth}: {presence:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_made_of_an_expression_is_one_again() {
        let many = |count: usize, word: &str| {
            let parts = (0..count).map(|n| format!("(steps.s{n} is defined {word} steps.s{n}.ok)"));
            parts.collect::<Vec<_>>().join(" and ")
        };
        for (source, known) in [
            (many(4, "and"), true),
            (many(21, "and"), false),
            (many(21, "or"), false),
        ] {
            let presence = Expression::compile(&source).unwrap().presence().unwrap();
            assert_eq!(presence.surely_false != Formula::Never, known, "{source}");
            let text = Presence::has_all(&presence.reads).to_string();
            assert!(Expression::compile(&text).is_ok(), "{text}");
        }
    }
}
