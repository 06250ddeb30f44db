//! `extract_entities`: who and what a text names, and where.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::definition::{Tool, ToolDefinition};
use super::error::ToolFailure;
use super::run::{Question, ToolRun};
use crate::id::ToolName;

/// The longest text, in characters.
const MAX_TEXT_CHARS: usize = 20_000;
/// The most entities of an answer.
const MAX_ENTITIES: usize = 500;
/// The longest entity, in characters.
const MAX_ENTITY_CHARS: usize = 200;
/// What is looked for where the caller names nothing.
const USUAL_TYPES: [&str; 6] = ["person", "organization", "location", "date", "money", "product"];
/// Room for the answer: about a hundred entities.
const MAX_TOKENS: u32 = 2000;

/// Finds the entities that a text names.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExtractEntities;

fn types(params: &Value) -> Vec<&str> {
    match params["types"].as_array() {
        Some(types) => types.iter().filter_map(Value::as_str).collect(),
        None => USUAL_TYPES.to_vec(),
    }
}

const INSTRUCTIONS: &str = "You find the entities that a text names. The data is an object with the members \"types\", the types of \
entities that are wanted, and \"text\". List each mention in the order of the text, spelled exactly as the text spells it. Form of \
the answer: {\"entities\": [{\"text\": \"Ada Lovelace\", \"type\": \"person\"}]}";

fn data(params: &Value) -> Value {
    json!({ "types": types(params), "text": params["text"] })
}

#[async_trait]
impl Tool for ExtractEntities {
    fn definition(&self) -> ToolDefinition {
        ToolDefinition {
            name: ToolName::new("extract_entities").expect("it keeps to the alphabet"),
            description:
                "Finds the persons, places, dates and other entities that a text names, with their places in it."
                    .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "text": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "pattern": "\\S" },
                    "types": {
                        "type": "array",
                        "items": { "type": "string", "minLength": 1, "maxLength": 50 },
                        "minItems": 1,
                        "maxItems": 20,
                        "uniqueItems": true,
                        "default": USUAL_TYPES,
                    },
                },
                "required": ["text"],
                "additionalProperties": false,
            }),
            output: json!({
                "type": "object",
                "properties": {
                    "entities": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "text": { "type": "string", "minLength": 1 },
                                "type": { "type": "string" },
                                "start": { "type": "integer", "minimum": 0, "description": "In characters of the text." },
                                "end": { "type": "integer", "minimum": 1, "description": "The first character after it." },
                            },
                            "required": ["text", "type", "start", "end"],
                            "additionalProperties": false,
                        },
                    },
                },
                "required": ["entities"],
                "additionalProperties": false,
            }),
            timeout: Duration::from_secs(60),
            permissions: Vec::new(),
            takes_documents: false,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        Question { instructions: INSTRUCTIONS, data: &[data(params)], max_tokens: MAX_TOKENS }.estimate()
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        let data = [data(params)];
        let (text, types) = (params["text"].as_str().unwrap_or_default(), types(params));
        let question = Question { instructions: INSTRUCTIONS, data: &data, max_tokens: MAX_TOKENS };
        run.ask_for(question, |answer| read(answer, text, &types)).await
    }
}

/// The entities that a model has named and that are really there. Nothing of what it says of places is believed: they are looked for,
/// each mention after the one before of the same words. What the text does not hold is left out, and what nobody asked for.
fn read(answer: &Value, text: &str, types: &[&str]) -> Result<Value, String> {
    let named = answer["entities"].as_array().ok_or("it has no list \"entities\"")?;
    let mut searched: HashMap<&str, usize> = HashMap::new();
    let mut found = Vec::new();
    for entity in named.iter().take(MAX_ENTITIES) {
        let (Some(name), Some(kind)) = (entity["text"].as_str(), entity["type"].as_str()) else {
            return Err("an entity lacks its \"text\" or its \"type\"".to_owned());
        };
        let name = name.trim();
        let Some(kind) = types.iter().find(|wanted| wanted.eq_ignore_ascii_case(kind.trim())) else { continue };
        if name.is_empty() || name.chars().count() > MAX_ENTITY_CHARS {
            continue;
        }
        let from = searched.entry(name).or_default();
        let Some(start) = find_word(text, name, *from) else { continue };
        *from = start + name.len();
        found.push((start, name, *kind));
    }
    found.sort_by_key(|(start, name, _)| (*start, std::cmp::Reverse(name.len())));
    let mut counted = Characters { text, byte: 0, character: 0 };
    let entities: Vec<Value> = found
        .into_iter()
        .map(|(start, name, kind)| {
            let start = counted.before(start);
            json!({ "text": name, "type": kind, "start": start, "end": start + name.chars().count() })
        })
        .collect();
    Ok(json!({ "entities": entities }))
}

