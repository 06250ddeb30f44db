//! The life of one ingestion, from its first slot to its last record. One task runs it, whatever the client does.

use std::sync::Arc;

use futures_channel::oneshot;

use super::command::{IngestCommand, IngestDone, IngestEvent};
use super::service::Shared;
use crate::admission::{AdmissionError, Entry, Permit, Spent};
use crate::caught::caught;
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::{ModelId, VersionId};
use crate::idempotency::{Begin, REPLAY_FOR};
use crate::limit::RateStatus;
use crate::model::{CallMetadata, EmbeddedBatch, EmbeddingBatches, EmbeddingCall, GatewayError};
use crate::port_error::{PortError, degrade};
use crate::retrieval::{Chunk, EmbeddedChunk, EmbeddingSpace, PublishError, Staging, chunk, normalise};
use crate::search::{RetrievalError, RetrievalRejected, Tally};
use crate::session::estimate_tokens;
use crate::tenant::TenantContext;
use crate::time::Timestamp;
use crate::usage::{Ending, UsageRecord};

/// What is known when a reply begins.
pub(super) struct Opened {
    pub(super) model: ModelId,
    pub(super) chunks: u32,
    pub(super) rate: RateStatus,
    pub(super) replayed: bool,
}

type Opening = oneshot::Sender<Result<Opened, RetrievalRejected>>;

/// One request on its way.
struct Run {
    shared: Arc<Shared>,
    context: TenantContext,
    command: IngestCommand,
    started: Timestamp,
    tally: Tally,
}

/// How a request that had its slots has ended.
struct Outcome {
    spent: Spent,
    record: Option<UsageRecord>,
    told: Result<(IngestDone, Option<RetrievalError>), (Opening, RetrievalError)>,
}

/// Why the work ended before the document was published.
enum Failure {
    Error(RetrievalError),
    Ending(Ending),
}

impl<E: Into<RetrievalError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Error(error.into())
    }
}

impl Failure {
    fn ending(&self) -> Ending {
        match self {
            Self::Ending(ending) => *ending,
            Self::Error(error) if error.is_timeout() => Ending::TimedOut,
            Self::Error(_) => Ending::Failed,
        }
    }

    fn error(self) -> RetrievalError {
        match self {
            Self::Error(error) => error,
            Self::Ending(Ending::ShutDown) => ChatError::ShuttingDown.into(),
            Self::Ending(Ending::ClientGone) => ChatError::ClientGone.into(),
            Self::Ending(_) => ChatError::TimedOut.into(),
        }
    }
}

pub(super) async fn conduct(
    shared: Arc<Shared>,
    context: TenantContext,
    command: IngestCommand,
    client: Client<IngestEvent>,
    opening: Opening,
) {
    let started = shared.ports.clock.now();
    Run { shared, context, command, started, tally: Tally::default() }.run(client, opening).await;
}

/// Takes a document in as a part of another request, whose limits and books are that request's own.
pub(super) async fn conduct_within(
    shared: Arc<Shared>,
    context: TenantContext,
    command: IngestCommand,
    mut client: Client<IngestEvent>,
    permit: &Permit,
    tally: &Tally,
) -> Result<IngestDone, RetrievalError> {
    let started = shared.ports.clock.now();
    // If this is dropped on its way, what it would have read counts as read.
    let pending = tally.begin(estimate(&command));
    let run = Run { shared, context, command, started, tally: Tally::default() };
    let done = run.take_in_within(&mut client, permit).await;
    pending.end();
    let spending = run.tally.so_far();
    tally.add(spending.tokens_in, 0, spending.estimated, spending.provider.as_ref());
    done
}

/// The tokens that the chunks of a document have, estimated.
fn estimate(command: &IngestCommand) -> u64 {
    let title = command.document.title.as_deref().map_or(0, |title| estimate_tokens(title) + 1);
    chunk(&normalise(&command.text), &command.chunking).iter().map(|chunk| estimate_tokens(&chunk.text) + title).sum()
}

