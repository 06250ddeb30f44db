//! Puts the core, its adapters and the router together. The one place that names them all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use enigma_core::ProviderId;
use enigma_core::admission::Admission;
use enigma_core::chat::{ChatPorts, ChatService, SessionService};
use enigma_core::embeddings::{EmbedPorts, EmbedService};
use enigma_core::ingest::{DocumentService, IngestPorts, IngestService, IngestSettings};
use enigma_core::model::{
    EmbedderRoute, EmbeddingGateway, ModelGateway, ModelRoute, SpeechGateway, SpeechRoute, StaticCatalog,
    StaticEmbedderCatalog, StaticSpeechCatalog,
};
use enigma_core::ports::{Clock, IdSource, TenantDirectory, TokenVerifier, TurnQueue};
use enigma_core::search::{SearchPorts, SearchService};
use enigma_core::speech::{SpeechPorts, SpeechService, SpeechSettings};
use enigma_core::tenant::Resolver;
use enigma_core::token::KeyAgePolicy;
use enigma_core::tools::{ToolPorts, ToolRegistry, ToolService};
use enigma_espeak::Espeak;
use enigma_http::{App, AppPorts, HttpSettings, Readiness};
use enigma_jwt::JwtVerifier;
use enigma_memory::{MemoryRateLimiter, MemoryStreamSlots, MemoryTenantDirectory, MemoryTurnQueue};
use enigma_ondevice::OnDeviceEmbedder;
use enigma_openai::{
    InvalidTransport, NativeTransport, OpenAiEmbedder, OpenAiModel, OpenAiSynthesizer, TransportOptions,
};

use crate::adapters::{OsIds, SystemClock, TrackedBackground};
use crate::config::{Config, ESPEAK_PROVIDER, ONDEVICE_PROVIDER};
use crate::key_sets::KeySets;
use crate::storage::Stores;
use crate::weights::OnDevice;

/// What a reservation may outlive its request by: the last events to a slow client, and the bookkeeping.
const RESERVATION_MARGIN: Duration = Duration::from_secs(60);
/// How long a deletion waits for a turn that is under way.
const DELETION_PATIENCE: Duration = Duration::from_secs(30);
/// How long the stores may take to show that they are there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The models: those that answer, those that embed, and those that speak.
pub(crate) struct Catalogs {
    chat: StaticCatalog,
    embedders: StaticEmbedderCatalog,
    speech: StaticSpeechCatalog,
}

