//! A deployment in memory, with documents, a clock that stands still, and models that play scripts.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::idempotency::{Fingerprint, IdempotencyKey};
use enigma_core::ingest::{
    DocumentService, IngestCommand, IngestDone, IngestEvent, IngestEvents, IngestPorts, IngestReply, IngestService,
    IngestSettings,
};
use enigma_core::model::{
    BreakerPolicy, ChatModel, Delta, Embedder, EmbedderRoute, EmbeddingGateway, FinishReason, ModelGateway, ModelRoute,
    ModelTimeouts, RetryPolicy, StaticCatalog, StaticEmbedderCatalog, Usage,
};
use enigma_core::ports::{Clock, Corpus, IdSource, StreamSlots, TenantDirectory, TokenLedger};
use enigma_core::retrieval::{ChunkingOptions, Document, DocumentId, Metadata, MetadataFilter, SearchMode};
use enigma_core::search::{
    Reranker, RetrievalRejected, SearchCommand, SearchDone, SearchEvent, SearchEvents, SearchPorts, SearchReply,
    SearchService, SearchSettings, Source,
};
use enigma_core::tenant::{
    ClientAddress, Presented, RequestIdentity, Resolver, Tenant, TenantContext, TenantIndex, UserHints,
};
use enigma_core::usage::UsageRecord;
use enigma_core::{RequestId, TenantId, Timestamp, TraceId};
use enigma_memory::testing::{
    HashEmbedder, ManualClock, Script, ScriptedEmbedder, ScriptedModel, SeededIds, Step, TestBackground,
};
use enigma_memory::{
    MemoryIdempotencyStore, MemoryRateLimiter, MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory,
    MemoryTokenLedger,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::doubles::{Faults, FaultyCache, FaultyCorpus, WatchedBooks, Writer};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
const STREAMS: u32 = 8;
const TENANTS: [&str; 2] = ["acme", "other"];

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) model: Arc<Writer>,
    pub(crate) embedder: Arc<ScriptedEmbedder>,
    pub(crate) corpus: Arc<FaultyCorpus>,
    pub(crate) cache: Arc<FaultyCache>,
    pub(crate) background: TestBackground,
    pub(crate) books: Faults,
    pub(crate) search: SearchService,
    pub(crate) ingest: IngestService,
    pub(crate) documents: DocumentService,
    ledger: Arc<MemoryTokenLedger>,
    slots: Arc<MemoryStreamSlots>,
    telemetry: Arc<MemoryTelemetry>,
    directory: Arc<MemoryTenantDirectory>,
    resolver: Resolver,
    entered: Arc<Mutex<Vec<RequestId>>>,
    closed: Arc<Mutex<Vec<RequestId>>>,
    ids: SeededIds,
}

/// How a world differs from others.
pub(crate) struct Setup {
    pub(crate) settings: SearchSettings,
    pub(crate) max_chunks: usize,
    pub(crate) reranker: Option<Arc<dyn Reranker>>,
    /// In place of the model that plays scripts.
    pub(crate) model: Option<Arc<dyn ChatModel>>,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = SearchSettings {
            rewrite_timeout: None,
            follow_up_wait: None,
            request_timeout: SECOND * 100,
            send_timeout: SECOND * 10,
            ..SearchSettings::default()
        };
        Self { settings, max_chunks: 100, reranker: None, model: None }
    }
}

impl Setup {
    pub(crate) fn rewriting() -> Self {
        let mut setup = Self::default();
        setup.settings.rewrite_timeout = Some(SECOND * 2);
        setup
    }

    pub(crate) fn following_up() -> Self {
        let mut setup = Self::default();
        setup.settings.follow_up_wait = Some(SECOND);
        setup
    }
}

