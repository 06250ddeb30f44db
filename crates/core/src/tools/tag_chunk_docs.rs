//! `tag_chunk_docs`: documents in chunks, each with tags.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::definition::{Tool, ToolDefinition};
use super::error::ToolFailure;
use super::run::{Question, ToolRun};
use super::schema::Violation;
use crate::id::ToolName;
use crate::retrieval::{Chunk, ChunkingOptions, chunk, normalise};

/// The most documents of a call.
const MAX_DOCUMENTS: usize = 8;
/// The longest document, in characters.
const MAX_TEXT_CHARS: usize = 50_000;
/// The most chunks of a document: one question to a model is about all of them.
const MAX_CHUNKS: usize = 64;
const DEFAULT_TAGS: u64 = 5;
/// The longest tag, in characters.
const MAX_TAG_CHARS: usize = 50;

/// Cuts documents into chunks as ingestion does, and has a model tag each.
#[derive(Debug, Clone, Copy, Default)]
pub struct TagChunkDocs;

const INSTRUCTIONS: &str = "You tag pieces of a document by what they are about. The first object of the data has the members \
\"maxTags\", the most tags of a piece, and perhaps \"vocabulary\": then only those tags may be used. Each further object is a piece, \
with its number \"index\" and its \"text\". Tags are short, in lower case, and in the language of the document. Give every piece its \
tags, also where there are none. Form of the answer: {\"chunks\": [{\"index\": 0, \"tags\": [\"a tag\"]}]}";

/// How `chunking` of the parameters cuts. Whoever wants small chunks and says nothing of their overlap wants what fits.
pub(super) fn chunking(params: &Value, place: &str) -> Result<ChunkingOptions, ToolFailure> {
    let default = ChunkingOptions::default();
    let number = |name: &str| params["chunking"][name].as_u64().and_then(|number| usize::try_from(number).ok());
    let size = number("maxChunkSize").unwrap_or(default.max_size());
    let overlap = number("overlap").unwrap_or(default.overlap().min(size / 2));
    ChunkingOptions::new(size, overlap)
        .ok_or_else(|| ToolFailure::Invalid(vec![Violation::new(place, "must be at most half of maxChunkSize")]))
}

/// The schema of `chunking`.
pub(super) fn chunking_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "maxChunkSize": { "type": "integer", "minimum": ChunkingOptions::MIN_SIZE, "maximum": ChunkingOptions::MAX_SIZE },
            "overlap": { "type": "integer", "minimum": 0, "maximum": ChunkingOptions::MAX_SIZE },
        },
        "additionalProperties": false,
    })
}

fn texts(params: &Value) -> impl Iterator<Item = (Option<&str>, &str)> {
    let documents = params["documents"].as_array().map(Vec::as_slice).unwrap_or_default();
    documents.iter().map(|document| (document["docId"].as_str(), document["text"].as_str().unwrap_or_default()))
}

fn max_tags(params: &Value) -> usize {
    params["maxTags"].as_u64().and_then(|tags| usize::try_from(tags).ok()).unwrap_or(5)
}

fn vocabulary(params: &Value) -> Option<Vec<&str>> {
    params["vocabulary"].as_array().map(|tags| tags.iter().filter_map(Value::as_str).collect())
}

fn data(params: &Value, chunks: &[Chunk]) -> Vec<Value> {
    let mut rules = json!({ "maxTags": max_tags(params) });
    if let Some(vocabulary) = vocabulary(params) {
        rules["vocabulary"] = json!(vocabulary);
    }
    let pieces = chunks.iter().map(|chunk| json!({ "index": chunk.ordinal, "text": chunk.text }));
    std::iter::once(rules).chain(pieces).collect()
}

/// Room for the tags of so many chunks.
fn max_tokens(chunks: usize, max_tags: usize) -> u32 {
    u32::try_from(100 + chunks * (15 + 8 * max_tags)).unwrap_or(u32::MAX)
}

