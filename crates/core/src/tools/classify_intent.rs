//! `classify_intent`: what somebody wants who has written a text.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::definition::{Tool, ToolDefinition};
use super::error::ToolFailure;
use super::run::{Question, ToolRun};
use crate::id::ToolName;

/// The longest text, in characters.
const MAX_TEXT_CHARS: usize = 10_000;
/// The longest answer: a name and a number, and some room for a model that says more.
const MAX_TOKENS: u32 = 200;
/// What is told apart where the caller names nothing.
const USUAL_CATEGORIES: [&str; 6] = ["question", "request", "complaint", "feedback", "greeting", "other"];

/// Says which of some categories a text belongs to.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClassifyIntent;

const INSTRUCTIONS: &str = "You classify texts by what their author wants. The data is an object with the members \"categories\", each \
with a name and perhaps a description, and \"text\". Choose the one category that fits best, and say how sure you are, from 0 to 1. \
Form of the answer: {\"category\": \"the name of a category\", \"confidence\": 0.8}";

/// A category is a name, or a name with a description.
fn names(params: &Value) -> Vec<&str> {
    match params["categories"].as_array() {
        Some(categories) => {
            categories.iter().filter_map(|category| category.as_str().or_else(|| category["name"].as_str())).collect()
        }
        None => USUAL_CATEGORIES.to_vec(),
    }
}

fn data(params: &Value) -> Value {
    let categories = match params["categories"].as_array() {
        Some(categories) => json!(categories),
        None => json!(USUAL_CATEGORIES),
    };
    json!({ "categories": categories, "text": params["text"] })
}

#[async_trait]
impl Tool for ClassifyIntent {
    fn definition(&self) -> ToolDefinition {
        let name = json!({ "type": "string", "minLength": 1, "maxLength": 100, "pattern": "\\S" });
        ToolDefinition {
            name: ToolName::new("classify_intent").expect("it keeps to the alphabet"),
            description:
                "Says which of some categories, your own or the usual ones, a text belongs to, and how sure that is."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "text": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "pattern": "\\S" },
                    "categories": {
                        "type": "array",
                        "items": { "anyOf": [name, {
                            "type": "object",
                            "properties": { "name": name, "description": { "type": "string", "maxLength": 500 } },
                            "required": ["name"],
                            "additionalProperties": false,
                        }] },
                        "minItems": 2,
                        "maxItems": 50,
                        "uniqueItems": true,
                        "default": USUAL_CATEGORIES,
                    },
                },
                "required": ["text"],
                "additionalProperties": false,
            }),
            output: json!({
                "type": "object",
                "properties": {
                    "category": { "type": "string" },
                    "confidence": { "type": "number", "minimum": 0, "maximum": 1 },
                },
                "required": ["category", "confidence"],
                "additionalProperties": false,
            }),
            timeout: Duration::from_secs(30),
            permissions: Vec::new(),
            takes_documents: false,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        Question { instructions: INSTRUCTIONS, data: &[data(params)], max_tokens: MAX_TOKENS }.estimate()
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        let (data, names) = ([data(params)], names(params));
        let question = Question { instructions: INSTRUCTIONS, data: &data, max_tokens: MAX_TOKENS };
        run.ask_for(question, |answer| read(answer, &names)).await
    }
}

/// The category that a model has chosen, if it is one of those, and its confidence within 0 and 1.
fn read(answer: &Value, names: &[&str]) -> Result<Value, String> {
    let chosen = answer["category"].as_str().ok_or("it has no text \"category\"")?.trim();
    // Letter for letter first: two categories may differ in case alone.
    let exact = names.iter().find(|name| name.trim() == chosen);
    let category = exact.or_else(|| names.iter().find(|name| name.trim().eq_ignore_ascii_case(chosen)));
    let category = category.ok_or("its \"category\" is none of the categories")?;
    let confidence = answer["confidence"].as_f64().ok_or("it has no number \"confidence\"")?;
    Ok(json!({ "category": category, "confidence": confidence.clamp(0.0, 1.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_category_is_one_of_those_that_were_given() {
        let names = ["Billing", "billing", "Tech support"];
        let category = |answer: Value| read(&answer, &names).map(|read| read["category"].as_str().unwrap().to_owned());
        assert_eq!(category(json!({ "category": "billing", "confidence": 1 })), Ok("billing".to_owned()));
        assert_eq!(category(json!({ "category": " tech SUPPORT ", "confidence": 1 })), Ok("Tech support".to_owned()));
        for bad in [
            json!({ "category": "sales", "confidence": 1 }),
            json!({ "category": "billing" }),
            json!({ "category": "billing", "confidence": "high" }),
            json!({ "category": ["billing"], "confidence": 1 }),
            json!({ "confidence": 1 }),
        ] {
            assert!(category(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn categories_may_have_descriptions() {
        let params = json!({ "text": "x", "categories": ["a", { "name": "b", "description": "the second" }] });
        assert_eq!(names(&params), ["a", "b"]);
        assert_eq!(names(&json!({ "text": "x" })), USUAL_CATEGORIES);
        assert_eq!(data(&params)["categories"], params["categories"]);
    }

    proptest! {
        #[test]
        fn confidence_is_bounded(confidence in proptest::num::f64::NORMAL) {
            let read = read(&json!({ "category": "a", "confidence": confidence }), &["a"]).unwrap();
            prop_assert!((0.0..=1.0).contains(&read["confidence"].as_f64().unwrap()));
        }
    }
}
