//! A deployment: what survives the process, and one process after the other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::chat::{ChatPorts, ChatService, ChatSettings, SessionService};
use enigma_core::ingest::{DocumentService, IngestPorts, IngestService, IngestSettings};
use enigma_core::model::{
    BreakerPolicy, EmbedderRoute, EmbeddingGateway, ModelGateway, ModelOverrides, ModelRoute, ModelTimeouts,
    RetryPolicy, StaticCatalog, StaticEmbedderCatalog,
};
use enigma_core::ports::{
    Background, Cache, Clock, Corpus, IdSource, IdempotencyStore, RequestBooks, SessionIndex, SessionStore,
    SessionTurns, StreamSlots, Telemetry, TokenLedger, TurnQueue,
};
use enigma_core::search::{SearchPorts, SearchService, SearchSettings};
use enigma_core::session::PromptLimits;
use enigma_core::tenant::{Resolver, TenantIndex};
use enigma_core::turns::QueuedTurns;
use enigma_core::{ModelId, RequestId};
use enigma_memory::{
    MemoryCache, MemoryCorpus, MemoryIdempotencyStore, MemorySessionIndex, MemorySessionStore, MemoryStreamSlots,
    MemoryTenantDirectory, MemoryTurnQueue,
};
use futures_util::future::{BoxFuture, poll_fn};

use crate::chaos::Chaos;
use crate::embedder::SimEmbedder;
use crate::executor::Executor;
use crate::model::SimModel;
use crate::plan::Plan;
use crate::plants::{GenerousLimiter, Plant, Planted};
use crate::ports::facades::{FaultyBooks, FaultyTurns};
use crate::ports::faulty::Faulty;
use crate::ports::ledger::JournaledLedger;
use crate::ports::limiter::SeenLimiter;
use crate::ports::sessions::SeenStore;
use crate::ports::telemetry::SeenTelemetry;
use crate::sim::{Side, Sim};
use crate::witness::{Witness, number};

/// How long a request may take.
const REQUEST: Duration = Duration::from_secs(100);
/// After which a lease or a reservation is taken for dead.
pub(crate) const LIFETIME: Duration = Duration::from_secs(200);
/// How long a client may read nothing.
pub(crate) const SEND: Duration = Duration::from_secs(10);

/// What survives, and the process of now.
pub(crate) struct World {
    pub(crate) sim: Sim,
    pub(crate) plan: Arc<Plan>,
    pub(crate) witness: Witness,
    pub(crate) ledger: JournaledLedger,
    pub(crate) store: Arc<SeenStore>,
    index: Arc<MemorySessionIndex>,
    pub(crate) corpus: Arc<MemoryCorpus>,
    cache: Arc<MemoryCache>,
    pub(crate) keys: Arc<MemoryIdempotencyStore>,
    directory: Arc<MemoryTenantDirectory>,
    plant: Option<Plant>,
    now: Mutex<Now>,
}

struct Now {
    process: Arc<Process>,
    /// Of the tenants' configuration.
    epoch: u64,
}

/// One life of the process.
pub(crate) struct Process {
    pub(crate) life: u64,
    pub(crate) chat: ChatService,
    pub(crate) sessions: SessionService,
    pub(crate) search: SearchService,
    pub(crate) ingest: IngestService,
    pub(crate) documents: DocumentService,
    pub(crate) resolver: Resolver,
    pub(crate) slots: Arc<dyn StreamSlots>,
    pub(crate) turns: Arc<dyn TurnQueue>,
    alive: Arc<AtomicBool>,
    stop: Arc<Stop>,
}

