//! The use case of an ingestion: what it needs, and how it is started.

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::StreamExt;
use futures_util::future::{Either, select};

use super::command::{IngestCommand, IngestDone, IngestReply};
use super::conduct::{Opened, conduct, conduct_within};
use crate::admission::{Admission, Permit};
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::ModelId;
use crate::model::EmbeddingGateway;
use crate::ports::{Background, Clock, Corpus, IdSource, IdempotencyStore};
use crate::search::{RetrievalError, RetrievalRejected, Tally};
use crate::tenant::{Tenant, TenantContext};

/// What a deployment decides about ingestions.
#[derive(Debug, Clone)]
pub struct IngestSettings {
    /// The most chunks of a document.
    pub max_chunks: usize,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a client may read nothing.
    pub send_timeout: Duration,
}

impl Default for IngestSettings {
    fn default() -> Self {
        Self { max_chunks: 10_000, request_timeout: Duration::from_secs(300), send_timeout: Duration::from_secs(20) }
    }
}

/// What an ingestion needs of the world.
#[derive(Clone)]
pub struct IngestPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models that embed.
    pub embeddings: EmbeddingGateway,
    /// The documents.
    pub corpus: Arc<dyn Corpus>,
    /// The answers of requests that may be repeated.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh names.
    pub ids: Arc<dyn IdSource>,
}

/// Takes documents in. Cheap to clone.
#[derive(Clone)]
pub struct IngestService {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) ports: IngestPorts,
    pub(super) settings: IngestSettings,
}

impl IngestService {
    /// A service over `ports`.
    pub fn new(ports: IngestPorts, settings: IngestSettings) -> Self {
        Self { shared: Arc::new(Shared { ports, settings }) }
    }

    /// The model that embeds the documents of `tenant`.
    pub fn embedding_model<'a>(&'a self, tenant: &'a Tenant) -> Option<&'a ModelId> {
        self.shared.ports.embeddings.model_of(tenant)
    }

    /// Takes a document in. Returns when its first chunks are kept, unseen yet; the rest comes as events.
    ///
    /// As with chats, one task on `background` does all of it, and settles and records exactly once on every ending. The older
    /// version of the document is found until the new one is whole; whatever ends the request before that, it stays.
    ///
    /// # Errors
    /// [`RetrievalRejected`] for everything that goes wrong before that.
    pub async fn ingest(
        &self,
        context: TenantContext,
        command: IngestCommand,
        background: &dyn Background,
    ) -> Result<IngestReply, RetrievalRejected> {
        let Shared { ports, settings } = &*self.shared;
        let (client, events) =
            Client::connect(background, &ports.clock, settings.request_timeout, settings.send_timeout);
        let (opened, opening) = oneshot::channel();
        background.spawn(Box::pin(conduct(Arc::clone(&self.shared), context, command, client, opened)));
        let Opened { model, chunks, rate, replayed } =
            opening.await.map_err(|_| RetrievalRejected { error: ChatError::Died.into(), rate: None })??;
        Ok(IngestReply { model, chunks, rate, replayed, events })
    }

    /// Takes a document in as a part of another request, which has passed its limits and has set tokens aside; what is spent goes
    /// to `tally`. The work ends by itself after `time`, and leaves nothing behind then. If the future is dropped before, the older
    /// version stays too, and what was staged is swept away later.
    pub(crate) async fn ingest_within(
        &self,
        context: TenantContext,
        command: IngestCommand,
        time: Duration,
        permit: &Permit,
        tally: &Tally,
    ) -> Result<IngestDone, RetrievalError> {
        let (client, mut events) = Client::within(&self.shared.ports.clock, time);
        let work = conduct_within(Arc::clone(&self.shared), context, command, client, permit, tally);
        // Somebody has to listen: a client that takes no events counts as gone.
        let listening = async {
            while events.next().await.is_some() {}
            pending::<()>().await;
        };
        match select(pin!(work), pin!(listening)).await {
            Either::Left((done, _)) => done,
            Either::Right(_) => Err(RetrievalError::Lost),
        }
    }
}