/// The models of `config`, with those of this machine.
///
/// # Errors
/// When HTTP clients cannot be made.
pub(crate) fn catalogs(
    config: &Config,
    ondevice: OnDevice,
    espeak: Option<Espeak>,
) -> Result<Catalogs, InvalidTransport> {
    let (mut catalog, mut embedders) = (StaticCatalog::new(), StaticEmbedderCatalog::new());
    let mut speech = StaticSpeechCatalog::new();
    if let (Some(section), Some(engine)) = (&config.espeak, espeak) {
        let provider = ProviderId::new(ESPEAK_PROVIDER).expect("it keeps to the alphabet");
        speech = speech.with_model(section.model.clone(), SpeechRoute { provider, synthesizer: Arc::new(engine) });
    }
    let section = config.ondevice.as_ref();
    let provider = || ProviderId::new(ONDEVICE_PROVIDER).expect("it keeps to the alphabet");
    if let (Some(chat), Some(model)) = (section.and_then(|section| section.chat.as_ref()), ondevice.chat) {
        let route = ModelRoute { provider: provider(), model: Arc::new(model) };
        catalog = catalog.with_model(chat.local.model.clone(), route);
    }
    if let (Some(local), Some(embedder)) = (section.and_then(|section| section.embeddings.as_ref()), ondevice.embedder)
    {
        let max_batch = OnDeviceEmbedder::MAX_BATCH;
        let route = EmbedderRoute { provider: provider(), embedder: Arc::new(embedder), max_batch };
        embedders = embedders.with_model(local.model.clone(), route);
    }
    for provider in &config.providers {
        let options = TransportOptions { connect_timeout: provider.connect_timeout, ..TransportOptions::default() };
        let transport = Arc::new(NativeTransport::new(&options)?);
        let embedder = OpenAiEmbedder::new(provider.endpoint.clone(), Arc::clone(&transport) as _);
        let embedder = EmbedderRoute {
            provider: provider.id.clone(),
            embedder: Arc::new(embedder),
            max_batch: OpenAiEmbedder::MAX_BATCH,
        };
        let synthesizer = Arc::new(OpenAiSynthesizer::new(provider.endpoint.clone(), Arc::clone(&transport) as _));
        let speaker = SpeechRoute { provider: provider.id.clone(), synthesizer };
        let model = Arc::new(OpenAiModel::new(provider.endpoint.clone(), transport));
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
    Ok(Catalogs { chat: catalog, embedders, speech })
}

/// Who verifies tokens. It keeps the keys that it has fetched, whatever becomes of the tenants' files.
///
/// # Errors
/// When an HTTP client cannot be made.
pub(crate) fn tokens(
    config: &Config,
    background: &TrackedBackground,
) -> Result<Arc<dyn TokenVerifier>, InvalidTransport> {
    let transport = Arc::new(NativeTransport::new(&TransportOptions::default())?);
    let source = KeySets { transport, directory: config.tenants_directory.clone() };
    let (clock, background) = (Arc::new(SystemClock), Arc::new(background.clone()));
    Ok(Arc::new(JwtVerifier::new(Arc::new(source), clock, background, KeyAgePolicy::default())))
}

/// The router over everything.
pub(crate) fn router(
    config: &Config,
    tenants: Arc<MemoryTenantDirectory>,
    catalogs: Catalogs,
    stores: &Stores,
    tokens: Arc<dyn TokenVerifier>,
) -> Router {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn IdSource> = Arc::new(OsIds);
    let queue: Arc<dyn TurnQueue> = Arc::new(MemoryTurnQueue::default());
    let directory: Arc<dyn TenantDirectory> = tenants;
    let books = stores.books(Arc::new(MemoryRateLimiter::default()), Arc::new(MemoryStreamSlots::default()));
    let turns = stores.turns(Arc::clone(&queue));
    let lifetime = config.chat.request_timeout + config.chat.send_timeout + RESERVATION_MARGIN;
    let models = &config.models;
    let gateway = ModelGateway::new(
        Arc::new(catalogs.chat),
        Arc::clone(&clock),
        Arc::clone(&ids),
        models.breaker,
        models.retry,
        models.timeouts,
    );
    let embeddings = EmbeddingGateway::new(
        Arc::new(catalogs.embedders),
        Arc::clone(&clock),
        Arc::clone(&ids),
        models.breaker,
        models.retry,
        models.timeouts.first_token,
    );
    let admission = Admission::new(books, lifetime);
    let speech = speech(config, catalogs.speech, &admission, &clock, &ids);
    let search = SearchPorts {
        admission: admission.clone(),
        models: gateway.clone(),
        embeddings: embeddings.clone(),
        corpus: Arc::clone(&stores.corpus),
        cache: Arc::clone(&stores.cache),
        reranker: None,
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let ingest = IngestPorts {
        admission: admission.clone(),
        embeddings: embeddings.clone(),
        corpus: Arc::clone(&stores.corpus),
        idempotency: Arc::clone(&stores.idempotency),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let (request_timeout, send_timeout) = (config.chat.request_timeout, config.chat.send_timeout);
    let ingesting = IngestSettings { request_timeout, send_timeout, ..IngestSettings::default() };
    let ingest = IngestService::new(ingest, ingesting);
    let tools = ToolPorts {
        admission: admission.clone(),
        models: gateway.clone(),
        idempotency: Arc::clone(&stores.idempotency),
        audit: Arc::clone(&stores.audit),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let tools = ToolService::new(ToolRegistry::built_in(ingest.clone()), tools, config.tools.clone());
    let embed = EmbedPorts { admission: admission.clone(), embeddings, clock: Arc::clone(&clock) };
    let chat = ChatPorts {
        admission,
        models: gateway,
        turns,
        idempotency: Arc::clone(&stores.idempotency),
        tools: Some(tools.clone()),
        clock: Arc::clone(&clock),
        ids: Arc::clone(&ids),
    };
    let ports = AppPorts {
        resolver: Resolver::new(Arc::clone(&directory), Some(tokens)),
        directory,
        chat: ChatService::new(chat, config.chat.clone()),
        sessions: SessionService::new(
            Arc::clone(&stores.sessions),
            Arc::clone(&stores.index),
            queue,
            Arc::clone(&clock),
            DELETION_PATIENCE,
        ),
        search: SearchService::new(search, config.search.clone()),
        ingest,
        tools,
        documents: DocumentService::new(Arc::clone(&stores.corpus)),
        embeddings: EmbedService::new(embed, request_timeout),
        speech,
        clock: Arc::clone(&clock),
        ids,
        readiness: Arc::new(StoresAnswer { stores: stores.clone(), clock }),
    };
    let settings = HttpSettings {
        environment: config.environment.name.clone(),
        max_body_bytes: config.server.max_body_bytes,
        max_document_body_bytes: config.server.max_document_body_bytes,
        max_message_chars: config.server.max_message_chars,
        keep_alive: config.server.keep_alive,
    };
    enigma_http::router(App::new(ports, settings).bounded(config.overload))
}

/// Who speaks.
fn speech(
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

/// Ready while the stores answer. The models need no look: the on-device one was loaded before anything listened, and of the
/// others each request finds out.
struct StoresAnswer {
    stores: Stores,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl Readiness for StoresAnswer {
    async fn check(&self) -> Result<(), String> {
        tokio::select! {
            probed = self.stores.probe() => probed.map_err(|error| format!("the database does not answer: {error}")),
            () = self.clock.sleep(PROBE_TIMEOUT) => Err("the database does not answer in time".to_owned()),
        }
    }
}
