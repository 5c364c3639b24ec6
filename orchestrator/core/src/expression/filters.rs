//! The few filters of our own: pure, and bounded by what an expression may read.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Most items of a list and entries of an object: the engine's fuel does not see what a filter does.
const MAX_ITEMS: usize = 10_000;

fn too_many(filter: &str) -> Error {
    refuse(format!("{filter}: more than {MAX_ITEMS} items"))
}

fn refuse(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// `input.items | sum_by('price')`: the sum of one attribute (a dotted path) over a list; whole numbers stay whole.
pub(super) fn sum_by(list: &Value, attribute: &str) -> Result<Value, Error> {
    let mut whole: i128 = 0;
    let mut fraction: f64 = 0.0;
    let mut has_fraction = false;
    for (index, item) in list.try_iter()?.enumerate() {
        if index == MAX_ITEMS {
            return Err(too_many("sum_by"));
        }
        let mut value = item;
        for name in attribute.split('.') {
            value = value.get_attr(name)?;
        }
        if value.kind() != ValueKind::Number {
            return Err(refuse(format!("sum_by: `{attribute}` of item {index} is not a number")));
        }
        match i64::try_from(value.clone()) {
            Ok(n) if value.is_integer() => whole += i128::from(n),
            _ => {
                has_fraction = true;
                fraction += f64::try_from(value)?;
            }
        }
    }
    if has_fraction {
        // Above 2^53 this rounds, as every sum of floating-point numbers does.
        Ok(Value::from(whole as f64 + fraction))
    } else {
        Ok(Value::from(whole))
    }
}

/// `a | merge(b)`: the entries of both objects; where both have a key, the right one's value.
pub(super) fn merge(left: &Value, right: &Value) -> Result<Value, Error> {
    for value in [left, right] {
        if value.kind() != ValueKind::Map {
            return Err(refuse(format!("merge joins two objects, not {}", value.kind())));
        }
    }
    if left.len().unwrap_or_default() + right.len().unwrap_or_default() > MAX_ITEMS {
        return Err(too_many("merge"));
    }
    let mut entries = Vec::new();
    for key in left.try_iter()? {
        let value = match right.get_item(&key)? {
            value if value.is_undefined() => left.get_item(&key)?,
            value => value,
        };
        entries.push((key, value));
    }
    for key in right.try_iter()? {
        if left.get_item(&key)?.is_undefined() {
            let value = right.get_item(&key)?;
            entries.push((key, value));
        }
    }
    Ok(Value::from_pairs(entries))
}

/// `'1h30m' | parse_duration`: seconds; whole ones as a whole number.
pub(super) fn parse_duration(text: &str) -> Result<Value, Error> {
    let span = crate::definition::duration::parse(text).map_err(|error| refuse(format!("parse_duration: {error}")))?;
    Ok(if span.0.is_multiple_of(1_000_000) {
        Value::from(span.0 / 1_000_000)
    } else {
        Value::from(span.0 as f64 / 1e6)
    })
}
