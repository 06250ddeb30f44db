//! Puts the core, its adapters and the router together. The one place that names them all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use enigma_cloudflare::{
    AiBinding, D1AuditLog, D1SessionIndex, KvTenantDirectory, MissingBinding, ObjectBooks, ObjectIdempotencyStore,
    ObjectSessions, Objects, TenantRules, UsageDataset, WorkerClock, WorkerIds, WorkersAiEmbedder, WorkersAiModel,
    WorkersAiSynthesizer,
};
use enigma_core::admission::Admission;
use enigma_core::chat::{ChatPorts, ChatService, SessionService};
use enigma_core::embeddings::{EmbedPorts, EmbedService};
use enigma_core::ingest::{DocumentService, IngestPorts, IngestService, IngestSettings};
use enigma_core::model::{
    EmbedderRoute, EmbeddingGateway, ModelGateway, ModelRoute, SpeechGateway, SpeechRoute, StaticCatalog,
    StaticEmbedderCatalog, StaticSpeechCatalog,
};
use enigma_core::ports::{
    Clock, IdSource, IdempotencyStore, SessionIndex, SessionStore, TenantDirectory, TokenLedger, TurnQueue,
};
use enigma_core::search::{SearchPorts, SearchService, SearchSettings};
use enigma_core::speech::{SpeechPorts, SpeechService, SpeechSettings};
use enigma_core::tenant::Resolver;
use enigma_core::tools::{ToolPorts, ToolRegistry, ToolService};
use enigma_core::{PortError, ProviderId, RequestId, TenantId, Timestamp};
use enigma_http::{App, AppPorts, Readiness};
use enigma_openai::{OpenAiEmbedder, OpenAiModel, OpenAiSynthesizer};
use futures_util::future::{Either, select};
use thiserror::Error;
use worker::Env;

use crate::config::{self, Config, ConfigError, WORKERS_AI_PROVIDER};
use crate::retrieval::Retrieval;
use crate::tenants::BUNDLE;
use crate::transport::FetchTransport;

/// What a reservation may outlive its request by: the last events to a slow client, and the bookkeeping.
const RESERVATION_MARGIN: Duration = Duration::from_secs(60);
/// How long a deletion waits for a turn that is under way.
const DELETION_PATIENCE: Duration = Duration::from_secs(30);

/// How long the bindings may take to show that they are there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why this Worker can answer nothing.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Binding(#[from] MissingBinding),
    #[error("a binding is not what it should be")]
    Port(#[from] PortError),
}

