//! The expression language behind one small interface: fuel, size limits and reference analysis.
//!
//! The language is minijinja's expressions (never its templates). Everything the rest of the code knows of it is here.
//!
//! **Invariant:** evaluation is a function of the scope alone and is bounded: by fuel, by the bytes it may read and by the
//! bytes it may produce. A path that leads nowhere is an error unless the expression says what to do without it
//! (`| default(…)`, `is defined`); it is never silently null.
//!
//! What this module does not know: which roots and steps exist. That is the definition's to check, by [`Expression::references`].

mod analysis;
mod convert;
mod environment;
mod filters;
mod foreign;
mod path;
mod presence;
mod projection;
mod template;

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use serde_json::Value;

pub use environment::{FILTERS, FUNCTIONS, TESTS};
pub use path::{Path, Segment};
pub(crate) use presence::{Formula, Presence};
pub use template::{Part, Template, split};

use convert::Budget;
use projection::Projection;

/// Longest source of one expression, in bytes.
pub const MAX_SOURCE_BYTES: usize = 2 * 1024;
/// Names, values, operators and brackets of one expression; each may be a level of its tree.
pub const MAX_TOKENS: usize = 400;
/// What one expression may read (as JSON, about) and what it may produce.
pub const MAX_VALUE_BYTES: usize = 256 * 1024;
/// What a whole template may produce, in bytes of JSON, about.
pub const MAX_TEMPLATE_BYTES: usize = 2 * 1024 * 1024;
/// Steps of the evaluator; one is about one operation or a few bytes produced.
pub const FUEL: u64 = 50_000;
/// The version of the language, stored with every definition: what an expression means never changes under a version.
pub const VERSION: u32 = 1;

/// Names an expression can see. Implemented by the run's state.
pub trait Scope {
    /// The value of a root name other than `steps` and `input` (`vars`, `error`, `run`, a loop's item …).
    fn root(&self, name: &str) -> Option<Cow<'_, Value>>;
    /// `steps.<id>`. `None` = the step has no output (it did not run, or its outcome is unknown): paths into it are
    /// undefined.
    fn step(&self, id: &str) -> Option<&Arc<Value>>;
    /// The run's input; shared, so that `${ input }` copies nothing.
    fn input(&self) -> Option<&Arc<Value>>;
}

/// Why an expression gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{source_text}`")]
pub struct ExpressionError {
    pub source_text: String,
    pub message: String,
    /// Where in `source_text`, in bytes, if known.
    pub range: Option<Range<usize>>,
    /// The nearest right name, where a name is wrong.
    pub suggestion: Option<&'static str>,
    /// What to write instead, where that can be told.
    pub remedy: Option<String>,
}

impl ExpressionError {
    /// Whether it is the size of the data that is wrong, and not the expression.
    pub fn is_about_size(&self) -> bool {
        self.message.starts_with(convert::TOO_MUCH)
    }

    fn new(source: &str, message: impl Into<String>) -> Self {
        Self {
            source_text: source.to_owned(),
            message: message.into(),
            range: None,
            suggestion: None,
            remedy: None,
        }
    }

    fn at(mut self, range: Range<usize>) -> Self {
        self.range = Some(range);
        self
    }
}

/// One path an expression reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub path: Path,
    /// The expression says what to do when the path leads nowhere.
    pub guarded: bool,
    /// Where in the source, in bytes.
    pub range: Range<usize>,
}

impl Reference {
    /// It asks whether a part of the other's way is there (`steps.x is defined`).
    pub(crate) fn guards(&self, other: &Self) -> bool {
        self.guarded
            && self.path.root == other.path.root
            && other.path.segments.starts_with(&self.path.segments)
            && !(self.path.segments.is_empty() && self.path.root.as_ref() == "steps")
    }
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    source: Arc<str>,
    references: Vec<Reference>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// A bare path: resolved on the JSON itself.
    Path(Path),
    /// `path | default(constant)`, the form every undo uses.
    PathOr(Path, Value),
    Program {
        program: Program,
        projection: Projection,
    },
}

struct Program(minijinja::Expression<'static, 'static>);

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Program")
    }
}

