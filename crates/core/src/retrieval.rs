//! Retrieval: a tenant's documents, cut into chunks, and how the ones that answer a question are found.

mod bm25;
mod chunking;
mod citation;
mod document;
mod filter;
mod fusion;
mod keywords;
mod normalise;
mod prompt;
mod questions;
mod safety;
mod text;
mod vector;
mod words;

pub use bm25::{Bm25, CountedWords, Occurrence};
pub use chunking::{ChunkingOptions, chunk};
pub use citation::{CitationFilter, citation};
pub use document::{
    Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, DocumentSummary,
    EmbeddedChunk, EmbeddingSpace, GIVEN_UP_AFTER, MAX_METADATA_BYTES, Metadata, MetadataTooLarge, Passage,
    PublishError, Staging,
};
pub use filter::{Condition, FilterError, MetadataFilter};
pub use fusion::{Ranked, SearchMode, confidence, fuse};
pub use keywords::keywords;
pub use normalise::normalise;
pub use prompt::{SearchPrompt, search_prompt, source_id};
pub use questions::{MAX_QUERY_CHARS, follow_up_prompt, read_follow_ups, read_rewrite, rewrite_prompt};
pub use safety::{REFUSAL, is_unsafe};
pub use text::{DocumentText, TextTooLarge};
pub use vector::cosine;
pub use words::words;
