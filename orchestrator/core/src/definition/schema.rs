//! JSON Schemas of inputs. Nothing is ever fetched: a reference that leads out of the schema is an error.

use std::sync::Arc;

use serde_json::Value;

use super::plan::InputSchema;

/// Longest message about an input, in characters; the values it quotes may be large.
const MAX_MESSAGE_CHARS: usize = 300;

pub(super) fn compile(schema: &Value) -> Result<InputSchema, String> {
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err("a JSON Schema is a mapping".to_owned());
    }
    jsonschema::options()
        // Linear in the text, whatever the pattern.
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map(|validator| InputSchema(Arc::new(validator)))
        .map_err(|error| describe(&error))
}

impl InputSchema {
    /// The first error, with the JSON pointer of what it is about.
    pub fn validate(&self, input: &Value) -> Result<(), String> {
        self.0.validate(input).map_err(|error| describe(&error))
    }
}

fn describe(error: &jsonschema::ValidationError<'_>) -> String {
    let mut message = error.to_string();
    if let Some((at, _)) = message.char_indices().nth(MAX_MESSAGE_CHARS) {
        message.truncate(at);
        message.push('…');
    }
    let pointer = error.instance_path().to_string();
    if pointer.is_empty() {
        message
    } else {
        format!("at `{pointer}`: {message}")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_error_names_its_place() {
        let schema = compile(&json!({
            "type": "object",
            "required": ["customer"],
            "properties": {"items": {"type": "array", "items": {"type": "object", "properties": {"n": {"type": "integer"}}}}}
        }))
        .unwrap();
        assert_eq!(schema.validate(&json!({"customer": 1})), Ok(()));
        assert_eq!(
            schema.validate(&json!({})),
            Err("\"customer\" is a required property".to_owned())
        );
        assert_eq!(
            schema.validate(&json!({"customer": 1, "items": [{"n": 1}, {"n": "x"}]})),
            Err("at `/items/1/n`: \"x\" is not of type \"integer\"".to_owned())
        );
        let long = schema
            .validate(&json!({"customer": 1, "items": "é".repeat(10_000)}))
            .unwrap_err();
        assert!(long.len() < 1_000);
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for schema in [
            json!([]),
            json!("x"),
            json!({"type": "nonsense"}),
            json!({"$ref": "https://example.com/schema.json"}),
            json!({"$ref": "#/nowhere"}),
            json!({"pattern": "("}),
        ] {
            assert!(compile(&schema).is_err(), "{schema}");
        }
    }
}