#[async_trait]
impl Tool for TagChunkDocs {
    fn definition(&self) -> ToolDefinition {
        let tag = json!({ "type": "string", "minLength": 1, "maxLength": MAX_TAG_CHARS });
        ToolDefinition {
            name: ToolName::new("tag_chunk_docs").expect("it keeps to the alphabet"),
            description: "Cuts documents into chunks, as ingestion does, and tags each chunk by what it is about."
                .to_owned(),
            parameters: json!({
                "type": "object",
                "properties": {
                    "documents": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "docId": { "type": "string", "minLength": 1, "maxLength": 256 },
                                "text": { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "pattern": "\\S" },
                            },
                            "required": ["text"],
                            "additionalProperties": false,
                        },
                        "minItems": 1,
                        "maxItems": MAX_DOCUMENTS,
                    },
                    "maxTags": { "type": "integer", "minimum": 1, "maximum": 20, "default": DEFAULT_TAGS },
                    "vocabulary": { "type": "array", "items": tag, "minItems": 1, "maxItems": 200, "uniqueItems": true },
                    "chunking": chunking_schema(),
                },
                "required": ["documents"],
                "additionalProperties": false,
            }),
            output: json!({
                "type": "object",
                "properties": { "documents": { "type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "docId": { "type": ["string", "null"] },
                        "tags": { "type": "array", "items": tag, "description": "Those of its chunks, the most frequent first." },
                        "chunks": { "type": "array", "items": {
                            "type": "object",
                            "properties": {
                                "chunkId": { "type": "integer", "minimum": 0 },
                                "start": { "type": "integer", "minimum": 0, "description": "In bytes of the normalised text." },
                                "text": { "type": "string" },
                                "tags": { "type": "array", "items": tag },
                            },
                            "required": ["chunkId", "start", "text", "tags"],
                            "additionalProperties": false,
                        } },
                    },
                    "required": ["docId", "tags", "chunks"],
                    "additionalProperties": false,
                } } },
                "required": ["documents"],
                "additionalProperties": false,
            }),
            timeout: Duration::from_secs(90),
            permissions: Vec::new(),
            takes_documents: true,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        let options = chunking(params, "").unwrap_or_default();
        texts(params)
            .map(|(_, text)| {
                let chunks = chunk(&normalise(text), &options);
                let max_tokens = max_tokens(chunks.len(), max_tags(params));
                Question { instructions: INSTRUCTIONS, data: &data(params, &chunks), max_tokens }.estimate()
            })
            .sum()
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        let options = chunking(params, "/chunking/overlap")?;
        let cut: Vec<(Option<&str>, Vec<Chunk>)> =
            texts(params).map(|(id, text)| (id, chunk(&normalise(text), &options))).collect();
        for (index, (_, chunks)) in cut.iter().enumerate() {
            let place = format!("/documents/{index}/text");
            // Before anything is spent.
            if chunks.len() > MAX_CHUNKS {
                let message = format!("makes {} chunks, and a document may have {MAX_CHUNKS} here", chunks.len());
                return Err(ToolFailure::Invalid(vec![Violation::new(place, message)]));
            }
            if chunks.is_empty() {
                return Err(ToolFailure::Invalid(vec![Violation::new(
                    place,
                    "has no characters that anybody could see",
                )]));
            }
        }
        let (vocabulary, max_tags) = (vocabulary(params), max_tags(params));
        let mut documents = Vec::with_capacity(cut.len());
        for (id, chunks) in cut {
            let max_tokens = max_tokens(chunks.len(), max_tags);
            let question = Question { instructions: INSTRUCTIONS, data: &data(params, &chunks), max_tokens };
            let tags =
                run.ask_for(question, |answer| read(answer, chunks.len(), max_tags, vocabulary.as_deref())).await?;
            documents.push(told(id, chunks, tags));
        }
        Ok(json!({ "documents": documents }))
    }
}

