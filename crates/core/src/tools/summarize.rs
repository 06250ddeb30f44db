//! `summarize`: a text in few words.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use unicode_segmentation::UnicodeSegmentation;

use super::definition::{Tool, ToolDefinition};
use super::error::ToolFailure;
use super::run::{Question, ToolRun};
use crate::id::ToolName;

/// The longest text, in characters.
const MAX_TEXT_CHARS: usize = 50_000;
const DEFAULT_WORDS: u64 = 150;

/// Sums up a text, as a paragraph or as points.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summarize;

/// The form of a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Paragraph,
    Bullets,
}

/// What a caller asks for.
struct Asked<'a> {
    text: &'a str,
    style: Style,
    max_words: usize,
}

impl<'a> Asked<'a> {
    /// From parameters that keep to the schema.
    fn of(params: &'a Value) -> Self {
        let max_words = params["maxWords"].as_u64().unwrap_or(DEFAULT_WORDS);
        Self {
            text: params["text"].as_str().unwrap_or_default(),
            style: if params["style"] == "bullets" { Style::Bullets } else { Style::Paragraph },
            max_words: usize::try_from(max_words).unwrap_or(usize::MAX),
        }
    }

    fn instructions(&self) -> String {
        let form = match self.style {
            Style::Paragraph => "{\"summary\": \"the summary, one paragraph\"}",
            Style::Bullets => "{\"points\": [\"one point\", \"the next point\"]}",
        };
        format!(
            "You summarize texts. Write a summary of the member \"text\" of the data, in its language, of at most {} words in all, \
             with nothing in it that the text does not say. Form of the answer: {form}",
            self.max_words
        )
    }

    /// Twice what so many words have in most languages, and room for the JSON around them.
    fn max_tokens(&self) -> u32 {
        u32::try_from(self.max_words * 4 + 100).unwrap_or(u32::MAX)
    }
}

#[async_trait]
impl Tool for Summarize {
    fn definition(&self) -> ToolDefinition {
        ToolDefinition {
            name: ToolName::new("summarize").expect("it keeps to the alphabet"),
            description: "Sums up a text in few words, as a paragraph or as bullet points.".to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "text": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "pattern": "\\S" },
                    "style": { "enum": ["paragraph", "bullets"], "default": "paragraph" },
                    "maxWords": { "type": "integer", "minimum": 10, "maximum": 1000, "default": DEFAULT_WORDS },
                },
                "required": ["text"],
                "additionalProperties": false,
            }),
            output: json!({
                "type": "object",
                "properties": {
                    "summary": { "type": "string", "minLength": 1, "description": "The summary; with bullets, one line for each." },
                    "points": { "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1 },
                    "words": { "type": "integer", "minimum": 1 },
                    "shortened": { "type": "boolean", "description": "Whether the end was left out to respect maxWords." },
                },
                "required": ["summary", "words", "shortened"],
                "additionalProperties": false,
            }),
            timeout: Duration::from_secs(60),
            permissions: Vec::new(),
            takes_documents: false,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        let asked = Asked::of(params);
        let (instructions, data) = (asked.instructions(), [json!({ "text": asked.text })]);
        Question { instructions: &instructions, data: &data, max_tokens: asked.max_tokens() }.estimate()
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        let asked = Asked::of(params);
        let (instructions, data) = (asked.instructions(), [json!({ "text": asked.text })]);
        let question = Question { instructions: &instructions, data: &data, max_tokens: asked.max_tokens() };
        run.ask_for(question, |answer| read(answer, asked.style, asked.max_words)).await
    }
}

/// The summary that a model has written. Of one that is too long the whole sentences, or points, that have room are kept.
fn read(answer: &Value, style: Style, max_words: usize) -> Result<Value, String> {
    match style {
        Style::Paragraph => {
            let text = answer["summary"].as_str().ok_or("it has no text \"summary\"")?;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let sentences: Vec<&str> = text.split_sentence_bounds().collect();
            let (kept, words) = fitting(&sentences, max_words)?;
            let summary = sentences[..kept].concat().trim_end().to_owned();
            Ok(json!({ "summary": summary, "words": words, "shortened": kept < sentences.len() }))
        }
        Style::Bullets => {
            let points = answer["points"].as_array().ok_or("it has no list \"points\"")?;
            let points = points.iter().map(point).collect::<Result<Vec<String>, String>>()?;
            let (kept, words) = fitting(&points, max_words)?;
            let shortened = kept < points.len();
            let points = &points[..kept];
            let lines: Vec<String> = points.iter().map(|point| format!("- {point}")).collect();
            Ok(json!({ "summary": lines.join("\n"), "points": points, "words": words, "shortened": shortened }))
        }
    }
}

fn point(value: &Value) -> Result<String, String> {
    let text = value.as_str().ok_or("a point is not a text")?;
    let text = text.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '*' | '•'));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { Err("a point is empty".to_owned()) } else { Ok(text) }
}

/// How many of the parts have together at most `max_words` words, and how many words those have.
fn fitting(parts: &[impl AsRef<str>], max_words: usize) -> Result<(usize, usize), String> {
    let (mut kept, mut words) = (0, 0);
    for part in parts {
        let more = part.as_ref().unicode_words().count();
        if words + more > max_words {
            break;
        }
        words += more;
        kept += 1;
    }
    match (kept, words) {
        (_, 0) if kept == parts.len() => Err("the summary is empty".to_owned()),
        (_, 0) => Err(format!("the summary has more than {max_words} words")),
        _ => Ok((kept, words)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_summary_that_is_too_long_ends_with_a_whole_sentence() {
        let answer = json!({ "summary": "One two three.  Four\nfive six. Seven." });
        assert_eq!(
            read(&answer, Style::Paragraph, 10),
            Ok(json!({ "summary": "One two three. Four five six. Seven.", "words": 7, "shortened": false }))
        );
        assert_eq!(
            read(&answer, Style::Paragraph, 6),
            Ok(json!({ "summary": "One two three. Four five six.", "words": 6, "shortened": true }))
        );
        assert!(read(&answer, Style::Paragraph, 2).unwrap_err().contains("more than 2 words"));
    }

    #[test]
    fn points_lose_their_own_bullets_and_those_without_room_go() {
        let answer = json!({ "points": ["- one two", "• three", "four five"] });
        let expected =
            json!({ "summary": "- one two\n- three", "points": ["one two", "three"], "words": 3, "shortened": true });
        assert_eq!(read(&answer, Style::Bullets, 4), Ok(expected));
    }

    #[test]
    fn what_is_no_summary_is_refused() {
        for (answer, style) in [
            (json!({}), Style::Paragraph),
            (json!({ "summary": 3 }), Style::Paragraph),
            (json!({ "summary": " …" }), Style::Paragraph),
            (json!({ "summary": "text" }), Style::Bullets),
            (json!({ "points": [] }), Style::Bullets),
            (json!({ "points": ["a", {}] }), Style::Bullets),
            (json!({ "points": ["- "] }), Style::Bullets),
        ] {
            assert!(read(&answer, style, 10).is_err(), "{answer}");
        }
    }

    proptest! {
        #[test]
        fn the_length_is_respected(summary in "[a-z .!?\n]{0,300}", max_words in 1usize..40) {
            if let Ok(read) = read(&json!({ "summary": summary }), Style::Paragraph, max_words) {
                let words = read["summary"].as_str().unwrap().unicode_words().count();
                prop_assert!(words <= max_words && words as u64 == read["words"].as_u64().unwrap());
            }
        }
    }
}
