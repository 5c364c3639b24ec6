//! Between JSON and the engine's values, under a budget of bytes and depth.

use minijinja::value::{Value as EngineValue, ValueKind};
use serde_json::{Map, Number, Value};

use crate::json::MAX_DEPTH;

/// How a message about the size of data begins.
pub(super) const TOO_MUCH: &str = "more than";

/// How many bytes may still be read or produced. Counted roughly as JSON would be.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    pub(super) fn charge(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| format!("{TOO_MUCH} {} KiB of data", self.limit / 1024))?;
        Ok(())
    }

    /// Charges a value that is about to be copied.
    pub(super) fn charge_value(&mut self, value: &Value) -> Result<(), String> {
        self.charge_nested(value, 0)
    }

    fn charge_nested(&mut self, value: &Value, depth: usize) -> Result<(), String> {
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.charge(8),
            Value::String(text) => self.charge(text.len() + 2),
            Value::Array(items) => {
                self.charge(2 + items.len())?;
                items.iter().try_for_each(|item| self.charge_nested(item, depth + 1))
            }
            Value::Object(entries) => {
                self.charge(2)?;
                entries.iter().try_for_each(|(key, item)| {
                    self.charge(key.len() + 4)?;
                    self.charge_nested(item, depth + 1)
                })
            }
        }
    }
}

fn too_deep() -> String {
    format!("the value is nested deeper than {MAX_DEPTH} levels")
}

pub(super) fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    }
}

pub(super) fn to_engine(value: &Value, budget: &mut Budget) -> Result<EngineValue, String> {
    budget.charge_value(value)?;
    Ok(nested_to_engine(value))
}

/// Recursion is bounded by the charge that went before.
fn nested_to_engine(value: &Value) -> EngineValue {
    match value {
        Value::Null => EngineValue::from(()),
        Value::Bool(truth) => EngineValue::from(*truth),
        Value::Number(number) => {
            if let Some(n) = number.as_i64() {
                EngineValue::from(n)
            } else if let Some(n) = number.as_u64() {
                EngineValue::from(n)
            } else {
                EngineValue::from(number.as_f64())
            }
        }
        Value::String(text) => EngineValue::from(text.as_str()),
        Value::Array(items) => items.iter().map(nested_to_engine).collect(),
        Value::Object(entries) => {
            EngineValue::from_pairs(entries.iter().map(|(key, item)| (key.as_str(), nested_to_engine(item))))
        }
    }
}

pub(super) fn to_json(value: &EngineValue, budget: &mut Budget) -> Result<Value, String> {
    nested_to_json(value, budget, 0)
}

fn nested_to_json(value: &EngineValue, budget: &mut Budget, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err(too_deep());
    }
    budget.charge(8)?;
    match value.kind() {
        ValueKind::None => Ok(Value::Null),
        ValueKind::Bool => Ok(Value::Bool(value.is_true())),
        ValueKind::Number => number(value).map(Value::Number),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            budget.charge(text.len())?;
            if text.contains('\0') {
                return Err("the result holds a NUL character".to_owned());
            }
            Ok(Value::String(text.to_owned()))
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items = value.try_iter().map_err(|error| error.to_string())?;
            let mut array = Vec::new();
            for item in items {
                array.push(nested_to_json(&item, budget, depth + 1)?);
            }
            Ok(Value::Array(array))
        }
        ValueKind::Map => {
            let mut object = Map::new();
            for key in value.try_iter().map_err(|error| error.to_string())? {
                let Some(name) = key.as_str() else {
                    return Err(format!("the key {key} of an object is not a string"));
                };
                budget.charge(name.len() + 4)?;
                if name.contains('\0') {
                    return Err("a key in the result holds a NUL character".to_owned());
                }
                let item = value.get_item(&key).map_err(|error| error.to_string())?;
                object.insert(name.to_owned(), nested_to_json(&item, budget, depth + 1)?);
            }
            Ok(Value::Object(object))
        }
        ValueKind::Undefined => Err("a part of the result is undefined".to_owned()),
        kind => Err(format!("the result is {kind}, which JSON cannot hold")),
    }
}

fn number(value: &EngineValue) -> Result<Number, String> {
    if value.is_integer() {
        if let Ok(n) = i64::try_from(value.clone()) {
            return Ok(Number::from(n));
        }
        if let Ok(n) = u64::try_from(value.clone()) {
            return Ok(Number::from(n));
        }
        return Err("the result is a whole number beyond 64 bits".to_owned());
    }
    f64::try_from(value.clone())
        .ok()
        .and_then(Number::from_f64)
        .ok_or_else(|| "the result is not a finite number".to_owned())
}
