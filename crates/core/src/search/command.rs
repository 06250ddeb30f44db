//! What a search is asked with, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::chat::StreamFailure;
use crate::client::Events;
use crate::id::{ModelId, RequestId, TraceId};
use crate::limit::RateStatus;
use crate::retrieval::{DocumentId, MetadataFilter, Ranked, SearchMode, source_id};
use crate::tenant::Caller;
use crate::usage::Ending;

/// A search request, parsed and validated.
#[derive(Debug, Clone)]
pub struct SearchCommand {
    /// The request.
    pub request: RequestId,
    /// Its trace.
    pub trace: TraceId,
    /// W3C trace context to pass on.
    pub traceparent: Option<String>,
    /// The route that it came through, such as `/search`.
    pub route: &'static str,
    /// On whose behalf, and against whose limit.
    pub caller: Caller,
    /// The question.
    pub query: String,
    /// The most sources that are wanted, 1 to 20.
    pub top_k: u32,
    /// Which documents count.
    pub filter: MetadataFilter,
    /// How they are looked for.
    pub mode: SearchMode,
}

/// A source of an answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Source {
    /// `docId#chunkId`.
    pub id: String,
    /// The document.
    pub doc_id: DocumentId,
    /// The chunk's place in it, from 0.
    pub chunk_id: String,
    /// The document's title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Where people can read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The chunk's text, whole.
    pub text: String,
    /// How well it fits, in [0, 1].
    pub score: f64,
}

impl From<&Ranked> for Source {
    fn from(ranked: &Ranked) -> Self {
        let document = &ranked.passage.document;
        Self {
            id: source_id(ranked),
            doc_id: document.id.clone(),
            chunk_id: ranked.passage.chunk.ordinal.to_string(),
            title: document.title.clone(),
            url: document.url.clone(),
            source: document.source.clone(),
            text: ranked.passage.chunk.text.clone(),
            score: ranked.score,
        }
    }
}

/// Whether an answer was made for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheStatus {
    /// It was made before, or beside, for the same question.
    Hit,
    /// It was.
    Miss,
}

impl CacheStatus {
    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// A reply that has begun.
#[derive(Debug)]
pub struct SearchReply {
    /// The model that answers.
    pub model: ModelId,
    /// The caller's windows.
    pub rate: RateStatus,
    /// Whether the answer was there already.
    pub cache: CacheStatus,
    /// The answer. Dropping it ends the model's work.
    pub events: SearchEvents,
}

/// The last event of every reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchDone {
    /// How sure the answer can be, in [0, 1]: [`confidence`](crate::retrieval::confidence).
    pub confidence: f64,
    /// What might be asked next.
    pub follow_ups: Vec<String>,
    /// The model that answered.
    pub model: ModelId,
    /// Tokens of all prompts and embeddings.
    pub tokens_in: u64,
    /// Tokens of all answers.
    pub tokens_out: u64,
    /// How long it took.
    pub latency: Duration,
    /// How the request ended.
    pub ending: Ending,
}

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchEvent {
    /// The sources, always first.
    Sources(Vec<Source>),
    /// More text. Its citations are those of sources.
    Content(String),
    /// Something failed; [`SearchEvent::Done`] follows.
    Failed(StreamFailure),
    /// The reply has ended.
    Done(SearchDone),
}

/// The events of a reply: the sources, any number of pieces, at most one failure, and [`SearchEvent::Done`] last, always.
pub type SearchEvents = Events<SearchEvent>;

/// An answer that is kept for those who ask the same again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct KeptSearch {
    pub(super) sources: Vec<Source>,
    pub(super) answer: String,
    pub(super) done: SearchDone,
}

impl KeptSearch {
    /// The events that tell it again: whoever gets it has spent nothing.
    pub(super) fn into_events(self, latency: Duration) -> Vec<SearchEvent> {
        let done = SearchDone { tokens_in: 0, tokens_out: 0, ..self.done };
        Self { done, ..self }.told(latency)
    }

    /// The events that tell it.
    pub(super) fn told(self, latency: Duration) -> Vec<SearchEvent> {
        let done = SearchDone { latency, ..self.done };
        let answer = Some(self.answer).filter(|text| !text.is_empty()).map(SearchEvent::Content);
        [SearchEvent::Sources(self.sources)].into_iter().chain(answer).chain([SearchEvent::Done(done)]).collect()
    }
}
