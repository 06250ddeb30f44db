//! How sources are found: by meaning, by words, or both.

use std::panic::AssertUnwindSafe;
use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::{Either, join, select};

use super::command::SearchCommand;
use super::conduct::{Found, REWRITE_TOKENS, Run};
use super::error::RetrievalError;
use crate::admission::Permit;
use crate::caught::caught;
use crate::model::{Delta, EmbeddingCall, GatewayError, ModelError, ModelPlan, Sampling};
use crate::port_error::{PortError, degrade};
use crate::ports::{KeywordQuery, VectorQuery};
use crate::retrieval::{
    CorpusState, EmbeddingSpace, Passage, Ranked, SearchMode, fuse, keywords, read_rewrite, rewrite_prompt,
};
use crate::session::{estimate_tokens, prompt_tokens};

/// How many passages each index is asked for, for each that is wanted: fusion needs more than the best few of each.
const DEPTH: u32 = 4;
/// At least so many.
const LEAST_DEPTH: u32 = 20;
/// At most so many: more than any index gives.
const MOST_DEPTH: u32 = 100;
/// The longest answer to a side question, in bytes.
const SIDE_ANSWER_BYTES: usize = 4096;

/// How often both indexes are asked while the corpus changes under them.
const MOST_LOOKS: u32 = 3;

/// What one index finds.
type Passages = Result<Vec<Passage>, RetrievalError>;

