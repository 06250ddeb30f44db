//! The document itself, and a router over memory that answers for it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use enigma_core::Timestamp;
use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::chat::{ChatPorts, ChatService, ChatSettings, SessionService};
use enigma_core::embeddings::{EmbedPorts, EmbedService};
use enigma_core::ingest::{DocumentService, IngestPorts, IngestService, IngestSettings};
use enigma_core::model::{
    BreakerPolicy, EmbedderRoute, EmbeddingGateway, ModelGateway, ModelRoute, ModelTimeouts, RetryPolicy,
    SpeechGateway, SpeechRoute, StaticCatalog, StaticEmbedderCatalog, StaticSpeechCatalog, Usage,
};
use enigma_core::ports::{
    Background, Clock, Corpus, IdSource, IdempotencyStore, SessionIndex, SessionStore, TenantDirectory, TurnQueue,
};
use enigma_core::search::{SearchPorts, SearchService, SearchSettings};
use enigma_core::speech::{SpeechPorts, SpeechService, SpeechSettings};
use enigma_core::tenant::{KeyHash, Resolver, Tenant, TenantIndex};
use enigma_core::tools::{ToolPorts, ToolRegistry, ToolService, ToolSettings};
use enigma_core::turns::QueuedTurns;
use enigma_http::{App, AppPorts, HttpSettings, OverloadLimits, Readiness, router};
use enigma_memory::testing::{
    HashEmbedder, ManualClock, Script, ScriptedModel, SeededIds, TestBackground, ToneSynthesizer,
};
use enigma_memory::{
    MemoryAuditLog, MemoryCache, MemoryCorpus, MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionIndex,
    MemorySessionStore, MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger, MemoryTurnQueue,
};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

/// The document, as it is served.
pub(crate) fn document() -> Value {
    serde_json::from_str(include_str!("../../openapi.json")).unwrap()
}

/// An answer as it came over the wire.
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// The platform's routes with two tenants, `acme` and the narrow `tight`, and a model that says what it is told to.
pub(crate) struct Host {
    router: Router,
    background: Arc<dyn Background>,
    model: Arc<ScriptedModel>,
    check: Arc<Checked>,
}

/// What the host's own check says.
#[derive(Clone, Copy)]
pub(crate) enum Check {
    Ready,
    NotReady,
    Panics,
}

struct Checked(Mutex<Check>);

#[async_trait]
impl Readiness for Checked {
    async fn check(&self) -> Result<(), String> {
        let check = *self.0.lock().unwrap();
        match check {
            Check::Ready => Ok(()),
            Check::NotReady => Err("the database SECRET is away".to_owned()),
            Check::Panics => panic!("SECRET"),
        }
    }
}

fn tenants() -> TenantIndex {
    let key = |text: &str| KeyHash::of(text).to_string();
    let tenant = |json: Value| Tenant::from_json(&json.to_string()).unwrap();
    TenantIndex::new([
        tenant(json!({
            "tenantId": "acme",
            "aiModels": { "chat": "m", "embeddings": "e", "tts": "t" },
            "rateLimit": { "perMinute": 1000 },
            "featureFlags": { "tools_enabled": true, "tts_enabled": true },
            "apiKeys": [key("acme-key"), { "hash": key("acme-search-key"), "scopes": ["search"] }],
        })),
        tenant(json!({
            "tenantId": "tight",
            "aiModels": { "chat": "m" },
            "rateLimit": { "perMinute": 1 },
            "tokenBudget": { "daily": 1 },
            "featureFlags": { "modelAllowList": true },
            "allowedModels": ["m"],
            "apiKeys": [key("tight-key")],
        })),
    ])
    .unwrap()
}

impl Host {
    /// Must be made inside a tokio runtime, which does its background work.
    pub(crate) fn new() -> Self {
        Self::with(|app| app)
    }

    /// The same, where only so much may be in work at once.
    pub(crate) fn bounded(limits: OverloadLimits) -> Self {
        Self::with(|app| app.bounded(limits))
    }