/// The router over everything, for all requests of an isolate.
///
/// # Errors
/// [`StartError`].
pub(crate) fn router(config: &Config, env: &Env) -> Result<Router, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(WorkerClock);
    let ids: Arc<dyn IdSource> = Arc::new(WorkerIds);
    let objects = Objects::from_env(env)?;
    let index = D1SessionIndex::from_env(env)?;
    let books = ObjectBooks::new(objects.clone()).with_dataset(UsageDataset::from_env(env));
    let lifetime = config.chat.request_timeout + config.chat.send_timeout + RESERVATION_MARGIN;
    let sessions = Arc::new(ObjectSessions::new(objects.clone(), index.clone(), lifetime, config.chat.request_timeout));
    let rules = TenantRules { production: config.environment.is_production, serves: None };
    let directory: Arc<dyn TenantDirectory> =
        Arc::new(KvTenantDirectory::from_env(env, BUNDLE, rules, config.tenants, Arc::clone(&clock))?);
    let Catalogs { chat: catalog, embedders, speech } = catalogs(config, env)?;
    let models = ModelGateway::new(
        Arc::new(catalog),
        Arc::clone(&clock),
        Arc::clone(&ids),
        config.models.breaker,
        config.models.retry,
        config.models.timeouts,
    );
    let embeddings = EmbeddingGateway::new(
        Arc::new(embedders),
        Arc::clone(&clock),
        Arc::clone(&ids),
        config.models.breaker,
        config.models.retry,
        config.models.timeouts.first_token,
    )
    .with_model(config.embedding_model.clone());
    let admission = Admission::new(Arc::new(books.clone()), lifetime);
    let speech = speaking(config, speech, &admission, &clock, &ids);
    let idempotency: Arc<dyn IdempotencyStore> = Arc::new(ObjectIdempotencyStore::new(objects));
    let Retrieval { corpus, cache } = Retrieval::from_env(config, env, Arc::clone(&directory))?;
    let search = SearchPorts {
        admission: admission.clone(),
        models: models.clone(),
        embeddings: embeddings.clone(),
        corpus: Arc::clone(&corpus),
        cache,
        reranker: None,
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let ingest = IngestPorts {
        admission: admission.clone(),
        embeddings: embeddings.clone(),
        corpus: Arc::clone(&corpus),
        idempotency: Arc::clone(&idempotency),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let (request_timeout, send_timeout) = (config.chat.request_timeout, config.chat.send_timeout);
    let overrides = config.chat.overrides.clone();
    let searching = SearchSettings { overrides, request_timeout, send_timeout, ..SearchSettings::default() };
    let ingesting = IngestSettings { request_timeout, send_timeout, ..IngestSettings::default() };
    let ingest = IngestService::new(ingest, ingesting);
    let tools = ToolPorts {
        admission: admission.clone(),
        models: models.clone(),
        idempotency: Arc::clone(&idempotency),
        audit: Arc::new(D1AuditLog::from_env(env)?),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let tools = ToolService::new(ToolRegistry::built_in(ingest.clone()), tools, config.tools.clone());
    let embed = EmbedPorts { admission: admission.clone(), embeddings, clock: Arc::clone(&clock) };
    let chat = ChatPorts {
        admission,
        models,
        turns: Arc::clone(&sessions) as _,
        idempotency,
        tools: Some(tools.clone()),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let listed: Arc<dyn SessionIndex> = Arc::new(index);
    let ports = AppPorts {
        resolver: Resolver::new(Arc::clone(&directory), None),
        directory,
        chat: ChatService::new(chat, config.chat.clone()),
        sessions: SessionService::new(
            Arc::clone(&sessions) as Arc<dyn SessionStore>,
            Arc::clone(&listed),
            sessions as Arc<dyn TurnQueue>,
            Arc::clone(&clock),
            DELETION_PATIENCE,
        ),
        search: SearchService::new(search, searching),
        ingest,
        tools,
        documents: DocumentService::new(corpus),
        embeddings: EmbedService::new(embed, request_timeout),
        speech,
        readiness: Arc::new(BindingsAnswer { books, listed, clock: Arc::clone(&clock) }),
        clock,
        ids,
    };
    Ok(enigma_http::router(App::new(ports, config.http.clone())))
}

/// Who speaks.
fn speaking(
    config: &Config,
    catalog: StaticSpeechCatalog,
    admission: &Admission,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> SpeechService {
    let (models, chat) = (&config.models, &config.chat);
    let speech = SpeechGateway::new(
        Arc::new(catalog),
        Arc::clone(clock),
        Arc::clone(ids),
        models.breaker,
        models.retry,
        models.timeouts,
    );
    let ports = SpeechPorts { admission: admission.clone(), speech, clock: Arc::clone(clock) };
    let settings = SpeechSettings { request_timeout: chat.request_timeout, send_timeout: chat.send_timeout };
    SpeechService::new(ports, settings)
}

/// The models: those that answer, those that embed, and those that speak.
struct Catalogs {
    chat: StaticCatalog,
    embedders: StaticEmbedderCatalog,
    speech: StaticSpeechCatalog,
}

/// Every provider under its models' names; what none of them serves is Workers AI's.
fn catalogs(config: &Config, env: &Env) -> Result<Catalogs, MissingBinding> {
    let (mut catalog, mut embedders) = (StaticCatalog::new(), StaticEmbedderCatalog::new());
    let mut speech = StaticSpeechCatalog::new();
    for provider in &config.providers {
        let embedder = OpenAiEmbedder::new(provider.endpoint.clone(), Arc::new(FetchTransport));
        let embedder = EmbedderRoute {
            provider: provider.id.clone(),
            embedder: Arc::new(embedder),
            max_batch: OpenAiEmbedder::MAX_BATCH,
        };
        let synthesizer = Arc::new(OpenAiSynthesizer::new(provider.endpoint.clone(), Arc::new(FetchTransport)));
        let speaker = SpeechRoute { provider: provider.id.clone(), synthesizer };
        let model = Arc::new(OpenAiModel::new(provider.endpoint.clone(), Arc::new(FetchTransport)));
        let route = ModelRoute { provider: provider.id.clone(), model };
        for name in &provider.models {
            catalog = catalog.with_model(name.clone(), route.clone());
        }
        for name in &provider.embeddings {
            embedders = embedders.with_model(name.clone(), embedder.clone());
        }
        for name in &provider.speech {
            speech = speech.with_model(name.clone(), speaker.clone());
        }
        if provider.is_default {
            catalog = catalog.with_default(route);
            embedders = embedders.with_default(embedder);
            speech = speech.with_default(speaker);
        }
    }
    let binding = AiBinding::from_env(env, "AI")?;
    let (mut model, mut embedder) = (WorkersAiModel::new(binding.clone()), WorkersAiEmbedder::new(binding.clone()));
    let mut synthesizer = WorkersAiSynthesizer::new(binding);
    if let Some(gateway) = &config.gateway_id {
        model = model.with_default_gateway(gateway.clone());
        embedder = embedder.with_default_gateway(gateway.clone());
        synthesizer = synthesizer.with_default_gateway(gateway.clone());
    }
    let provider = ProviderId::new(WORKERS_AI_PROVIDER).expect("it keeps to the alphabet");
    let route = ModelRoute { provider: provider.clone(), model: Arc::new(model) };
    for name in &config.ai_models {
        catalog = catalog.with_model(name.clone(), route.clone());
    }
    let speaker = SpeechRoute { provider: provider.clone(), synthesizer: Arc::new(synthesizer) };
    let embedder = EmbedderRoute { provider, embedder: Arc::new(embedder), max_batch: WorkersAiEmbedder::MAX_BATCH };
    Ok(Catalogs {
        chat: catalog.with_default(route),
        embedders: embedders.with_default(embedder),
        speech: speech.with_default(speaker),
    })
}

/// Ready while an object and D1 answer: one piece of work that changes nothing, and one read.
struct BindingsAnswer {
    books: ObjectBooks,
    listed: Arc<dyn SessionIndex>,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Readiness for BindingsAnswer {
    async fn check(&self) -> Result<(), String> {
        let nobody = TenantId::new("readiness-probe").expect("it keeps to the alphabet");
        let request = RequestId::new(uuid::Uuid::nil());
        let probe = async {
            self.listed.list(&nobody, None, Timestamp::from_millis(0), None, 1).await?;
            TokenLedger::release(&self.books, &nobody, &request).await?;
            Ok::<_, PortError>(())
        };
        let late = self.clock.sleep(PROBE_TIMEOUT);
        match select(std::pin::pin!(probe), late).await {
            Either::Left((probed, _)) => probed.map_err(|error| format!("a binding does not answer: {error}")),
            Either::Right(((), _)) => Err("the bindings do not answer in time".to_owned()),
        }
    }
}

/// What this Worker is configured with.
///
/// # Errors
/// [`ConfigError`].
pub(crate) fn config(env: &Env) -> Result<Config, ConfigError> {
    Config::load(&config::of(env))
}
