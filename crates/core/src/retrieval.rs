//! Retrieval: a tenant's documents, cut into chunks, and how the ones that answer a question are found.

mod bm25;
mod document;
mod filter;
mod vector;
mod words;

pub use bm25::{Bm25, CountedWords, Occurrence};
pub use document::{
    Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentSummary, EmbeddedChunk,
    EmbeddingSpace, MAX_METADATA_BYTES, Metadata, MetadataTooLarge, Passage, PublishError, Staging,
};
pub use filter::{Condition, FilterError, MetadataFilter};
pub use vector::cosine;
pub use words::words;