impl Run {
    async fn run(self, mut client: Client<IngestEvent>, opening: Opening) {
        match self.claim_key().await {
            Ok(None) => {}
            Ok(Some(kept)) => return self.replay(kept, client, opening).await,
            Err(error) => return reject(opening, error.into()),
        }
        match self.enter(&mut client, opening).await {
            Ok((done, None)) => {
                self.keep_answer(&done).await;
                client.close(vec![IngestEvent::Done(done)]).await;
            }
            Ok((done, Some(error))) => {
                self.free_key().await;
                client.close(vec![IngestEvent::Failed(error), IngestEvent::Done(done)]).await;
            }
            Err((opening, rejected)) => {
                // Before the client is told: its next try must not meet its own key.
                self.free_key().await;
                reject(opening, rejected);
            }
        }
    }

    async fn enter(
        &self,
        client: &mut Client<IngestEvent>,
        opening: Opening,
    ) -> Result<(IngestDone, Option<RetrievalError>), (Opening, RetrievalRejected)> {
        let ports = &self.shared.ports;
        let model = match self.model() {
            Ok(model) => model,
            Err(error) => return Err((opening, error.into())),
        };
        let request = self.command.request;
        let entry = match ports.admission.enter(&self.context, &self.command.caller, request, self.started).await {
            Ok(entry) => entry,
            Err(error) => return Err((opening, RetrievalError::from(error).into())),
        };
        let rate = *entry.rate();
        // Not before: a long text takes a while.
        let Outcome { spent, record, told } = match self.chunks() {
            Ok(chunks) => self.take_in(client, model, chunks, &entry, opening).await,
            Err(error) => Outcome { spent: Spent::Nothing, record: None, told: Err((opening, error)) },
        };
        // The one place where a request that got in is closed, whatever has become of it.
        degrade(ports.admission.close(&self.context, entry, spent, record.as_ref(), ports.clock.now()).await);
        told.map_err(|(opening, error)| (opening, RetrievalRejected { error, rate: Some(rate) }))
    }

    /// The model that embeds.
    fn model(&self) -> Result<&ModelId, RetrievalError> {
        let tenant = self.context.tenant();
        let embeddings = &self.shared.ports.embeddings;
        let model = embeddings.model_of(tenant).ok_or(RetrievalError::NoEmbeddingModel)?;
        if !embeddings.serves(tenant, model) {
            return Err(GatewayError::UnknownModel(model.clone()).into());
        }
        Ok(model)
    }

    /// The text in pieces.
    fn chunks(&self) -> Result<Vec<Chunk>, RetrievalError> {
        let chunks = chunk(&normalise(&self.command.text), &self.command.chunking);
        let most = self.shared.settings.max_chunks;
        match chunks.len() {
            0 => Err(RetrievalError::NoText),
            count if count > most => Err(RetrievalError::TooManyChunks { chunks: count, most }),
            _ => Ok(chunks),
        }
    }

    /// The space that the tenant's documents are in, when it is one that `model` can be of.
    async fn space(
        &self,
        client: &mut Client<IngestEvent>,
        model: &ModelId,
    ) -> Result<Option<EmbeddingSpace>, RetrievalError> {
        let state = caught("corpus", self.shared.ports.corpus.state(self.context.id()));
        let has = client.race(state).await.map_err(|ending| Failure::Ending(ending).error())??.space;
        match has {
            Some(has) if has.model != *model => {
                Err(RetrievalError::OtherSpace { has, model: model.clone(), dimensions: None })
            }
            has => Ok(has),
        }
    }

    /// Does the work as a part of another request, which has its slots and has set tokens aside.
    async fn take_in_within(
        &self,
        client: &mut Client<IngestEvent>,
        permit: &Permit,
    ) -> Result<IngestDone, RetrievalError> {
        let (model, chunks) = (self.model()?, self.chunks()?);
        let has = self.space(client, model).await?;
        let inputs = chunks.iter().map(|chunk| self.input(chunk)).collect();
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let version = VersionId::new(self.shared.ports.ids.uuid());
        let published =
            self.embed_and_publish(client, permit, model, has.as_ref(), version, chunks, inputs, &mut None).await;
        published.map_err(Failure::error)?;
        Ok(self.done(model, total, Ending::Finished))
    }