pub(crate) fn tenant_json(name: &str) -> Value {
    json!({
        "tenantId": name, "aiModels": { "chat": "main", "embeddings": "words" }, "auth": { "mode": "open" },
        "tokenBudget": { "daily": 1_000_000 }, "rateLimit": { "perMinute": 1000 },
        "concurrency": { "maxStreams": STREAMS },
    })
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }

    pub(crate) fn with(setup: Setup) -> Self {
        let Setup { settings, max_chunks, reranker, model: own } = setup;
        let clock = ManualClock::new(NOW);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let ids: Arc<dyn IdSource> = Arc::new(SeededIds::new(7));
        let scripted = || ScriptedModel::new(Arc::clone(&shared));
        let model = Arc::new(Writer { answers: scripted(), rewrites: scripted(), follow_ups: scripted() });
        let route = |model: Arc<dyn ChatModel>| ModelRoute { provider: "one".parse().unwrap(), model };
        let catalog = StaticCatalog::new()
            .with_model("main".parse().unwrap(), route(own.unwrap_or_else(|| Arc::clone(&model) as _)))
            .with_model("spare".parse().unwrap(), route(Arc::clone(&model) as _));
        let embedder = Arc::new(ScriptedEmbedder::new(Arc::clone(&shared)));
        let embedders =
            [("words", Arc::clone(&embedder) as Arc<dyn Embedder>), ("small", Arc::new(HashEmbedder::new(64)))];
        let embedders = embedders.into_iter().fold(StaticEmbedderCatalog::new(), |catalog, (name, embedder)| {
            let route = EmbedderRoute { provider: "vectors".parse().unwrap(), embedder, max_batch: 2 };
            catalog.with_model(name.parse().unwrap(), route)
        });
        let retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        let breaker = BreakerPolicy { failures: 100, ..BreakerPolicy::default() };
        let timeouts = ModelTimeouts { first_token: SECOND * 20, idle: SECOND * 5 };
        let models =
            ModelGateway::new(Arc::new(catalog), Arc::clone(&shared), Arc::clone(&ids), breaker, retry, timeouts);
        let embeddings = EmbeddingGateway::new(
            Arc::new(embedders),
            Arc::clone(&shared),
            Arc::clone(&ids),
            breaker,
            retry,
            SECOND * 20,
        );
        let (ledger, slots) = (Arc::new(MemoryTokenLedger::default()), Arc::new(MemoryStreamSlots::default()));
        let telemetry = Arc::new(MemoryTelemetry::new(10_000));
        let (entered, closed, books) = (Arc::default(), Arc::default(), Faults::default());
        let watched = WatchedBooks {
            inner: ComposedBooks::new(
                Arc::new(MemoryRateLimiter::default()),
                Arc::clone(&slots) as _,
                Arc::clone(&ledger) as _,
                Arc::clone(&telemetry) as _,
            ),
            faults: books.clone(),
            entered: Arc::clone(&entered),
            closed: Arc::clone(&closed),
        };
        let admission = Admission::new(Arc::new(watched), settings.request_timeout * 2);
        let (corpus, cache) = (Arc::new(FaultyCorpus::default()), Arc::new(FaultyCache::default()));
        let request_timeout = settings.request_timeout;
        let search = SearchPorts {
            admission: admission.clone(),
            models,
            embeddings: embeddings.clone(),
            corpus: Arc::clone(&corpus) as _,
            cache: Arc::clone(&cache) as _,
            reranker,
            clock: Arc::clone(&shared),
            ids: Arc::clone(&ids),
        };
        let ingest = IngestPorts {
            admission,
            embeddings,
            corpus: Arc::clone(&corpus) as _,
            idempotency: Arc::new(MemoryIdempotencyStore::default()),
            clock: shared,
            ids,
        };
        let directory = Arc::new(MemoryTenantDirectory::default());
        let resolver = Resolver::new(Arc::clone(&directory) as Arc<dyn TenantDirectory>, None);
        let runtime = tokio::runtime::Handle::current();
        let world = Self {
            clock,
            model,
            embedder,
            documents: DocumentService::new(Arc::clone(&corpus) as _),
            corpus,
            cache,
            background: TestBackground::new(move |work| drop(runtime.spawn(work))),
            books,
            search: SearchService::new(search, settings),
            ingest: IngestService::new(
                ingest,
                IngestSettings { max_chunks, request_timeout, send_timeout: SECOND * 10 },
            ),
            ledger,
            slots,
            telemetry,
            directory,
            resolver,
            entered,
            closed,
            ids: SeededIds::new(8),
        };
        world.configure(tenant_json);
        world
    }

    /// Gives the tenants another configuration.
    pub(crate) fn configure(&self, tenant: impl Fn(&str) -> Value) {
        let tenants = TENANTS.map(|name| Tenant::from_json(&tenant(name).to_string()).unwrap());
        self.directory.replace(TenantIndex::new(tenants).unwrap());
    }

    pub(crate) async fn context(&self, tenant: &str) -> TenantContext {
        let identity = RequestIdentity { tenant: Some(tenant), host: None, presented: None::<Presented> };
        let tenant = self.resolver.resolve(&identity).await.unwrap();
        self.resolver.authenticate(tenant, None, &ClientAddress::new("192.0.2.1"), NOW).await.unwrap()
    }

    pub(crate) fn request(&self) -> RequestId {
        RequestId::new(self.ids.uuid())
    }

    pub(crate) async fn question(&self, query: &str) -> SearchCommand {
        let context = self.context("acme").await;
        SearchCommand {
            request: self.request(),
            trace: TraceId::new("trace").unwrap(),
            traceparent: None,
            route: "/search",
            caller: context.caller(UserHints::default()),
            query: query.to_owned(),
            top_k: 5,
            filter: MetadataFilter::default(),
            mode: SearchMode::Hybrid,
        }
    }

    pub(crate) async fn ask(&self, command: SearchCommand) -> Result<SearchReply, RetrievalRejected> {
        self.ask_as("acme", command).await
    }

    pub(crate) async fn ask_as(&self, tenant: &str, command: SearchCommand) -> Result<SearchReply, RetrievalRejected> {
        self.search.search(self.context(tenant).await, command, &self.background).await
    }

    /// Asks, and reads the whole answer.
    pub(crate) async fn answer(&self, query: &str) -> Vec<SearchEvent> {
        let command = self.question(query).await;
        read(self.ask(command).await.unwrap().events).await
    }

    pub(crate) async fn document(&self, id: &str, text: &str) -> IngestCommand {
        let context = self.context("acme").await;
        IngestCommand {
            request: self.request(),
            trace: TraceId::new("trace").unwrap(),
            traceparent: None,
            route: "/ingest",
            caller: context.caller(UserHints::default()),
            document: Document {
                id: DocumentId::new(id).unwrap(),
                source: None,
                title: None,
                url: None,
                metadata: Metadata::new(json!({ "name": id }).as_object().unwrap().clone()).unwrap(),
            },
            text: text.to_owned(),
            chunking: ChunkingOptions::new(50, 0).unwrap(),
            idempotency: None,
        }
    }

    pub(crate) async fn take_in(&self, command: IngestCommand) -> Result<IngestReply, RetrievalRejected> {
        self.take_in_as("acme", command).await
    }

    pub(crate) async fn take_in_as(
        &self,
        tenant: &str,
        command: IngestCommand,
    ) -> Result<IngestReply, RetrievalRejected> {
        self.ingest.ingest(self.context(tenant).await, command, &self.background).await
    }

    /// Takes a document in, which must succeed.
    pub(crate) async fn add(&self, tenant: &str, id: &str, text: &str) {
        let command = self.document(id, text).await;
        let reply = self.take_in_as(tenant, command).await.unwrap();
        let events = read_steps(reply.events).await;
        assert_eq!(ingested(&events).ending, enigma_core::usage::Ending::Finished, "{events:?}");
    }

    /// A world that has taken in what the tests ask about, and whose books are as those of a new one.
    pub(crate) async fn stocked(setup: Setup) -> (Self, u64) {
        let world = Self::with(setup);
        world.add("acme", "tea", "Boil the water, then let the tea steep.").await;
        world.add("acme", "coffee", "Grind the beans, then pour the water.").await;
        world.background.idle().await;
        world.books.take();
        world.corpus.faults.take();
        let spent = world.spent().await;
        (world, spent)
    }

    /// Lets everything happen that can happen without time passing.
    pub(crate) async fn settle_down(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn records(&self, route: &str) -> Vec<UsageRecord> {
        let records = TENANTS.iter().flat_map(|name| self.telemetry.records(&tenant(name)).unwrap());
        records.filter(|record| record.route == route).collect()
    }

    /// What is spent of the day's budget.
    pub(crate) async fn spent(&self) -> u64 {
        self.ledger.balance(&tenant("acme"), self.clock.now()).await.unwrap().day.settled
    }

    /// Lets all requests end, and asserts that none holds anything any more, that each was closed once, and that what was charged
    /// is what was recorded.
    pub(crate) async fn assert_closed(&self) {
        for _ in 0..400 {
            if self.background.running() == 0 {
                break;
            }
            self.settle_down().await;
            self.clock.advance(SECOND);
        }
        assert_eq!(self.background.running(), 0, "a task still runs");
        let later = self.clock.now().saturating_add(SECOND * 1000);
        for name in TENANTS {
            let balance = self.ledger.balance(&tenant(name), self.clock.now()).await.unwrap();
            assert_eq!(balance.held_today, 0, "tokens are still set aside");
            let charged: u64 = self.telemetry.records(&tenant(name)).unwrap().iter().map(|record| record.charged).sum();
            assert_eq!(balance.day.settled, charged, "books and records differ");
            let holders = || (0..u128::from(STREAMS)).map(|n| RequestId::new(Uuid::from_u128(900 + n)));
            for holder in holders() {
                let entered = self.slots.enter(&tenant(name), holder, STREAMS, later, self.clock.now()).await.unwrap();
                entered.expect("a stream is not free");
            }
            for holder in holders() {
                self.slots.leave(&tenant(name), &holder).await.unwrap();
            }
        }
        let (entered, closed) = (self.entered.lock().unwrap().clone(), self.closed.lock().unwrap().clone());
        let each: BTreeSet<_> = closed.iter().copied().collect();
        assert_eq!(each.len(), closed.len(), "a request was closed twice");
        assert_eq!(each, entered.into_iter().collect(), "not all that entered were closed");
    }

    /// What the corpus has, by document: the texts of its chunks.
    pub(crate) async fn contents(&self, name: &str) -> Vec<(String, u32)> {
        let page = self.corpus.inner.documents(&tenant(name), None, 100).await.unwrap();
        page.documents.into_iter().map(|it| (it.document.id.as_str().to_owned(), it.chunks)).collect()
    }
}

