//! JSON Schemas.

use serde_json::Value;
use thiserror::Error;

/// How many violations are told at most. A value of many wrong members is short to write, and each violation is long.
const MAX_VIOLATIONS: usize = 64;
/// How much of a violation's sentence is told, in characters: names of unknown members are as long as their author likes.
const MAX_MESSAGE_CHARS: usize = 300;

/// A text that is no JSON Schema.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("not a JSON Schema: {0}")]
pub struct InvalidSchema(String);

/// A place where a value breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) to the place; empty for the value itself.
    pub pointer: String,
    /// What is wrong there. It never quotes the value.
    pub message: String,
}

impl Violation {
    /// Something that is wrong at `pointer`.
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

/// A JSON Schema (2020-12), ready to check values. It refers to nothing outside itself.
#[derive(Debug)]
pub struct Schema {
    validator: jsonschema::Validator,
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// [`InvalidSchema`].
    pub fn compile(schema: &Value) -> Result<Self, InvalidSchema> {
        let validator = jsonschema::draft202012::new(schema).map_err(|error| InvalidSchema(error.to_string()))?;
        Ok(Self { validator })
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Every [`Violation`], at most 64.
    pub fn check(&self, value: &Value) -> Result<(), Vec<Violation>> {
        let violations: Vec<Violation> = self
            .validator
            .iter_errors(value)
            .take(MAX_VIOLATIONS)
            .map(|error| Violation {
                pointer: clipped(error.instance_path().as_str()),
                message: clipped(&error.masked_with("the value").to_string()),
            })
            .collect();
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

fn clipped(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        Schema::compile(&json!({
            "type": "object",
            "properties": {
                "text": { "type": "string", "maxLength": 5 },
                "list": { "type": "array", "items": { "type": "object", "required": ["a/b"], "properties": { "a/b": { "type": "integer" } } } },
            },
            "required": ["text"],
            "additionalProperties": false,
        }))
        .unwrap()
    }

    #[test]
    fn every_violation_is_named_with_its_place_and_without_the_value() {
        let value = json!({ "text": "confidential", "list": [{ "a/b": 1 }, { "a/b": "confidential" }, {}], "more": 1 });
        let violations = schema().check(&value).unwrap_err();
        let mut places: Vec<&str> = violations.iter().map(|violation| violation.pointer.as_str()).collect();
        places.sort_unstable();
        assert_eq!(places, ["", "/list/1/a~1b", "/list/2", "/text"]);
        assert!(violations.iter().all(|violation| !violation.message.contains("confidential")), "{violations:?}");
        assert!(schema().check(&json!({ "text": "fünf5" })).is_ok(), "characters count, not bytes");
    }

    #[test]
    fn a_value_with_a_thousand_faults_has_a_short_answer() {
        let value = json!({ "text": "ok", "list": vec![json!({}); 1000], "x".repeat(100_000): 1 });
        let violations = schema().check(&value).unwrap_err();
        assert_eq!(violations.len(), MAX_VIOLATIONS);
        assert!(violations.iter().all(|violation| violation.message.chars().count() <= MAX_MESSAGE_CHARS));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for bad in [
            json!({ "type": "strnig" }),
            json!({ "required": "text" }),
            json!({ "$ref": "https://example.com/a.json" }),
            json!(3),
        ] {
            assert!(Schema::compile(&bad).is_err(), "{bad}");
        }
    }
}