    /// Embeds and stages every chunk, and publishes the document.
    async fn take_in(
        &self,
        client: &mut Client<IngestEvent>,
        model: &ModelId,
        chunks: Vec<Chunk>,
        entry: &Entry,
        opening: Opening,
    ) -> Outcome {
        let ports = &self.shared.ports;
        let free = |opening, error| Outcome { spent: Spent::Nothing, record: None, told: Err((opening, error)) };
        let has = match self.space(client, model).await {
            Ok(has) => has,
            Err(error) => return free(opening, error),
        };
        let inputs: Vec<String> = chunks.iter().map(|chunk| self.input(chunk)).collect();
        let tokens = inputs.iter().map(|text| estimate_tokens(text)).sum();
        let permit = match ports.admission.reserve(&self.context, entry, tokens, ports.clock.now()).await {
            Ok(permit) => permit,
            Err(error) => {
                let spent = if matches!(error, AdmissionError::Port(_)) { Spent::Unknown } else { Spent::Nothing };
                return Outcome { spent, record: None, told: Err((opening, error.into())) };
            }
        };
        let version = VersionId::new(ports.ids.uuid());
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let opened = Opened { model: model.clone(), chunks: total, rate: *entry.rate(), replayed: false };
        let mut opening = Some((opening, opened));
        let published =
            self.embed_and_publish(client, &permit, model, has.as_ref(), version, chunks, inputs, &mut opening).await;
        let ending = published.as_ref().err().map_or(Ending::Finished, Failure::ending);
        let done = self.done(model, total, ending);
        let record = Some(self.record(model, ending));
        let spent = match self.tally.so_far().total() {
            0 => Spent::Unused(permit),
            total => Spent::Used(permit, total),
        };
        let told = match (published, opening) {
            (Ok(()), Some((opening, opened))) => {
                // A client that has gone needs no answer.
                let _ = opening.send(Ok(opened));
                Ok((done, None))
            }
            (Ok(()), None) => Ok((done, None)),
            (Err(failure), Some((opening, _))) => Err((opening, failure.error())),
            (Err(failure), None) => Ok((done, Some(failure.error()))),
        };
        Outcome { spent, record, told }
    }

    /// Has all chunks embedded, and the document found from then on; or leaves the older version as it was.
    #[expect(clippy::too_many_arguments, reason = "each is of another kind, and this is the one call")]
    async fn embed_and_publish(
        &self,
        client: &mut Client<IngestEvent>,
        permit: &Permit,
        model: &ModelId,
        has: Option<&EmbeddingSpace>,
        version: VersionId,
        chunks: Vec<Chunk>,
        inputs: Vec<String>,
        opening: &mut Option<(Opening, Opened)>,
    ) -> Result<(), Failure> {
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let published = match self.embed(client, permit, model, has, version, chunks, inputs, opening).await {
            Ok(space) => self.publish(version, space, total).await.map_err(Failure::Error),
            Err(failure) => Err(failure),
        };
        if published.is_err() {
            degrade(caught("corpus", self.shared.ports.corpus.discard(self.context.id(), version)).await);
        }
        published
    }

    fn done(&self, model: &ModelId, chunks: u32, ending: Ending) -> IngestDone {
        IngestDone {
            document: self.command.document.id.clone(),
            chunks,
            model: model.clone(),
            tokens: self.tally.so_far().total(),
            latency: self.shared.ports.clock.now().since(self.started),
            ending,
        }
    }