/// Lets a request run, and time with it.
pub(crate) async fn passing<T>(world: &World, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        if let std::task::Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
            return done;
        }
        world.settle_down().await;
        world.clock.advance(Duration::from_millis(250));
    }
}

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub(crate) fn keyed(mut command: IngestCommand, key: &str, body: &str) -> IngestCommand {
    let key = IdempotencyKey::new(&command.caller.subject, "/ingest", key).unwrap();
    command.idempotency = Some((key, Fingerprint::of(&[body.as_bytes()])));
    command
}

pub(crate) fn say(text: &str) -> Step {
    Step::Say(Delta::Content(text.to_owned()))
}

pub(crate) fn finish() -> Step {
    Step::Say(Delta::Finish(FinishReason::Stop))
}

pub(crate) fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, completion_tokens }
}

/// An answer from the document `tea`; 100 tokens in and 10 out by the provider's count.
pub(crate) fn brewed() -> Script {
    Script::saying(["Let it steep ", "[source:te", "a#0]."], usage(100, 10))
}

pub(crate) async fn read(events: SearchEvents) -> Vec<SearchEvent> {
    events.collect().await
}

pub(crate) async fn read_steps(events: IngestEvents) -> Vec<IngestEvent> {
    events.collect().await
}

pub(crate) fn text(events: &[SearchEvent]) -> String {
    events.iter().filter_map(|e| if let SearchEvent::Content(text) = e { Some(text.as_str()) } else { None }).collect()
}

