//! What a corpus is made of.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::id::{InvalidId, ModelId, VersionId};
use crate::time::Timestamp;

/// The most that a document's metadata may take as JSON, in bytes: what Vectorize takes of a vector's.
pub const MAX_METADATA_BYTES: usize = 10 * 1024;

/// How long nothing is staged for a version until it counts as given up: far longer than an ingestion may take. To be swept by.
pub const GIVEN_UP_AFTER: Duration = Duration::from_secs(3600);

/// A document of one tenant, by the name that the tenant chose.
///
/// Citations read `[source:docId#chunkId]`, so what would end one is no part of a name.
///
/// ```
/// use enigma_core::retrieval::DocumentId;
/// assert!(DocumentId::new("guides/Getting started.md").is_ok());
/// assert!(DocumentId::new("a]b").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DocumentId(String);

impl DocumentId {
    const RULE: &'static str = "1 to 200 bytes without control characters, [, ], # and blanks at the ends";

    /// Parses a name.
    ///
    /// # Errors
    /// [`InvalidId`] says what a name looks like.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let is_name = (1..=200).contains(&text.len())
            && text.trim() == text
            && !text.chars().any(|c| c.is_control() || matches!(c, '[' | ']' | '#'));
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidId::new(Self::RULE)) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for DocumentId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

impl TryFrom<String> for DocumentId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(&text)
    }
}

impl From<DocumentId> for String {
    fn from(id: DocumentId) -> Self {
        id.0
    }
}

/// Counts the changes of a tenant's corpus: what was found in one generation need not be found in the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorpusGeneration(pub u64);

/// What a tenant says of a document, for its filters: a JSON object.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metadata(Map<String, Value>);

/// Metadata that take more than [`MAX_METADATA_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must take at most {MAX_METADATA_BYTES} bytes as JSON, and takes {bytes}")]
pub struct MetadataTooLarge {
    /// So many bytes.
    pub bytes: usize,
}

impl Metadata {
    /// Takes an object, if it is small enough.
    ///
    /// # Errors
    /// [`MetadataTooLarge`].
    pub fn new(fields: Map<String, Value>) -> Result<Self, MetadataTooLarge> {
        let metadata = Self(fields);
        let bytes = metadata.to_json().len();
        if bytes <= MAX_METADATA_BYTES { Ok(metadata) } else { Err(MetadataTooLarge { bytes }) }
    }

    /// The fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }

    /// As JSON text.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// What is known of a document besides its text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its name.
    pub id: DocumentId,
    /// Where it comes from, in the tenant's words.
    pub source: Option<String>,
    /// What people call it.
    pub title: Option<String>,
    /// Where people can read it.
    pub url: Option<String>,
    /// For filters.
    pub metadata: Metadata,
}

/// A piece of a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its place among the document's chunks, from 0: the `chunkId`.
    pub ordinal: u32,
    /// Where it begins in the document's normalised text, in bytes.
    pub start: u64,
    /// Its text, whole.
    pub text: String,
}

/// A chunk and its place in the space of meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedChunk {
    /// The chunk.
    pub chunk: Chunk,
    /// Of length 1.
    pub vector: Vec<f32>,
}

/// Where vectors can be compared: only with those that the same model has made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddingSpace {
    /// The model.
    pub model: ModelId,
    /// How many numbers a vector has.
    pub dimensions: u32,
}

impl fmt::Display for EmbeddingSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} dimensions of {}", self.dimensions, self.model)
    }
}

/// What a tenant's corpus is at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CorpusState {
    /// How often it has changed.
    pub generation: CorpusGeneration,
    /// Where its vectors are; `None` while it has no documents.
    pub space: Option<EmbeddingSpace>,
    /// Whether a search may still miss what was published lately, because an index learns of it later. What is found then is good
    /// enough to answer with, and not to keep.
    pub is_settling: bool,
}

/// The version that chunks are staged for.
#[derive(Debug, Clone, Copy)]
pub struct Staging<'a> {
    /// The document.
    pub document: &'a DocumentId,
    /// The version.
    pub version: VersionId,
    /// Where its vectors are.
    pub space: &'a EmbeddingSpace,
}

/// Why a version was not published. Nothing has changed. When both are true, it is the first.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PublishError {
    /// The tenant has documents, whose vectors are in another space.
    #[error("the corpus has vectors of {has}")]
    OtherSpace {
        /// That space.
        has: EmbeddingSpace,
    },
    /// Not all of its chunks are there: it was swept away, or never staged.
    #[error("the version is not there")]
    NotStaged,
}

/// A document, as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentSummary {
    /// What is known of it.
    #[serde(flatten)]
    pub document: Document,
    /// How many chunks it has.
    pub chunks: u32,
    /// When it was published.
    pub updated_at: Timestamp,
}

/// Some of a tenant's documents.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DocumentPage {
    /// In the order of their names, by bytes.
    pub documents: Vec<DocumentSummary>,
    /// Where the next page begins, if there is one: after this.
    pub next: Option<DocumentId>,
}

/// A part of a document's text.
#[derive(Debug, Clone, PartialEq)]
pub struct DocumentPart {
    /// The document.
    pub summary: DocumentSummary,
    /// The version that the chunks are of.
    pub version: VersionId,
    /// By their numbers.
    pub chunks: Vec<Chunk>,
}

/// A chunk that was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage {
    /// Its document.
    pub document: Document,
    /// The chunk.
    pub chunk: Chunk,
    /// How well it fits. Of vectors the cosine, from −1 to 1; of keywords a number from 0 on that can only be compared within
    /// one answer.
    pub score: f64,
}
