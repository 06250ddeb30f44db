//! Calls of embedding models: batches, retries, breakers and timeouts, the same for every provider.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};

use super::attempts::{Attempt, Attempts};
use super::{
    BreakerPolicy, EmbedderCatalog, EmbedderRoute, EmbeddingCall, Embeddings, GatewayError, ModelError, Outcome,
    RetryPolicy, check_vectors,
};
use crate::admission::Permit;
use crate::id::{ModelId, ProviderId};
use crate::ports::{Clock, IdSource};
use crate::retrieval::EmbeddingSpace;
use crate::session::estimate_tokens;
use crate::tenant::Tenant;
use crate::time::Timestamp;

/// Batches of one request that are with the provider at the same time.
const CONCURRENCY: usize = 4;

/// Texts, and their places in the space of meanings.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedded {
    /// Where the vectors can be compared.
    pub space: EmbeddingSpace,
    /// One for each text, in their order, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read: the provider's count, or else an estimate.
    pub tokens: u64,
    /// Whether a part of the tokens at least is an estimate.
    pub estimated: bool,
    /// Who has embedded them.
    pub provider: ProviderId,
}

/// Some of a call's texts: those that follow on the batch before.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddedBatch {
    /// Where the vectors can be compared; the same for all batches of a call.
    pub space: EmbeddingSpace,
    /// One for each text, in their order, of length 1.
    pub vectors: Vec<Vec<f32>>,
    /// Tokens that were read: the provider's count, or else an estimate.
    pub tokens: u64,
    /// Whether the tokens are an estimate.
    pub estimated: bool,
}

/// Calls embedding models.
#[derive(Clone)]
pub struct EmbeddingGateway {
    catalog: Arc<dyn EmbedderCatalog>,
    attempts: Attempts,
    timeout: Duration,
    prescribed: Option<ModelId>,
}

impl EmbeddingGateway {
    /// A gateway to the models of `catalog`, which have `timeout` for a batch.
    pub fn new(
        catalog: Arc<dyn EmbedderCatalog>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn IdSource>,
        breaker: BreakerPolicy,
        retry: RetryPolicy,
        timeout: Duration,
    ) -> Self {
        Self { catalog, attempts: Attempts::new(clock, ids, breaker, retry), timeout, prescribed: None }
    }

    /// Embeds the documents and questions of all tenants by `model`, if there is one, whatever they say themselves.
    #[must_use]
    pub fn with_model(mut self, model: Option<ModelId>) -> Self {
        self.prescribed = model;
        self
    }

    /// The model that embeds the documents and questions of `tenant`: the deployment's, or else its own.
    pub fn model_of<'a>(&'a self, tenant: &'a Tenant) -> Option<&'a ModelId> {
        self.prescribed.as_ref().or_else(|| tenant.embedding_model())
    }

    /// Whether somebody serves `model` to `tenant`. Whether the tenant may ask for it is not asked here.
    pub fn serves(&self, tenant: &Tenant, model: &ModelId) -> bool {
        self.catalog.find(tenant, model).is_some()
    }

    /// Embeds all texts of `call`, of which there is at least one. Each batch is tried as often as the retry policy says.
    ///
    /// The permit shows that the limiter and the ledger have agreed.
    ///
    /// # Errors
    /// [`GatewayError`] of the first batch that failed. What the batches before it have used is not told:
    /// [`batches`](Self::batches) is for those who have to know.
    pub async fn embed(
        &self,
        permit: &Permit,
        tenant: &Tenant,
        call: EmbeddingCall,
        deadline: Timestamp,
    ) -> Result<Embedded, GatewayError> {
        let model = call.model.clone();
        let mut batches = self.batches(permit, tenant, call, deadline)?;
        let Some(first) = batches.next().await else { return Err(nothing_to_embed(model)) };
        let EmbeddedBatch { space, mut vectors, mut tokens, mut estimated } = first?;
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            vectors.extend(batch.vectors);
            tokens = tokens.saturating_add(batch.tokens);
            estimated |= batch.estimated;
        }
        Ok(Embedded { space, vectors, tokens, estimated, provider: batches.provider })
    }

    /// The same batch by batch, for callers who keep each before the next one has come, or who tell how far they are. Nothing is
    /// asked before the first is awaited.
    ///
    /// The first batch goes alone: what is wrong with all of them fails once, and a provider whose breaker wants to see one call
    /// succeed is not refused for the others. Then four are under way at a time.
    ///
    /// # Errors
    /// [`GatewayError::UnknownModel`].
    pub fn batches(
        &self,
        _permit: &Permit,
        tenant: &Tenant,
        call: EmbeddingCall,
        deadline: Timestamp,
    ) -> Result<EmbeddingBatches, GatewayError> {
        let model = call.model.clone();
        let Some(route) = self.catalog.find(tenant, &model) else { return Err(GatewayError::UnknownModel(model)) };
        let (provider, texts) = (route.provider.clone(), call.inputs.len());
        let mut calls = cut(call, route.max_batch.max(1)).into_iter();
        let Some(first) = calls.next() else { return Err(nothing_to_embed(model)) };
        let asked = Arc::new(AtomicU64::new(0));
        let ask = Ask { route, attempts: self.attempts.clone(), timeout: self.timeout, deadline, asked: asked.clone() };
        let ask = Arc::new(ask);
        let alone = Arc::clone(&ask);
        let stream = stream::once(async move { alone.embed(first, None).await }).flat_map(move |first| {
            // The others have to have as many dimensions as the first, and are not asked for when it has failed.
            let dimensions = first.1.as_ref().map(|batch| batch.space.dimensions).ok();
            let others = if dimensions.is_some() { std::mem::take(&mut calls) } else { Vec::new().into_iter() };
            let ask = Arc::clone(&ask);
            let others = stream::iter(others).map(move |call| {
                let ask = Arc::clone(&ask);
                async move { ask.embed(call, dimensions).await }
            });
            stream::iter([first]).chain(others.buffered(CONCURRENCY))
        });
        Ok(EmbeddingBatches { provider, texts, asked, stream: Some(stream.boxed()) })
    }
}

