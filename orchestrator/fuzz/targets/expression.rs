//! Any expression over any values: compiled, and evaluated within its fuel. What stands before the first NUL is the source,
//! what follows the values as JSON.
#![no_main]

use std::borrow::Cow;
use std::sync::Arc;

use knarr_core::expression::{Expression, MAX_VALUE_BYTES, Scope, Template};
use knarr_core::json;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

struct Values(Arc<Value>);

impl Scope for Values {
    fn root(&self, name: &str) -> Option<Cow<'_, Value>> {
        match name {
            "vars" | "item" | "error" | "run" | "signal" => Some(Cow::Borrowed(&self.0)),
            "index" => Some(Cow::Owned(json!(3))),
            _ => None,
        }
    }

    fn step(&self, id: &str) -> Option<&Arc<Value>> {
        (id != "unknown").then_some(&self.0)
    }

    fn input(&self) -> Option<&Arc<Value>> {
        Some(&self.0)
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0);
    let Ok(source) = std::str::from_utf8(parts.next().unwrap_or_default()) else {
        return;
    };
    let values = parts.next().and_then(|values| json::parse(values, &json::Limits::default()).ok());
    let scope = Values(Arc::new(values.unwrap_or_else(|| {
        json!({ "a": 1, "b": [1, 2.5, "x", null], "c": { "d": "text" }, "n": -9_223_372_036_854_775_808_i64 })
    })));
    if let Ok(expression) = Expression::compile(source) {
        let _ = expression.references();
        let value = expression.evaluate(&scope);
        assert_eq!(value, expression.evaluate(&scope), "the same over the same");
        if let Ok(value) = value {
            assert!(value.to_string().len() <= 8 * MAX_VALUE_BYTES, "more than an expression may produce");
            json::check(&value, &json::Limits::default()).expect("what an expression gives can be stored");
        }
        let _ = expression.is_true(&scope);
    }
    if let Ok(template) = Template::compile(&json!({ "a": source, "b": [format!("x${{ {source} }}y")] })) {
        let _ = template.evaluate(&scope);
    }
});