/// The sources, which must be the first event, and the only one of its kind.
pub(crate) fn sources(events: &[SearchEvent]) -> &[Source] {
    let lists = events.iter().filter(|event| matches!(event, SearchEvent::Sources(_))).count();
    assert_eq!(lists, 1, "sources come once");
    let Some(SearchEvent::Sources(sources)) = events.first() else { panic!("sources come first") };
    sources
}

pub(crate) fn names(events: &[SearchEvent]) -> Vec<&str> {
    sources(events).iter().map(|source| source.doc_id.as_str()).collect()
}

/// The last event, which must be the only one of its kind.
pub(crate) fn done(events: &[SearchEvent]) -> &SearchDone {
    let dones = events.iter().filter(|event| matches!(event, SearchEvent::Done(_))).count();
    assert_eq!(dones, 1, "done comes once");
    let Some(SearchEvent::Done(done)) = events.last() else { panic!("done comes last") };
    done
}

/// The last event of an ingestion, which must be the only one of its kind.
pub(crate) fn ingested(events: &[IngestEvent]) -> &IngestDone {
    let dones = events.iter().filter(|event| matches!(event, IngestEvent::Done(_))).count();
    assert_eq!(dones, 1, "done comes once");
    let Some(IngestEvent::Done(done)) = events.last() else { panic!("done comes last") };
    done
}