/// Where `name` stands in `text`, from the byte `from` on: as a word of its own, or else anywhere.
fn find_word(text: &str, name: &str, from: usize) -> Option<usize> {
    let rest = &text[from..];
    let is_apart = |start: usize| {
        let joins = |one: Option<char>, other: Option<char>| {
            one.is_some_and(char::is_alphanumeric) && other.is_some_and(char::is_alphanumeric)
        };
        let (before, after) = (text[..start].chars().next_back(), text[start + name.len()..].chars().next());
        !joins(before, name.chars().next()) && !joins(name.chars().next_back(), after)
    };
    let mut places = rest.match_indices(name).map(|(at, _)| from + at);
    let first = places.next()?;
    if is_apart(first) { Some(first) } else { places.find(|place| is_apart(*place)).or(Some(first)) }
}

/// Counts the characters before a byte, for bytes in rising order.
struct Characters<'a> {
    text: &'a str,
    byte: usize,
    character: usize,
}

impl Characters<'_> {
    fn before(&mut self, byte: usize) -> usize {
        self.character += self.text[self.byte..byte].chars().count();
        self.byte = byte;
        self.character
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPES: [&str; 2] = ["person", "location"];

    fn places(text: &str, named: &[(&str, &str)]) -> Vec<(String, u64, u64)> {
        let entities: Vec<Value> =
            named.iter().map(|(text, kind)| json!({ "text": text, "type": kind, "start": 999 })).collect();
        let read = read(&json!({ "entities": entities }), text, &TYPES).unwrap();
        let number = |entity: &Value, name: &str| entity[name].as_u64().unwrap();
        let told = |entity: &Value| {
            (entity["text"].as_str().unwrap().to_owned(), number(entity, "start"), number(entity, "end"))
        };
        read["entities"].as_array().unwrap().iter().map(told).collect()
    }

    #[test]
    fn places_are_those_of_the_text_in_characters_whatever_the_model_says() {
        let text = "Zoë met Bob in Köln. Bob left Köln.";
        let named =
            [("Köln", "location"), ("Bob", "Person"), ("Zoë", "person"), ("Bob", "person"), ("Köln", "location")];
        let expected = [("Zoë", 0, 3), ("Bob", 8, 11), ("Köln", 15, 19), ("Bob", 21, 24), ("Köln", 30, 34)];
        assert_eq!(places(text, &named), expected.map(|(name, start, end)| (name.to_owned(), start, end)));
    }

    #[test]
    fn what_is_not_in_the_text_is_dropped_and_so_is_what_nobody_asked_for() {
        let named = [
            ("Alice", "person"),
            ("Bob", "person"),
            ("Bob", "person"),
            ("Paris", "city"),
            ("", "person"),
            ("bob", "person"),
        ];
        assert_eq!(places("Bob saw Paris.", &named), [("Bob".to_owned(), 0, 3)]);
    }

    #[test]
    fn a_word_of_its_own_comes_before_a_part_of_another() {
        assert_eq!(places("Annual dinner with Ann", &[("Ann", "person")]), [("Ann".to_owned(), 19, 22)]);
        assert_eq!(places("東京都に行く", &[("東京", "location")]), [("東京".to_owned(), 0, 2)]);
    }

    #[test]
    fn an_answer_of_another_form_is_refused() {
        for answer in [
            json!({}),
            json!({ "entities": {} }),
            json!({ "entities": ["Bob"] }),
            json!({ "entities": [{ "text": "Bob" }] }),
        ] {
            assert!(read(&answer, "Bob", &TYPES).is_err(), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn every_entity_stands_where_it_is_said_to(text in "[abü ]{0,60}", names in proptest::collection::vec("[abü ]{0,4}", 0..20)) {
            let named: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "person")).collect();
            let characters: Vec<char> = text.chars().collect();
            let mut last = 0;
            for (name, start, end) in places(&text, &named) {
                let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
                prop_assert_eq!(characters[start..end].iter().collect::<String>(), name);
                prop_assert!(start >= last);
                last = start;
            }
        }
    }
}