#[derive(Default)]
struct Stop {
    is_stopping: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl World {
    pub(crate) fn new(sim: &Sim, plan: &Arc<Plan>, plant: Option<Plant>) -> Self {
        let witness = Witness::new(sim.clone());
        let messages: Arc<dyn SessionStore> = Arc::new(MemorySessionStore::default());
        let parts = Parts {
            sim: sim.clone(),
            plan: Arc::clone(plan),
            ledger: JournaledLedger::new(sim.clone(), Arc::clone(plan), plant),
            store: Arc::new(SeenStore::new(witness.clone(), messages)),
            witness,
            index: Arc::new(MemorySessionIndex::default()),
            corpus: Arc::new(MemoryCorpus::default()),
            cache: Arc::new(MemoryCache::default()),
            keys: Arc::new(MemoryIdempotencyStore::default()),
            directory: Arc::new(MemoryTenantDirectory::default()),
            plant,
        };
        let process = Arc::new(parts.boot(0));
        let Parts { sim, plan, witness, ledger, store, index, corpus, cache, keys, directory, plant } = parts;
        let now = Mutex::new(Now { process, epoch: 0 });
        let world = Self { sim, plan, witness, ledger, store, index, corpus, cache, keys, directory, plant, now };
        world.configure(0);
        world
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The process that answers now.
    pub(crate) fn process(&self) -> Arc<Process> {
        Arc::clone(&self.now().process)
    }

    /// Which of the tenants' keys count now.
    pub(crate) fn epoch(&self) -> u64 {
        self.now().epoch
    }

    /// Gives every tenant another key.
    pub(crate) fn reload(&self) {
        let epoch = self.epoch() + 1;
        self.sim.note(|| format!("the configuration is read again: epoch {epoch}"));
        self.configure(epoch);
        self.now().epoch = epoch;
    }

    fn configure(&self, epoch: u64) {
        let tenants = self.plan.tenants.iter().map(|tenant| tenant.tenant(epoch));
        self.directory.replace(TenantIndex::new(tenants).expect("tenants and keys of a plan have names of their own"));
    }

    /// The process dies where it stands, and another one begins.
    pub(crate) fn crash(&self, executor: &mut Executor) {
        self.sim.note(|| "the process dies".to_owned());
        self.process().alive.store(false, Ordering::Relaxed);
        self.witness.cut();
        executor.kill_server();
        self.ledger.crash();
        self.restart();
    }

    /// Tells the process to stop.
    pub(crate) fn stop(&self) {
        self.sim.note(|| "the process is told to stop".to_owned());
        let stop = Arc::clone(&self.process().stop);
        stop.is_stopping.store(true, Ordering::Relaxed);
        let waiting = std::mem::take(&mut *stop.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for waker in waiting {
            waker.wake();
        }
    }

    /// Whether the process was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.process().stop.is_stopping.load(Ordering::Relaxed)
    }

    /// Another process takes over.
    pub(crate) fn restart(&self) {
        let old = self.process();
        old.alive.store(false, Ordering::Relaxed);
        self.sim.note(|| format!("life {} begins", old.life + 1));
        let parts = Parts {
            sim: self.sim.clone(),
            plan: Arc::clone(&self.plan),
            witness: self.witness.clone(),
            ledger: self.ledger.clone(),
            store: Arc::clone(&self.store),
            index: Arc::clone(&self.index),
            corpus: Arc::clone(&self.corpus),
            cache: Arc::clone(&self.cache),
            keys: Arc::clone(&self.keys),
            directory: Arc::clone(&self.directory),
            plant: self.plant,
        };
        let new = Arc::new(parts.boot(old.life + 1));
        let replaced = std::mem::replace(&mut self.now().process, new);
        drop(replaced);
    }

    /// The background that does the work of `request`.
    pub(crate) fn background(&self, process: &Arc<Process>, request: RequestId) -> RequestBackground {
        RequestBackground {
            sim: self.sim.clone(),
            witness: self.witness.clone(),
            process: Arc::clone(process),
            request,
            drops: self.plant == Some(Plant::DroppedWork),
        }
    }
}

/// What a process is made of.
struct Parts {
    sim: Sim,
    plan: Arc<Plan>,
    witness: Witness,
    ledger: JournaledLedger,
    store: Arc<SeenStore>,
    index: Arc<MemorySessionIndex>,
    corpus: Arc<MemoryCorpus>,
    cache: Arc<MemoryCache>,
    keys: Arc<MemoryIdempotencyStore>,
    directory: Arc<MemoryTenantDirectory>,
    plant: Option<Plant>,
}

impl Parts {
    fn boot(&self, life: u64) -> Process {
        let alive = Arc::new(AtomicBool::new(true));
        let chaos = Chaos {
            sim: self.sim.clone(),
            witness: self.witness.clone(),
            permille: self.plan.rates.port,
            alive: Arc::clone(&alive),
            is_on: true,
        };
        // Behind facades that have their own faults, the small ports have none.
        let behind = if self.plan.facade { chaos.off() } else { chaos.clone() };
        let slots: Arc<dyn StreamSlots> =
            Planted::<dyn StreamSlots>::new(Arc::new(MemoryStreamSlots::default()), self.plant);
        let turns: Arc<dyn TurnQueue> = Planted::<dyn TurnQueue>::new(Arc::new(MemoryTurnQueue::default()), self.plant);
        let limiter = SeenLimiter::new(self.sim.clone(), GenerousLimiter::limiter(self.plant));
        let ledger = Planted::<dyn TokenLedger>::new(Arc::new(self.ledger.clone()), self.plant);
        let telemetry = SeenTelemetry { witness: self.witness.clone() };
        let telemetry = Planted::<dyn Telemetry>::new(Arc::new(telemetry), self.plant);
        let store: Arc<dyn SessionStore> = Planted::<dyn SessionStore>::new(Arc::clone(&self.store) as _, self.plant);
        let keys = Planted::<dyn IdempotencyStore>::new(Arc::clone(&self.keys) as _, self.plant);
        let index = Arc::clone(&self.index) as Arc<dyn SessionIndex>;
        let books = ComposedBooks::new(
            Faulty::new(Arc::new(limiter) as Arc<dyn enigma_core::ports::RateLimiter>, &behind),
            Faulty::new(Arc::clone(&slots), &behind),
            Faulty::new(ledger as Arc<dyn TokenLedger>, &behind),
            Faulty::new(telemetry as Arc<dyn Telemetry>, &behind),
        );
        let queued = QueuedTurns::new(
            Faulty::new(Arc::clone(&turns), &behind),
            Faulty::new(Arc::clone(&store), &behind),
            Faulty::new(Arc::clone(&index), &behind),
        );
        let (books, queued): (Arc<dyn RequestBooks>, Arc<dyn SessionTurns>) = if self.plan.facade {
            (
                Arc::new(FaultyBooks { inner: books, chaos: chaos.clone() }),
                Arc::new(FaultyTurns { inner: queued, chaos: chaos.clone() }),
            )
        } else {
            (Arc::new(books), Arc::new(queued))
        };
        let clock: Arc<dyn Clock> = Arc::new(self.sim.clone());
        let ids: Arc<dyn IdSource> = Arc::new(self.sim.clone());
        let (admission, models) = (Admission::new(books, LIFETIME), self.gateway(&clock, &ids));
        let idempotency: Arc<dyn IdempotencyStore> = Faulty::new(keys as Arc<dyn IdempotencyStore>, &chaos);
        let embeddings = self.embeddings(&clock, &ids);
        let corpus: Arc<dyn Corpus> = Faulty::new(Arc::clone(&self.corpus) as Arc<dyn Corpus>, &chaos);
        let search = SearchPorts {
            admission: admission.clone(),
            models: models.clone(),
            embeddings: embeddings.clone(),
            corpus: Arc::clone(&corpus),
            cache: Faulty::new(Arc::clone(&self.cache) as Arc<dyn Cache>, &chaos),
            reranker: None,
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
        };
        let ingest = IngestPorts {
            admission: admission.clone(),
            embeddings,
            corpus: Arc::clone(&corpus),
            idempotency: Arc::clone(&idempotency),
            clock: Arc::clone(&clock),
            ids: Arc::clone(&ids),
        };
        let ports =
            ChatPorts { tools: None, admission, models, turns: queued, idempotency, clock: Arc::clone(&clock), ids };
        let settings = ChatSettings {
            request_timeout: REQUEST,
            send_timeout: SEND,
            default_max_tokens: 40,
            max_tokens: 150,
            prompt: PromptLimits { max_messages: 8, max_tokens: 120 },
            ..ChatSettings::default()
        };
        let sessions = SessionService::new(
            Faulty::new(store, &chaos),
            Faulty::new(index, &chaos),
            Faulty::new(Arc::clone(&turns), &chaos),
            clock,
            Duration::from_secs(30),
        );
        let directory = Arc::clone(&self.directory) as Arc<dyn enigma_core::ports::TenantDirectory>;
        Process {
            life,
            chat: ChatService::new(ports, settings),
            sessions,
            search: SearchService::new(search, search_settings()),
            ingest: IngestService::new(
                ingest,
                IngestSettings { max_chunks: 100, request_timeout: REQUEST, send_timeout: SEND },
            ),
            documents: DocumentService::new(corpus),
            resolver: Resolver::new(Faulty::new(directory, &chaos), None),
            slots,
            turns,
            alive,
            stop: Arc::default(),
        }
    }

    fn embeddings(&self, clock: &Arc<dyn Clock>, ids: &Arc<dyn IdSource>) -> EmbeddingGateway {
        let embedder =
            SimEmbedder { plan: Arc::clone(&self.plan), witness: self.witness.clone(), ledger: self.ledger.clone() };
        let provider = "vectors".parse().expect("it is the name of a provider");
        let route = EmbedderRoute { provider, embedder: Arc::new(embedder), max_batch: 2 };
        let catalog = StaticEmbedderCatalog::new().with_model(model_id("words"), route);
        let breaker = BreakerPolicy { failures: 4, ..BreakerPolicy::default() };
        let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let timeout = Duration::from_secs(20);
        EmbeddingGateway::new(Arc::new(catalog), Arc::clone(clock), Arc::clone(ids), breaker, retry, timeout)
    }

    fn gateway(&self, clock: &Arc<dyn Clock>, ids: &Arc<dyn IdSource>) -> ModelGateway {
        let model = Arc::new(SimModel {
            plan: Arc::clone(&self.plan),
            witness: self.witness.clone(),
            ledger: self.ledger.clone(),
            store: Arc::clone(&self.store),
            active: Arc::default(),
        });
        let route = |provider: &str| ModelRoute {
            provider: provider.parse().expect("it is the name of a provider"),
            model: Arc::clone(&model) as _,
        };
        let catalog =
            StaticCatalog::new().with_model(model_id("main"), route("one")).with_model(model_id("spare"), route("two"));
        let breaker = BreakerPolicy { failures: 4, ..BreakerPolicy::default() };
        let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let timeouts = ModelTimeouts { first_token: Duration::from_secs(20), idle: Duration::from_secs(5) };
        ModelGateway::new(Arc::new(catalog), Arc::clone(clock), Arc::clone(ids), breaker, retry, timeouts)
    }
}

/// So little that most tenants can pay for it.
fn search_settings() -> SearchSettings {
    SearchSettings {
        overrides: ModelOverrides { model: Some(model_id("main")), fallback: None },
        prompt_tokens: 300,
        max_tokens: 40,
        request_timeout: REQUEST,
        send_timeout: SEND,
        ..SearchSettings::default()
    }
}

pub(crate) fn model_id(name: &str) -> ModelId {
    name.parse().expect("it is the name of a model")
}

/// Runs the work of one request, and sees it end.
pub(crate) struct RequestBackground {
    sim: Sim,
    witness: Witness,
    process: Arc<Process>,
    request: RequestId,
    drops: bool,
}

impl Background for RequestBackground {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        if !self.process.alive.load(Ordering::Relaxed) {
            self.witness.about(&self.request, |facts| facts.cut = true);
            return;
        }
        if self.drops && self.sim.chance(100) {
            self.witness.about(&self.request, |facts| facts.ended = true);
            return;
        }
        let (witness, request) = (self.witness.clone(), self.request);
        let name = format!("r{}", number(&request));
        let seen = async move {
            work.await;
            witness.about(&request, |facts| facts.ended = true);
        };
        self.sim.spawn(Side::Server, name, Box::pin(seen));
    }

    fn stopping(&self) -> BoxFuture<'static, ()> {
        let stop = Arc::clone(&self.process.stop);
        Box::pin(poll_fn(move |context| {
            if stop.is_stopping.load(Ordering::Relaxed) {
                return Poll::Ready(());
            }
            let mut waiting = stop.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        }))
    }
}
