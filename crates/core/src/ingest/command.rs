//! What an ingestion is asked with, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::Events;
use crate::id::{ModelId, RequestId, TraceId};
use crate::idempotency::{Fingerprint, IdempotencyKey};
use crate::limit::RateStatus;
use crate::retrieval::{ChunkingOptions, Document, DocumentId};
use crate::search::RetrievalError;
use crate::tenant::Caller;
use crate::usage::Ending;

/// An ingestion request, parsed and validated.
#[derive(Debug, Clone)]
pub struct IngestCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/ingest`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// The document.
    pub document: Document,
    /// Its text; not blank.
    pub text: String,
    /// How it is cut.
    pub chunking: ChunkingOptions,
    /// Makes the request safe to repeat.
    pub idempotency: Option<(IdempotencyKey, Fingerprint)>,
}

/// An ingestion that has begun.
#[derive(Debug)]
pub struct IngestReply {
    /// The model that embeds.
    pub model: ModelId,
    /// How many chunks there are to do.
    pub chunks: u32,
    /// The caller's windows.
    pub rate: RateStatus,
    /// Whether this is the answer of an earlier request again.
    pub replayed: bool,
    /// How it goes on. Dropping it ends the work, and the older version stays.
    pub events: IngestEvents,
}

/// The last event of every reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IngestDone {
    /// The document.
    pub document: DocumentId,
    /// How many chunks it has.
    pub chunks: u32,
    /// The model that has embedded them.
    pub model: ModelId,
    /// Tokens that it has read.
    pub tokens: u64,
    /// How long it took.
    pub latency: Duration,
    /// How the request ended; the document is the new one only if it [`Finished`](Ending::Finished).
    pub ending: Ending,
}

/// A piece of a reply.
#[derive(Debug)]
pub enum IngestEvent {
    /// So many chunks are embedded and kept, unseen yet.
    Progress {
        /// So many.
        done: u32,
        /// Of so many.
        total: u32,
    },
    /// Something failed, and the older version stays; [`IngestEvent::Done`] follows.
    Failed(RetrievalError),
    /// The reply has ended.
    Done(IngestDone),
}

/// The events of a reply: any number of steps, at most one failure, and [`IngestEvent::Done`] last, always.
pub type IngestEvents = Events<IngestEvent>;