/// A value an expression gave: whole and shared, a part of the scope, or made by the expression.
enum Outcome<'a> {
    Shared(&'a Arc<Value>),
    Seen(Cow<'a, Value>),
}

impl Expression {
    /// Compiles the text between `${` and `}`, or a bare condition.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        if source.len() > MAX_SOURCE_BYTES {
            let message = format!(
                "is {} bytes long; an expression may have {MAX_SOURCE_BYTES}",
                source.len()
            );
            // Too long to be repeated in a message.
            let start: String = source.chars().take(60).collect();
            return Err(ExpressionError::new(&format!("{start}…"), message));
        }
        let analysis = analysis::analyse(source)?;
        let kind = match analysis.shape {
            analysis::Shape::Path(path) => Kind::Path(path),
            analysis::Shape::PathOr(path, default) => Kind::PathOr(path, default),
            analysis::Shape::Other => Kind::Program {
                program: Program(
                    environment::shared()
                        .compile_expression_owned(source.to_owned())
                        .map_err(|error| analysis::from_engine(source, &error))?,
                ),
                projection: Projection::of(&analysis.references),
            },
        };
        Ok(Self {
            source: Arc::from(source),
            references: analysis.references,
            kind,
        })
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// Every path read, in the order of the source.
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// What it does where something that it reads is missing, whatever the data.
    pub(crate) fn presence(&self) -> Result<Presence, ExpressionError> {
        let mut presence = Presence::of(&self.source, &self.references)?;
        let asked: Option<Vec<_>> = self
            .references
            .iter()
            .map(|it| presence::base(&it.path).filter(|_| it.guarded))
            .collect();
        let unknown = presence.surely_true == Formula::Never && presence.surely_false == Formula::Never;
        // Where all that it reads is missing, there is nothing that its value could hang on.
        if let Some(asked) = asked.filter(|asked| unknown && !asked.is_empty())
            && let Ok(truth) = self.is_true(&Nothing)
        {
            let missing = Formula::all(asked.into_iter().map(Formula::Missing));
            *(if truth {
                &mut presence.surely_true
            } else {
                &mut presence.surely_false
            }) = missing;
        }
        Ok(presence)
    }

    pub fn evaluate(&self, scope: &dyn Scope) -> Result<Arc<Value>, ExpressionError> {
        let mut budget = Budget::new(MAX_TEMPLATE_BYTES);
        self.evaluate_shared(scope, &mut budget)
    }

    /// Truth as in the language: null, false, zero and what is empty are false.
    pub fn is_true(&self, scope: &dyn Scope) -> Result<bool, ExpressionError> {
        Ok(match &self.kind {
            Kind::Program { program, projection } => self.run(program, projection, scope)?.is_true(),
            _ => match self.outcome(scope)? {
                Outcome::Shared(value) => convert::is_true(value),
                Outcome::Seen(value) => convert::is_true(&value),
            },
        })
    }

    fn evaluate_shared(&self, scope: &dyn Scope, budget: &mut Budget) -> Result<Arc<Value>, ExpressionError> {
        match self.outcome(scope)? {
            Outcome::Shared(value) => Ok(Arc::clone(value)),
            Outcome::Seen(value) => self.owned(value, budget).map(Arc::new),
        }
    }

    fn evaluate_owned(&self, scope: &dyn Scope, budget: &mut Budget) -> Result<Value, ExpressionError> {
        match self.outcome(scope)? {
            Outcome::Shared(value) => self.owned(Cow::Borrowed(value.as_ref()), budget),
            Outcome::Seen(value) => self.owned(value, budget),
        }
    }

    fn owned(&self, value: Cow<'_, Value>, budget: &mut Budget) -> Result<Value, ExpressionError> {
        budget.charge_value(&value).map_err(|message| self.error(message))?;
        Ok(value.into_owned())
    }

    fn outcome<'a>(&self, scope: &'a dyn Scope) -> Result<Outcome<'a>, ExpressionError>
    where
        Self: 'a,
    {
        match &self.kind {
            Kind::Path(path) => path
                .resolve(scope)
                .ok_or_else(|| self.error(format!("`{path}` leads to nothing"))),
            Kind::PathOr(path, default) => Ok(path
                .resolve(scope)
                .unwrap_or_else(|| Outcome::Seen(Cow::Owned(default.clone())))),
            Kind::Program { program, projection } => {
                let value = self.run(program, projection, scope)?;
                let mut budget = Budget::new(MAX_VALUE_BYTES);
                convert::to_json(&value, &mut budget)
                    .map(|value| Outcome::Seen(Cow::Owned(value)))
                    .map_err(|message| self.error(message))
            }
        }
    }

    fn run(
        &self,
        program: &Program,
        projection: &Projection,
        scope: &dyn Scope,
    ) -> Result<minijinja::Value, ExpressionError> {
        let mut budget = Budget::new(MAX_VALUE_BYTES);
        let context = projection
            .build(scope, &mut budget)
            .map_err(|message| self.error(message))?;
        let value = program
            .0
            .eval(context)
            .map_err(|error| analysis::from_engine(&self.source, &error))?;
        if value.is_undefined() {
            return Err(self.error("the result is undefined".to_owned()));
        }
        Ok(value)
    }

    fn error(&self, message: String) -> ExpressionError {
        ExpressionError::new(&self.source, message)
    }
}

struct Nothing;

impl Scope for Nothing {
    fn root(&self, _: &str) -> Option<Cow<'_, Value>> {
        None
    }

    fn step(&self, _: &str) -> Option<&Arc<Value>> {
        None
    }

    fn input(&self) -> Option<&Arc<Value>> {
        None
    }
}

#[cfg(test)]
mod tests;
