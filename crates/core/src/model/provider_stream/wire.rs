//! The JSON of providers, in all its shapes.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::model::ModelError;

#[derive(Deserialize)]
pub(super) struct Payload {
    pub(super) choices: Option<Vec<Choice>>,
    pub(super) usage: Option<UsagePiece>,
    pub(super) error: Option<ErrorPiece>,
    pub(super) response: Option<Text>,
    pub(super) text: Option<Text>,
    pub(super) content: Option<Text>,
    pub(super) tool_calls: Option<Vec<ToolCallPiece>>,
    pub(super) result: Option<Box<Whole>>,
}

#[derive(Deserialize)]
pub(super) struct Choice {
    pub(super) index: Option<u32>,
    pub(super) delta: Option<Piece>,
    pub(super) message: Option<Piece>,
    pub(super) text: Option<Text>,
    pub(super) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Piece {
    pub(super) content: Option<Text>,
    pub(super) refusal: Option<Text>,
    pub(super) reasoning_content: Option<Text>,
    pub(super) reasoning: Option<Text>,
    pub(super) tool_calls: Option<Vec<ToolCallPiece>>,
}

#[derive(Deserialize)]
pub(super) struct ToolCallPiece {
    pub(super) index: Option<u32>,
    pub(super) id: Option<String>,
    pub(super) function: Option<FunctionPiece>,
    pub(super) name: Option<String>,
    pub(super) arguments: Option<Text>,
}

#[derive(Deserialize, Default)]
pub(super) struct FunctionPiece {
    pub(super) name: Option<String>,
    pub(super) arguments: Option<Text>,
}

#[derive(Deserialize)]
pub(super) struct UsagePiece {
    #[serde(default, deserialize_with = "count")]
    pub(super) prompt_tokens: Option<u32>,
    #[serde(default, deserialize_with = "count")]
    pub(super) completion_tokens: Option<u32>,
}

/// A count that is not one is no count: the answer beside it is good all the same.
pub(in crate::model) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()))
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Whole {
    Text(String),
    Object(Box<Payload>),
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(in crate::model) enum ErrorPiece {
    Object { message: Option<String>, code: Option<Value>, status: Option<Value> },
    Text(String),
    Other(de::IgnoredAny),
}

impl ErrorPiece {
    pub(in crate::model) fn into_model_error(self) -> ModelError {
        let (message, name, status) = match self {
            Self::Object { message, code, status } => {
                // Either may be a name instead of a number.
                let number =
                    |value: &Option<Value>| value.as_ref().and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
                let name = code.as_ref().and_then(Value::as_str).and_then(error_name).unwrap_or_default();
                (message.unwrap_or_default(), name.to_owned(), number(&status).or_else(|| number(&code)))
            }
            Self::Text(message) => (message, String::new(), None),
            Self::Other(_) => (String::new(), String::new(), None),
        };
        if is_about_length(&name, &message) {
            return ModelError::PromptTooLong;
        }
        // A provider's own words may repeat the prompt, and so never reach a log; its name for the error cannot.
        let message = if name.is_empty() { "unnamed error".to_owned() } else { name };
        match status {
            Some(429) => ModelError::RateLimited { retry_after: None },
            Some(status @ (401 | 403)) => ModelError::Unauthorized { status },
            Some(status @ 400..=499) => ModelError::Rejected { status, message },
            _ => ModelError::unavailable(message),
        }
    }
}

/// A provider's name for an error, if it is one and no sentence: short, and of the letters that names are made of.
pub fn error_name(text: &str) -> Option<&str> {
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    (is_name && (1..=64).contains(&text.len())).then_some(text)
}

/// Whether a provider's error says that the prompt does not fit its model, by the names and sentences in use.
pub fn is_about_length(name: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(name, "context_length_exceeded" | "exceed_context_size_error")
        || ["maximum context length", "context size", "context window"].iter().any(|words| message.contains(words))
}

/// A text, however it is written: a string, a number, a list of parts with a `text` each, or JSON that stands for itself.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        #[derive(Deserialize)]
        struct Part {
            text: Option<String>,
        }
        let mut joined = String::new();
        while let Some(part) = parts.next_element::<Part>()? {
            joined.push_str(part.text.as_deref().unwrap_or_default());
        }
        Ok(Text(joined))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
        let value = Value::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Text(value.to_string()))
    }
}
