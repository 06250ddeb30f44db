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
use crate::model::{Delta, EmbeddingCall, ModelPlan, Sampling};
use crate::port_error::degrade;
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
        let by_meaning = async {
            if *mode == SearchMode::Keyword { Ok(Vec::new()) } else { self.near(permit, meant, state, depth).await }
        };
        let by_words =
            async { if *mode == SearchMode::Vector { Ok(Vec::new()) } else { self.matching(meant, depth).await } };
        let (mut is_degraded, (by_meaning, by_words)) = (false, join(by_meaning, by_words).await);
        let (by_meaning, by_words) = match (by_meaning, by_words) {
            // That does not pass, and whoever has to mend it must see it.
            (Err(error @ (RetrievalError::OtherSpace { .. } | RetrievalError::NoEmbeddingModel)), _) => {
                return Err(error);
            }
            // Where the other index has found nothing, nobody can say that there is nothing.
            (Err(error), Ok(found)) | (Ok(found), Err(error)) if *mode == SearchMode::Hybrid && !found.is_empty() => {
                is_degraded = true;
                tracing::warn!(
                    tenant = %self.context.id(), trace = %self.command.trace, %error, "search goes on with one index"
                );
                // Which of the two it was does not matter to fusion.
                (Vec::new(), found)
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
            (Ok(by_meaning), Ok(by_words)) => (by_meaning, by_words),
        };
        let wanted = *top_k as usize;
        let kept = if self.shared.ports.reranker.is_some() { depth as usize } else { wanted };
        let ranked = fuse(*mode, by_meaning, by_words, kept);
        let sources = self.reranked(permit, ranked, wanted).await;
        Ok(Found { sources, is_degraded })
    }

    async fn near(
        &self,
        permit: &Permit,
        text: &str,
        state: &CorpusState,
        limit: u32,
    ) -> Result<Vec<Passage>, RetrievalError> {
        let (ports, tenant) = (&self.shared.ports, self.context.tenant());
        let model = tenant.embedding_model().ok_or(RetrievalError::NoEmbeddingModel)?;
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
        let Some(vector) = embedded.vectors.first() else { return Ok(Vec::new()) };
        let query = VectorQuery { vector, filter: &self.command.filter, limit };
        Ok(caught("corpus", ports.corpus.nearest(tenant.id(), query)).await?)
    }

    /// Looks for the words of the question as it was asked, and as it was rewritten.
    async fn matching(&self, meant: &str, limit: u32) -> Result<Vec<Passage>, RetrievalError> {
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