    fn with(change: impl FnOnce(App) -> App) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp::from_millis(1_800_000_000_000)));
        let ids: Arc<dyn IdSource> = Arc::new(SeededIds::new(7));
        let model = Arc::new(ScriptedModel::new(Arc::clone(&clock)));
        let route = ModelRoute { provider: "scripted".parse().unwrap(), model: model.clone() };
        let store: Arc<dyn SessionStore> = Arc::new(MemorySessionStore::default());
        let index: Arc<dyn SessionIndex> = Arc::new(MemorySessionIndex::default());
        let queue: Arc<dyn TurnQueue> = Arc::new(MemoryTurnQueue::default());
        let directory: Arc<dyn TenantDirectory> = Arc::new(MemoryTenantDirectory::new(tenants()));
        let books = ComposedBooks::new(
            Arc::new(MemoryRateLimiter::default()),
            Arc::new(MemoryStreamSlots::default()),
            Arc::new(MemoryTokenLedger::default()),
            Arc::new(MemoryTelemetry::default()),
        );
        let admission = Admission::new(Arc::new(books), Duration::from_secs(900));
        let models = ModelGateway::new(
            Arc::new(StaticCatalog::new().with_default(route)),
            Arc::clone(&clock),
            Arc::clone(&ids),
            BreakerPolicy::default(),
            RetryPolicy::default(),
            ModelTimeouts::default(),
        );
        let embedder = EmbedderRoute {
            provider: "hash".parse().unwrap(),
            embedder: Arc::new(HashEmbedder::new(32)),
            max_batch: 2,
        };
        let embeddings = EmbeddingGateway::new(
            Arc::new(StaticEmbedderCatalog::new().with_model("e".parse().unwrap(), embedder)),
            Arc::clone(&clock),
            Arc::clone(&ids),
            BreakerPolicy::default(),
            RetryPolicy::default(),
            Duration::from_secs(30),
        );
        let corpus: Arc<dyn Corpus> = Arc::new(MemoryCorpus::default());
        let idempotency: Arc<dyn IdempotencyStore> = Arc::new(MemoryIdempotencyStore::default());
        let search = SearchPorts {
            admission: admission.clone(),
            models: models.clone(),
            embeddings: embeddings.clone(),
            corpus: Arc::clone(&corpus),
            cache: Arc::new(MemoryCache::default()),
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
        let embed = EmbedPorts { admission: admission.clone(), embeddings, clock: Arc::clone(&clock) };
        let speech = speech(&admission, &clock, &ids);
        // The scripted model answers what the tests ask, and no side questions.
        let searching = SearchSettings { rewrite_timeout: None, follow_up_wait: None, ..SearchSettings::default() };
        let ingesting = IngestService::new(ingest, IngestSettings::default());
        let tools = ToolPorts {
            admission: admission.clone(),
            models: models.clone(),
            idempotency: Arc::clone(&idempotency),
            audit: Arc::new(MemoryAuditLog::default()),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
        };
        let registry = ToolRegistry::built_in(ingesting.clone());
        let tools = ToolService::new(registry, tools, ToolSettings::default());
        let chat = ChatPorts {
            tools: Some(tools.clone()),
            admission,
            models,
            turns: Arc::new(QueuedTurns::new(Arc::clone(&queue), Arc::clone(&store), Arc::clone(&index))),
            idempotency,
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
        };
        let check = Arc::new(Checked(Mutex::new(Check::Ready)));
        let ports = AppPorts {
            resolver: Resolver::new(Arc::clone(&directory), None),
            directory,
            chat: ChatService::new(chat, ChatSettings::default()),
            sessions: SessionService::new(store, index, queue, Arc::clone(&clock), Duration::from_secs(1)),
            search: SearchService::new(search, searching),
            ingest: ingesting,
            tools,
            documents: DocumentService::new(corpus),
            embeddings: EmbedService::new(embed, Duration::from_secs(60)),
            speech,
            clock,
            ids,
            readiness: Arc::clone(&check) as _,
        };
        let runtime = tokio::runtime::Handle::current();
        let background = TestBackground::new(move |work| drop(runtime.spawn(work)));
        let router = router(change(App::new(ports, HttpSettings::default())));
        Self { router, background: Arc::new(background), model, check }
    }

    /// What the host's own check says from now on.
    pub(crate) fn set_check(&self, check: Check) {
        *self.check.0.lock().unwrap() = check;
    }

    /// What the model does at its next call.
    pub(crate) fn script(&self, script: Script) {
        self.model.push(script);
    }

    /// The model answers its next call well.
    pub(crate) fn will_answer(&self) {
        self.script(Script::saying(["Hel", "lo"], Usage { prompt_tokens: 5, completion_tokens: 2 }));
    }

    /// Sends a request with the key `acme-key`, unless `headers` say another.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answered {
        self.send_body(method, path, headers, Body::from(body.to_owned())).await
    }

    /// The same, with any body.
    pub(crate) async fn send_body(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Body) -> Answered {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "x-api-key") {
            request = request.header("x-api-key", "acme-key");
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(Arc::clone(&self.background));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        // Audio is no text, and its tests look at its headers only.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answered { status: parts.status, headers: parts.headers, text }
    }
}

/// Somebody who hums.
fn speech(admission: &Admission, clock: &Arc<dyn Clock>, ids: &Arc<dyn IdSource>) -> SpeechService {
    let speaker = SpeechRoute { provider: "tone".parse().unwrap(), synthesizer: Arc::new(ToneSynthesizer) };
    let speech = SpeechGateway::new(
        Arc::new(StaticSpeechCatalog::new().with_model("t".parse().unwrap(), speaker)),
        Arc::clone(clock),
        Arc::clone(ids),
        BreakerPolicy::default(),
        RetryPolicy::default(),
        ModelTimeouts::default(),
    );
    let ports = SpeechPorts { admission: admission.clone(), speech, clock: Arc::clone(clock) };
    SpeechService::new(ports, SpeechSettings::default())
}