fn told(id: Option<&str>, chunks: Vec<Chunk>, tags: Vec<Vec<String>>) -> Value {
    let mut counted: Vec<(&String, usize)> = Vec::new();
    for tag in tags.iter().flatten() {
        match counted.iter_mut().find(|(known, _)| *known == tag) {
            Some((_, count)) => *count += 1,
            None => counted.push((tag, 1)),
        }
    }
    // Stable: those that are as frequent stay in the order of the document.
    counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let all: Vec<&String> = counted.into_iter().map(|(tag, _)| tag).collect();
    let all = json!(all);
    let chunks: Vec<Value> = chunks
        .into_iter()
        .zip(tags)
        .map(|(Chunk { ordinal, start, text }, tags)| json!({ "chunkId": ordinal, "start": start, "text": text, "tags": tags }))
        .collect();
    json!({ "docId": id, "tags": all, "chunks": chunks })
}

/// The tags of each chunk, in the order of the chunks: in lower case, each once, and none that may not be used.
fn read(
    answer: &Value,
    chunks: usize,
    max_tags: usize,
    vocabulary: Option<&[&str]>,
) -> Result<Vec<Vec<String>>, String> {
    let tagged = answer["chunks"].as_array().ok_or("it has no list \"chunks\"")?;
    let mut tags: Vec<Option<Vec<String>>> = vec![None; chunks];
    for piece in tagged {
        let index =
            piece["index"].as_u64().and_then(|index| usize::try_from(index).ok()).ok_or("a piece has no \"index\"")?;
        let place = tags.get_mut(index).ok_or_else(|| format!("there is no piece {index}"))?;
        let given = piece["tags"].as_array().ok_or_else(|| format!("piece {index} has no list \"tags\""))?;
        let mut kept: Vec<String> = Vec::new();
        for tag in given {
            let tag = tag.as_str().ok_or_else(|| format!("a tag of piece {index} is not a text"))?;
            let tag = tag.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
            let tag = match vocabulary {
                Some(words) => words.iter().find(|word| word.to_lowercase() == tag).map(|word| (*word).to_owned()),
                None => Some(tag).filter(|tag| (1..=MAX_TAG_CHARS).contains(&tag.chars().count())),
            };
            kept.extend(tag.filter(|tag| !kept.contains(tag) && kept.len() < max_tags));
        }
        *place = Some(kept);
    }
    match tags.iter().position(Option::is_none) {
        Some(missing) => Err(format!("piece {missing} is missing")),
        None => Ok(tags.into_iter().flatten().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_put_into_one_form_and_bounded() {
        let answer = json!({ "chunks": [
            { "index": 1, "tags": ["Rust", " rust ", "Memory\nSafety", "c", "d"] },
            { "index": 0, "tags": ["", "x".repeat(51)] },
        ] });
        assert_eq!(
            read(&answer, 2, 3, None),
            Ok(vec![vec![], vec!["rust".into(), "memory safety".into(), "c".into()]])
        );
        assert_eq!(read(&answer, 2, 3, Some(&["RUST", "go"])), Ok(vec![vec![], vec!["RUST".into()]]));
    }

    #[test]
    fn every_piece_has_its_tags_or_the_answer_is_refused() {
        for (answer, problem) in [
            (json!({}), "no list"),
            (json!({ "chunks": [{ "index": 0, "tags": [] }] }), "piece 1 is missing"),
            (json!({ "chunks": [{ "index": 2, "tags": [] }] }), "no piece 2"),
            (json!({ "chunks": [{ "index": 0, "tags": "a" }] }), "no list \"tags\""),
            (json!({ "chunks": [{ "index": 0, "tags": [1] }] }), "not a text"),
            (json!({ "chunks": [{ "tags": [] }] }), "no \"index\""),
        ] {
            assert!(read(&answer, 2, 5, None).unwrap_err().contains(problem), "{answer}");
        }
    }

    #[test]
    fn a_document_has_the_tags_of_its_chunks_the_most_frequent_first() {
        let text = "first piece of it ".repeat(10);
        let chunks = chunk(&normalise(&text), &ChunkingOptions::new(60, 0).unwrap());
        let mut tags = vec![vec!["b".to_owned()]; chunks.len()];
        tags[0] = vec!["a".to_owned()];
        let told = told(Some("d"), chunks.clone(), tags);
        assert_eq!(told["tags"], json!(["b", "a"]));
        assert_eq!(told["chunks"].as_array().unwrap().len(), chunks.len());
        assert_eq!(told["chunks"][1]["start"], json!(chunks[1].start));
    }
}