impl Run {
    /// The sources for the question, best first. In hybrid mode one index that fails leaves the other.
    pub(super) async fn find(
        &self,
        permit: &Permit,
        plan: &ModelPlan,
        state: &CorpusState,
    ) -> Result<Found, RetrievalError> {
        let SearchCommand { query, top_k, mode, .. } = &self.command;
        let rewritten = self.rewritten(permit, plan).await;
        let depth = (top_k * DEPTH).clamp(LEAST_DEPTH, MOST_DEPTH);
        let meant = rewritten.as_deref().unwrap_or(query);
        let vector = match mode {
            SearchMode::Keyword => None,
            SearchMode::Vector | SearchMode::Hybrid => Some(self.embedded(permit, meant, state).await),
        };
        let (by_meaning, by_words) = match vector {
            // That does not pass, and whoever has to mend it must see it.
            Some(Err(error @ (RetrievalError::OtherSpace { .. } | RetrievalError::NoEmbeddingModel))) => {
                return Err(error);
            }
            Some(Err(error)) if *mode == SearchMode::Hybrid => (Err(error), self.matching(meant, depth).await),
            Some(Err(error)) => return Err(error),
            Some(Ok(vector)) if *mode == SearchMode::Hybrid => self.both(&vector, meant, state, depth).await,
            Some(Ok(vector)) => (self.near(&vector, depth).await, Ok(Vec::new())),
            None => (Ok(Vec::new()), self.matching(meant, depth).await),
        };
        let (by_meaning, by_words, failure) = match (by_meaning, by_words) {
            (Ok(by_meaning), Ok(by_words)) => (by_meaning, by_words, None),
            // Where the other index has found nothing, nobody can say that there is nothing.
            (Err(error), Ok(by_words)) if !by_words.is_empty() => (Vec::new(), by_words, Some(error)),
            (Ok(by_meaning), Err(error)) if !by_meaning.is_empty() => (by_meaning, Vec::new(), Some(error)),
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        if let Some(error) = &failure {
            tracing::warn!(
                tenant = %self.context.id(), trace = %self.command.trace, %error, "search goes on with one index"
            );
        }
        let wanted = *top_k as usize;
        let kept = if self.shared.ports.reranker.is_some() { depth as usize } else { wanted };
        let ranked = fuse(*mode, by_meaning, by_words, kept);
        let sources = self.reranked(permit, ranked, wanted).await;
        Ok(Found { sources, is_degraded: failure.is_some() })
    }

    /// What both indexes find in one generation of the corpus. What changed between the two would else be found in its old
    /// version and in its new one.
    async fn both(&self, vector: &[f32], meant: &str, state: &CorpusState, depth: u32) -> (Passages, Passages) {
        let mut generation = state.generation;
        for _ in 0..MOST_LOOKS {
            let found = join(self.near(vector, depth), self.matching(meant, depth)).await;
            let is_of_one = !matches!(&found, (Ok(near), Ok(matching)) if !near.is_empty() && !matching.is_empty());
            if is_of_one {
                return found;
            }
            match caught("corpus", self.shared.ports.corpus.state(self.context.id())).await {
                Ok(now) if now.generation == generation => return found,
                Ok(now) => generation = now.generation,
                Err(error) => return (found.0, Err(error.into())),
            }
        }
        let busy = PortError::unavailable("corpus", "it changes faster than both indexes can be asked");
        (self.near(vector, depth).await, Err(busy.into()))
    }

    /// The question as a vector that can be compared with those of the documents.
    async fn embedded(&self, permit: &Permit, text: &str, state: &CorpusState) -> Result<Vec<f32>, RetrievalError> {
        let (ports, tenant) = (&self.shared.ports, self.context.tenant());
        let model = ports.embeddings.model_of(tenant).ok_or(RetrievalError::NoEmbeddingModel)?;
        let call = EmbeddingCall {
            model: model.clone(),
            inputs: vec![text.to_owned()],
            dimensions: None,
            metadata: self.metadata(),
        };
        let deadline = self.started.saturating_add(self.shared.settings.request_timeout);
        let pending = self.tally.begin(estimate_tokens(text));
        let embedded = ports.embeddings.embed(permit, tenant, call, deadline).await;
        pending.end();
        let embedded = embedded?;
        // The provider of the record is the one of the model that answers.
        self.tally.add(embedded.tokens, 0, embedded.estimated, None);
        if let Some(has) = state.space.as_ref().filter(|has| **has != embedded.space) {
            let EmbeddingSpace { model, dimensions } = embedded.space;
            return Err(RetrievalError::OtherSpace { has: has.clone(), model, dimensions: Some(dimensions) });
        }
        let none = || GatewayError::Failed {
            model: model.clone(),
            source: ModelError::Malformed { message: "there is no vector".to_owned() },
        };
        Ok(embedded.vectors.into_iter().next().ok_or_else(none)?)
    }

    async fn near(&self, vector: &[f32], limit: u32) -> Passages {
        let query = VectorQuery { vector, filter: &self.command.filter, limit };
        Ok(caught("corpus", self.shared.ports.corpus.nearest(self.context.id(), query)).await?)
    }

    /// Looks for the words of the question as it was asked, and as it was rewritten.
    async fn matching(&self, meant: &str, limit: u32) -> Passages {
        let words = keywords(&format!("{} {meant}", self.command.query));
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let query = KeywordQuery { words: &words, filter: &self.command.filter, limit };
        Ok(caught("corpus", self.shared.ports.corpus.matching(self.context.id(), query)).await?)
    }

    async fn reranked(&self, permit: &Permit, mut ranked: Vec<Ranked>, wanted: usize) -> Vec<Ranked> {
        let ports = &self.shared.ports;
        if let Some(reranker) = ports.reranker.as_ref().filter(|_| !ranked.is_empty()) {
            let asking = caught("reranker", reranker.rerank(permit, self.context.id(), &self.command.query, &ranked));
            let scores = match select(pin!(asking), ports.clock.sleep(self.shared.settings.rerank_timeout)).await {
                Either::Left((scores, _)) => degrade(scores).unwrap_or_default(),
                Either::Right(_) => Vec::new(),
            };
            if scores.len() == ranked.len() {
                for (it, score) in ranked.iter_mut().zip(scores) {
                    it.score = if score.is_nan() { 0.0 } else { score.clamp(0.0, 1.0) };
                }
                // Stable: what the reranker holds for equal stays in the order of the indexes.
                ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
            } else {
                tracing::warn!(tenant = %self.context.id(), trace = %self.command.trace, "the order stays as the indexes gave it");
            }
        }
        ranked.truncate(wanted);
        ranked
    }

    /// The question in other words, if a model finds some in time.
    async fn rewritten(&self, permit: &Permit, plan: &ModelPlan) -> Option<String> {
        let limit = self.rewrite_timeout()?;
        let asked = self.ask_beside(permit, plan, rewrite_prompt(&self.command.query), REWRITE_TOKENS);
        // A model's adapter that panics has failed, and the question is searched for as it is.
        let asked = AssertUnwindSafe(asked).catch_unwind();
        match select(pin!(asked), self.shared.ports.clock.sleep(limit)).await {
            Either::Left((answer, _)) => {
                read_rewrite(&answer.ok()??).filter(|rewritten| *rewritten != self.command.query)
            }
            Either::Right(_) => None,
        }
    }

    /// Asks a model a side question. What goes wrong is logged, and the answer is missing then.
    pub(super) async fn ask_beside(
        &self,
        permit: &Permit,
        plan: &ModelPlan,
        messages: Vec<crate::model::ChatMessage>,
        max_tokens: u32,
    ) -> Option<String> {
        let (ports, tenant) = (&self.shared.ports, self.context.tenant());
        let deadline = self.started.saturating_add(self.shared.settings.request_timeout);
        let estimate = prompt_tokens(&messages);
        let mut call = self.call(plan, messages, max_tokens);
        call.sampling = Sampling { temperature: Some(0.0), ..Sampling::default() };
        let mut pending = self.tally.begin(estimate);
        let opened = ports.models.open(permit, tenant, plan, &mut call, deadline).await;
        let mut reply = match opened {
            Ok(reply) => reply,
            Err(error) => {
                pending.end();
                tracing::info!(tenant = %tenant.id(), trace = %self.command.trace, %error, "a side question has no answer");
                return None;
            }
        };
        let (mut text, mut usage) = (String::new(), None);
        let mut is_whole = true;
        while let Some(delta) = reply.next().await {
            match delta {
                Ok(Delta::Content(piece)) if text.len() + piece.len() <= SIDE_ANSWER_BYTES => {
                    text.push_str(&piece);
                    pending.heard(estimate_tokens(&text));
                }
                Ok(Delta::Usage(counted)) => usage = Some(counted),
                Ok(Delta::Finish(_) | Delta::Reasoning(_) | Delta::ToolCall(_)) => {}
                Ok(Delta::Content(_)) | Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        pending.end();
        match usage.filter(|_| is_whole) {
            Some(usage) => {
                let (prompt, answer) = (u64::from(usage.prompt_tokens), u64::from(usage.completion_tokens));
                self.tally.add(prompt, answer, false, None);
            }
            None => self.tally.add(estimate, estimate_tokens(&text), true, None),
        }
        is_whole.then_some(text)
    }
}
