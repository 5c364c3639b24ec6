//! Search attributes: what the definition computes from the start, under what was given with the start.

use std::collections::BTreeMap;

use serde_json::Value;

use super::input::Rejected;
use super::limits::{MAX_SEARCH_ATTRIBUTE_BYTES, MAX_SEARCH_ATTRIBUTE_NAME_BYTES, MAX_SEARCH_ATTRIBUTES};
use super::scope::RunScope;
use crate::definition::plan::Plan;

/// All attributes of a new run. One that is `null` is left out.
pub(super) fn collect(
    plan: &Plan,
    scope: &RunScope<'_>,
    given: &BTreeMap<String, Value>,
) -> Result<BTreeMap<String, Value>, Rejected> {
    let mut attributes = BTreeMap::new();
    for (name, template) in &plan.search_attributes {
        if !given.contains_key(name) {
            let value = scope
                .evaluate(Some(template))
                .map_err(|error| Rejected::Expression(format!("the search attribute `{name}`: {}", error.message)))?;
            attributes.insert(name.clone(), Value::clone(&value));
        }
    }
    attributes.extend(given.iter().map(|(name, value)| (name.clone(), value.clone())));
    attributes.retain(|_, value| !value.is_null());
    check(&attributes)?;
    Ok(attributes)
}

/// Holds attributes to what the store can keep and index.
pub fn check(attributes: &BTreeMap<String, Value>) -> Result<(), Rejected> {
    let refused = |name: &str, problem: String| Rejected::SearchAttribute {
        name: super::limits::truncated(name, MAX_SEARCH_ATTRIBUTE_NAME_BYTES).to_owned(),
        problem,
    };
    if let Some(name) = attributes.keys().nth(MAX_SEARCH_ATTRIBUTES) {
        return Err(refused(
            name,
            format!("is one too many: a run has at most {MAX_SEARCH_ATTRIBUTES}"),
        ));
    }
    for (name, value) in attributes {
        if name.is_empty() || name.len() > MAX_SEARCH_ATTRIBUTE_NAME_BYTES || name.contains('\0') {
            let problem = format!("needs a name of 1 to {MAX_SEARCH_ATTRIBUTE_NAME_BYTES} bytes without NUL");
            return Err(refused(name, problem));
        }
        let scalars = match value {
            Value::Array(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        for scalar in scalars {
            check_scalar(scalar).map_err(|problem| refused(name, problem.to_owned()))?;
        }
        if value.to_string().len() > MAX_SEARCH_ATTRIBUTE_BYTES {
            let problem = format!("is larger than {MAX_SEARCH_ATTRIBUTE_BYTES} bytes");
            return Err(refused(name, problem));
        }
    }
    Ok(())
}

fn check_scalar(value: &Value) -> Result<(), &'static str> {
    match value {
        Value::Bool(_) => Ok(()),
        Value::Number(number) if number.as_f64().is_some_and(f64::is_finite) => Ok(()),
        Value::Number(_) => Err("holds a number out of range"),
        Value::String(text) if text.contains('\0') => Err("holds the NUL character"),
        Value::String(_) => Ok(()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err("is neither a scalar nor a list of scalars"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(name: &str, value: Value) -> BTreeMap<String, Value> {
        BTreeMap::from([(name.to_owned(), value)])
    }

    #[test]
    fn scalars_and_lists_of_scalars_pass() {
        for value in [
            json!("x"),
            json!(1.5),
            json!(true),
            json!([]),
            json!(["a", 1, false]),
            json!(u64::MAX),
        ] {
            assert_eq!(check(&one("a", value.clone())), Ok(()), "{value}");
        }
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for value in [json!({}), json!([[1]]), json!([null]), json!("a\0b"), json!(["\0"])] {
            let refused = check(&one("total", value.clone()));
            assert!(
                matches!(&refused, Err(Rejected::SearchAttribute { name, .. }) if name == "total"),
                "{value}: {refused:?}"
            );
        }
        for name in ["", "a\0", &"n".repeat(MAX_SEARCH_ATTRIBUTE_NAME_BYTES + 1)] {
            assert!(check(&one(name, json!(1))).is_err());
        }
    }

    #[test]
    fn limits_hold_at_the_limit_and_one_past_it() {
        let text = |length: usize| one("a", json!("x".repeat(length)));
        assert!(check(&text(MAX_SEARCH_ATTRIBUTE_BYTES - 2)).is_ok());
        assert!(check(&text(MAX_SEARCH_ATTRIBUTE_BYTES - 1)).is_err());
        let many = |count: usize| (0..count).map(|n| (format!("a{n}"), json!(n))).collect();
        assert!(check(&many(MAX_SEARCH_ATTRIBUTES)).is_ok());
        assert!(check(&many(MAX_SEARCH_ATTRIBUTES + 1)).is_err());
    }
}