    /// Has all chunks embedded; the space that they are in.
    #[expect(clippy::too_many_arguments, reason = "each is of another kind, and this is the one call")]
    async fn embed(
        &self,
        client: &mut Client<IngestEvent>,
        permit: &Permit,
        model: &ModelId,
        has: Option<&EmbeddingSpace>,
        version: VersionId,
        chunks: Vec<Chunk>,
        inputs: Vec<String>,
        opening: &mut Option<(Opening, Opened)>,
    ) -> Result<EmbeddingSpace, Failure> {
        let deadline = self.started.saturating_add(self.shared.settings.request_timeout);
        let call = EmbeddingCall { model: model.clone(), inputs, dimensions: None, metadata: self.metadata() };
        let mut batches = self.shared.ports.embeddings.batches(permit, self.context.tenant(), call, deadline)?;
        let staged = self.stage(client, &mut batches, has, version, chunks, opening).await;
        // What was let go in the middle of its work has read what it was given.
        let unanswered = batches.unanswered();
        if unanswered > 0 {
            self.tally.add(unanswered, 0, true, Some(&batches.provider));
        }
        staged
    }

    /// Stages each batch of chunks as it comes.
    async fn stage(
        &self,
        client: &mut Client<IngestEvent>,
        batches: &mut EmbeddingBatches,
        has: Option<&EmbeddingSpace>,
        version: VersionId,
        chunks: Vec<Chunk>,
        opening: &mut Option<(Opening, Opened)>,
    ) -> Result<EmbeddingSpace, Failure> {
        let ports = &self.shared.ports;
        let (tenant, document) = (self.context.id(), &self.command.document.id);
        let total = u32::try_from(chunks.len()).unwrap_or(u32::MAX);
        let (mut rest, mut done, mut in_space) = (chunks.into_iter(), 0, None);
        while let Some(batch) = self.next_batch(client, batches).await? {
            let EmbeddedBatch { space, vectors, tokens, estimated } = batch;
            self.tally.add(tokens, 0, estimated, Some(&batches.provider));
            if let Some(has) = has.filter(|has| **has != space) {
                // Before anything is written, and before the rest is paid for.
                return Err(other_space(has.clone(), space).into());
            }
            // The vectors come first: of what is on the right none is taken when they have come to their end.
            let embedded: Vec<_> =
                vectors.into_iter().zip(rest.by_ref()).map(|(vector, chunk)| EmbeddedChunk { chunk, vector }).collect();
            done += u32::try_from(embedded.len()).unwrap_or(u32::MAX);
            let staging = Staging { document, version, space: &space };
            let staged = caught("corpus", ports.corpus.stage(tenant, staging, &embedded, ports.clock.now()));
            client.race(staged).await.map_err(Failure::Ending)??;
            in_space = Some(space);
            // The one who waits for all of it is told at the end, what went wrong with what came first too.
            if done < total {
                if let Some((opening, opened)) = opening.take() {
                    let _ = opening.send(Ok(opened));
                }
                client.send(IngestEvent::Progress { done, total }).await.map_err(Failure::Ending)?;
            }
        }
        Ok(in_space.ok_or(RetrievalError::Lost)?)
    }

    /// Has the version found from now on. Not in a race: whether it was published must be known.
    async fn publish(&self, version: VersionId, space: EmbeddingSpace, chunks: u32) -> Result<(), RetrievalError> {
        let ports = &self.shared.ports;
        let (tenant, document) = (self.context.id(), &self.command.document);
        let ask = || {
            let now = ports.clock.now();
            caught("corpus", ports.corpus.publish(tenant, version, document, &space, chunks, now))
        };
        let published = match ask().await {
            // Nobody knows. Asked again, the corpus says so, or does it now.
            Err(PortError::Timeout { .. }) => ask().await,
            published => published,
        };
        match published? {
            Ok(_) => Ok(()),
            Err(PublishError::NotStaged) => Err(RetrievalError::Lost),
            Err(PublishError::OtherSpace { has }) => Err(other_space(has, space)),
        }
    }

    async fn next_batch(
        &self,
        client: &mut Client<IngestEvent>,
        batches: &mut EmbeddingBatches,
    ) -> Result<Option<EmbeddedBatch>, Failure> {
        Ok(client.race(batches.next()).await.map_err(Failure::Ending)?.transpose()?)
    }

    /// What of a chunk is embedded: the title tells what it is about where the chunk does not.
    fn input(&self, chunk: &Chunk) -> String {
        match &self.command.document.title {
            Some(title) => format!("{title}\n\n{}", chunk.text),
            None => chunk.text.clone(),
        }
    }