/// The batches of a call, in their order. Dropping them ends the work.
pub struct EmbeddingBatches {
    /// Who embeds them.
    pub provider: ProviderId,
    /// The texts of all batches together.
    pub texts: usize,
    /// Tokens of the batches that the provider was asked for, and that were not handed over.
    asked: Arc<AtomicU64>,
    /// Each with its estimate of tokens.
    stream: Option<BoxStream<'static, (u64, Result<EmbeddedBatch, GatewayError>)>>,
}

impl EmbeddingBatches {
    /// The next batch; `None` when all have come. A failure is the last that comes, and ends the work of the batches after it.
    ///
    /// # Errors
    /// [`GatewayError`] of the batch that failed.
    pub async fn next(&mut self) -> Option<Result<EmbeddedBatch, GatewayError>> {
        let batch = self.stream.as_mut()?.next().await.map(|(tokens, batch)| {
            self.asked.fetch_sub(tokens, Ordering::Relaxed);
            batch
        });
        if !matches!(batch, Some(Ok(_))) {
            self.stream = None;
        }
        batch
    }

    /// Estimated tokens of the batches that the provider was asked for and that have not come: whoever lets them go has spent
    /// that too.
    pub fn unanswered(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

/// What all batches of a call have in common.
struct Ask {
    route: EmbedderRoute,
    attempts: Attempts,
    timeout: Duration,
    deadline: Timestamp,
    asked: Arc<AtomicU64>,
}

impl Ask {
    async fn embed(&self, call: EmbeddingCall, dimensions: Option<u32>) -> (u64, Result<EmbeddedBatch, GatewayError>) {
        let estimate = call.inputs.iter().map(|text| estimate_tokens(text)).sum();
        self.asked.fetch_add(estimate, Ordering::Relaxed);
        (estimate, self.answer(&call, dimensions, estimate).await)
    }

    async fn answer(
        &self,
        call: &EmbeddingCall,
        dimensions: Option<u32>,
        estimate: u64,
    ) -> Result<EmbeddedBatch, GatewayError> {
        let (provider, model) = (&self.route.provider, &call.model);
        let attempt = Attempt { provider, model, limit: self.timeout, deadline: self.deadline };
        let work = || async { check(self.route.embedder.embed(call).await?, call, dimensions) };
        let ((embeddings, dimensions), admitted) = self
            .attempts
            .make(attempt, work)
            .await
            .map_err(|source| GatewayError::Failed { model: model.clone(), source })?;
        admitted.record(Outcome::Success, self.attempts.clock.now());
        // Servers that do not count say 0.
        let counted = embeddings.prompt_tokens.filter(|tokens| *tokens > 0);
        Ok(EmbeddedBatch {
            space: EmbeddingSpace { model: model.clone(), dimensions },
            vectors: embeddings.vectors,
            tokens: counted.map_or(estimate, u64::from),
            estimated: counted.is_none(),
        })
    }
}

/// Checks an answer against its call, and against the dimensions of the answers before.
fn check(
    mut embeddings: Embeddings,
    call: &EmbeddingCall,
    before: Option<u32>,
) -> Result<(Embeddings, u32), ModelError> {
    let malformed = |message: &str| ModelError::Malformed { message: message.to_owned() };
    check_vectors(&mut embeddings.vectors, call.inputs.len()).map_err(malformed)?;
    let dimensions = embeddings.vectors.first().map_or(0, Vec::len);
    let dimensions = u32::try_from(dimensions).map_err(|_| malformed("the vectors are too long"))?;
    if call.dimensions.is_some_and(|asked| asked != dimensions) {
        return Err(ModelError::Unsupported { feature: "dimensions" });
    }
    if before.is_some_and(|before| before != dimensions) {
        return Err(malformed("the vectors have not as many dimensions as those of the batch before"));
    }
    Ok((embeddings, dimensions))
}

fn nothing_to_embed(model: ModelId) -> GatewayError {
    let source = ModelError::Rejected { status: 400, message: "no texts".to_owned() };
    GatewayError::Failed { model, source }
}

/// Cuts a call into calls of at most `max` texts.
fn cut(mut call: EmbeddingCall, max: usize) -> Vec<EmbeddingCall> {
    let mut inputs = std::mem::take(&mut call.inputs).into_iter();
    let batches = inputs.len().div_ceil(max);
    (0..batches).map(|_| EmbeddingCall { inputs: inputs.by_ref().take(max).collect(), ..call.clone() }).collect()
}
