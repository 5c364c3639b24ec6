//! The expression language behind one small interface: fuel, size limits and reference analysis.
//!
//! The language is minijinja's expressions (never its templates). Everything the rest of the code knows of it is here.

use serde_json::Value;

/// Names an expression can see. Implemented by the run's state.
pub trait Scope {
    /// The value of a root name other than `steps` and `input` (`vars`, `error`, `run`, a loop's item …).
    fn root(&self, name: &str) -> Option<Value>;
    /// `steps.<id>`: borrowed, because outputs may be large. `None` = the step has no output (it did not run, or its
    /// outcome is unknown): paths into it are undefined.
    fn step(&self, id: &str) -> Option<&Value>;
    /// `input`, borrowed for the same reason.
    fn input(&self) -> Option<&Value>;
}

/// Why an expression gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} in `{source_text}`")]
pub struct ExpressionError {
    pub source_text: String,
    pub message: String,
}

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {}

impl Expression {
    /// Compiles the text between `${` and `}`, or a bare condition.
    pub fn compile(source: &str) -> Result<Self, ExpressionError> {
        Err(ExpressionError {
            source_text: source.to_owned(),
            message: "not compiled".to_owned(),
        })
    }

    pub fn evaluate(&self, _scope: &dyn Scope) -> Result<Value, ExpressionError> {
        Ok(Value::Null)
    }

    pub fn is_true(&self, _scope: &dyn Scope) -> Result<bool, ExpressionError> {
        Ok(false)
    }
}

/// A JSON structure whose leaves may hold expressions.
#[derive(Debug)]
pub struct Template {}

impl Template {
    pub fn compile(structure: &Value) -> Result<Self, ExpressionError> {
        Err(ExpressionError {
            source_text: structure.to_string(),
            message: "not compiled".to_owned(),
        })
    }

    pub fn evaluate(&self, _scope: &dyn Scope) -> Result<Value, ExpressionError> {
        Ok(Value::Null)
    }
}