    fn metadata(&self) -> CallMetadata {
        CallMetadata {
            tenant: self.context.id().clone(),
            trace: self.command.trace.clone(),
            traceparent: self.command.traceparent.clone(),
            session: None,
            route: self.command.route,
            gateway: self.context.tenant().ai_gateway_id().map(str::to_owned),
        }
    }

    fn record(&self, model: &ModelId, ending: Ending) -> UsageRecord {
        let spending = self.tally.so_far();
        UsageRecord {
            request: self.command.request,
            trace: self.command.trace.clone(),
            route: self.command.route.to_owned(),
            user: self.command.caller.user.clone(),
            session: None,
            model: model.clone(),
            provider: spending.provider.clone(),
            at: self.started,
            latency: self.shared.ports.clock.now().since(self.started),
            first_token: None,
            tokens_in: u32::try_from(spending.tokens_in).unwrap_or(u32::MAX),
            tokens_out: 0,
            characters: None,
            estimated: spending.estimated,
            charged: 0,
            overrun: 0,
            ending,
        }
    }

    /// Asks for the idempotency key; `Some` is the answer of the first request.
    async fn claim_key(&self) -> Result<Option<IngestDone>, RetrievalError> {
        let Some((key, fingerprint)) = &self.command.idempotency else { return Ok(None) };
        let Shared { ports, settings } = &*self.shared;
        // Who has no slot left is refused before anything is written.
        let rate = ports.admission.peek(&self.context, &self.command.caller, self.started).await?;
        if rate.remaining == 0 {
            return Err(AdmissionError::RateLimited(rate).into());
        }
        let lease = self.started.saturating_add(settings.request_timeout * 2);
        let (request, tenant) = (self.command.request, self.context.id());
        let begun = ports.idempotency.begin(tenant, key, fingerprint, request, lease, self.started).await;
        if begun.is_err() {
            // It may have been given the key all the same, and would keep its own repeat out until the lease ends.
            self.free_key().await;
        }
        match begun? {
            Begin::First => Ok(None),
            Begin::InProgress => Err(ChatError::IdempotencyInProgress.into()),
            Begin::Mismatch => Err(ChatError::IdempotencyMismatch.into()),
            Begin::Replay(kept) => serde_json::from_str(&kept)
                .map(Some)
                .map_err(|error| PortError::corrupt("idempotency store", error).into()),
        }
    }

    async fn replay(&self, kept: IngestDone, client: Client<IngestEvent>, opening: Opening) {
        let peeked = self.shared.ports.admission.peek(&self.context, &self.command.caller, self.started).await;
        let rate = match peeked {
            Ok(rate) => rate,
            Err(error) => return reject(opening, RetrievalError::from(error).into()),
        };
        let opened = Opened { model: kept.model.clone(), chunks: kept.chunks, rate, replayed: true };
        let _ = opening.send(Ok(opened));
        client.close(vec![IngestEvent::Done(kept)]).await;
    }

    async fn keep_answer(&self, done: &IngestDone) {
        let Some((key, _)) = &self.command.idempotency else { return };
        let Ok(answer) = serde_json::to_string(done) else { return };
        let until = self.started.saturating_add(REPLAY_FOR);
        let store = &self.shared.ports.idempotency;
        degrade(store.finish(self.context.id(), key, &self.command.request, &answer, until).await);
    }

    async fn free_key(&self) {
        let Some((key, _)) = &self.command.idempotency else { return };
        degrade(self.shared.ports.idempotency.abandon(self.context.id(), key, &self.command.request).await);
    }
}

fn other_space(has: EmbeddingSpace, of: EmbeddingSpace) -> RetrievalError {
    RetrievalError::OtherSpace { has, model: of.model, dimensions: Some(of.dimensions) }
}

/// Tells the caller, who may have gone.
fn reject(opening: Opening, rejected: RetrievalRejected) {
    let _ = opening.send(Err(rejected));
}
