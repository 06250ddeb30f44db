//! The use case of a search: what it needs, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_channel::oneshot;

use super::command::{KeptSearch, SearchCommand, SearchReply};
use super::conduct::{Opened, conduct};
use super::error::RetrievalRejected;
use super::flights::Flights;
use crate::admission::{Admission, Permit};
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::TenantId;
use crate::model::{EmbeddingGateway, ModelGateway, ModelOverrides};
use crate::port_error::PortError;
use crate::ports::{Background, Cache, Clock, Corpus, IdSource};
use crate::retrieval::Ranked;
use crate::tenant::TenantContext;

/// What a deployment decides about searches.
#[derive(Debug, Clone)]
pub struct SearchSettings {
    /// Models that it prescribes.
    pub overrides: ModelOverrides,
    /// How many tokens the question and its sources may have together, estimated.
    pub prompt_tokens: u64,
    /// The answer's cap, in tokens.
    pub max_tokens: u32,
    /// How long a model may take to put the question in other words; then it is searched for as it is. `None` leaves it out.
    pub rewrite_timeout: Option<Duration>,
    /// How long an answer that is whole waits for its follow-up questions. `None` leaves them out.
    pub follow_up_wait: Option<Duration>,
    /// How long a reranker may take; then the order stays as it is.
    pub rerank_timeout: Duration,
    /// How long an answer is kept.
    pub cache_for: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a client may read nothing.
    pub send_timeout: Duration,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            overrides: ModelOverrides::default(),
            prompt_tokens: 3000,
            max_tokens: 512,
            rewrite_timeout: Some(Duration::from_secs(2)),
            follow_up_wait: Some(Duration::from_secs(1)),
            rerank_timeout: Duration::from_secs(1),
            cache_for: Duration::from_secs(3600),
            request_timeout: Duration::from_secs(120),
            send_timeout: Duration::from_secs(20),
        }
    }
}

/// Puts passages into a better order than the indexes did, for those who embed the platform and have such a model.
#[async_trait]
pub trait Reranker: Send + Sync {
    /// How well each passage answers `query`, in [0, 1], in the passages' order.
    ///
    /// # Errors
    /// [`PortError`]; the order stays as it was then.
    async fn rerank(
        &self,
        permit: &Permit,
        tenant: &TenantId,
        query: &str,
        passages: &[Ranked],
    ) -> Result<Vec<f64>, PortError>;
}

/// What a search needs of the world.
#[derive(Clone)]
pub struct SearchPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models that answer.
    pub models: ModelGateway,
    /// The models that embed.
    pub embeddings: EmbeddingGateway,
    /// The documents.
    pub corpus: Arc<dyn Corpus>,
    /// Answers that are kept.
    pub cache: Arc<dyn Cache>,
    /// A better order, where there is somebody to make one.
    pub reranker: Option<Arc<dyn Reranker>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub ids: Arc<dyn IdSource>,
}

/// Answers questions from documents. Cheap to clone.
#[derive(Clone)]
pub struct SearchService {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) ports: SearchPorts,
    pub(super) settings: SearchSettings,
    pub(super) flights: Flights<Arc<KeptSearch>>,
}

impl SearchService {
    /// A service over `ports`.
    pub fn new(ports: SearchPorts, settings: SearchSettings) -> Self {
        Self { shared: Arc::new(Shared { ports, settings, flights: Flights::default() }) }
    }

    /// Answers `command`. Returns when the sources are known and the model has begun to answer; the rest comes as events.
    ///
    /// As with chats, one task on `background` does all of it, and settles and records exactly once on every ending. All that is
    /// spent on the way, on the question's other words, its vector, the answer and the follow-up questions, is one reservation and
    /// one record.
    ///
    /// # Errors
    /// [`RetrievalRejected`] for everything that goes wrong before the first piece of the answer.
    pub async fn search(
        &self,
        context: TenantContext,
        command: SearchCommand,
        background: &dyn Background,
    ) -> Result<SearchReply, RetrievalRejected> {
        let Shared { ports, settings, .. } = &*self.shared;
        let (client, events) =
            Client::connect(background, &ports.clock, settings.request_timeout, settings.send_timeout);
        let (opened, opening) = oneshot::channel();
        background.spawn(Box::pin(conduct(Arc::clone(&self.shared), context, command, client, opened)));
        let Opened { model, rate, cache } =
            opening.await.map_err(|_| RetrievalRejected { error: ChatError::Died.into(), rate: None })??;
        Ok(SearchReply { model, rate, cache, events })
    }
}
