//! A deployment in memory, with a clock that stands still and a model that plays scripts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::chat::{
    ChatCommand, ChatEvent, ChatEvents, ChatPorts, ChatRejected, ChatReply, ChatService, ChatSettings, SessionService,
};
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::model::{
    BreakerPolicy, ChatMessage, ChatModel, Delta, FinishReason, ModelGateway, ModelRoute, ModelTimeouts, RetryPolicy,
    Role, StaticCatalog, Usage,
};
use enigma_core::ports::{Clock, IdSource, IdempotencyStore, SessionStore, StreamSlots, TenantDirectory, TokenLedger};
use enigma_core::session::{HistoryPage, RecentMessages, Retention, SessionSummary, StoredMessage, Turn};
use enigma_core::tenant::{
    ClientAddress, Presented, RequestIdentity, Resolver, Tenant, TenantContext, TenantIndex, UserHints,
};
use enigma_core::tools::{ToolPorts, ToolRegistry, ToolService, ToolSettings};
use enigma_core::turns::QueuedTurns;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, RequestId, SessionId, TenantId, Timestamp, TraceId};
use enigma_memory::testing::{ManualClock, Script, ScriptedModel, SeededIds, Step, TestBackground};
use enigma_memory::{
    MemoryAuditLog, MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionIndex, MemorySessionStore,
    MemoryStreamSlots, MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger, MemoryTurnQueue,
};
use futures_util::StreamExt;
use uuid::Uuid;

use crate::watched::{Calls, WatchedBooks, WatchedTurns};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) main: Arc<ScriptedModel>,
    pub(crate) spare: Arc<ScriptedModel>,
    pub(crate) background: TestBackground,
    pub(crate) ledger: Arc<MemoryTokenLedger>,
    pub(crate) slots: Arc<MemoryStreamSlots>,
    pub(crate) store: Arc<FailingStore>,
    pub(crate) keys: Arc<FailingKeys>,
    pub(crate) telemetry: Arc<MemoryTelemetry>,
    pub(crate) audit: Arc<MemoryAuditLog>,
    pub(crate) calls: Calls,
    pub(crate) chat: ChatService,
    pub(crate) sessions: SessionService,
    resolver: Resolver,
    ids: SeededIds,
}

/// The memory store, unless it is told to fail.
#[derive(Default)]
pub(crate) struct FailingStore {
    pub(crate) inner: MemorySessionStore,
    pub(crate) fails: std::sync::atomic::AtomicBool,
}

/// The memory store of keys, unless it is told to give a key and to lose its answer.
#[derive(Default)]
pub(crate) struct FailingKeys {
    inner: MemoryIdempotencyStore,
    pub(crate) loses_answers: std::sync::atomic::AtomicBool,
    /// Others run before a key is freed.
    pub(crate) is_slow: std::sync::atomic::AtomicBool,
}

pub(crate) fn settings() -> ChatSettings {
    ChatSettings {
        request_timeout: Duration::from_secs(100),
        send_timeout: Duration::from_secs(10),
        default_max_tokens: 50,
        ..ChatSettings::default()
    }
}

/// A tenant with the models `main` and, as its own and so as the fallback, `spare`.
pub(crate) fn tenant_json() -> serde_json::Value {
    serde_json::json!({
        "tenantId": "acme", "aiModels": { "chat": "spare" }, "auth": { "mode": "open" },
        "tokenBudget": { "daily": 1000 }, "rateLimit": { "perMinute": 100 }, "concurrency": { "maxStreams": 2 },
    })
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(&tenant_json(), settings())
    }

    pub(crate) fn with(tenant: &serde_json::Value, settings: ChatSettings) -> Self {
        Self::build(tenant, settings, None, None)
    }

    /// A world whose model `main` is another one than the scripted.
    pub(crate) fn with_main(model: Arc<dyn ChatModel>) -> Self {
        Self::build(&tenant_json(), settings(), Some(model), None)
    }

    /// A world with tools.
    pub(crate) fn with_tools(tenant: &serde_json::Value, settings: ChatSettings, tools: ToolRegistry) -> Self {
        Self::build(tenant, settings, None, Some(tools))
    }

    fn build(
        tenant: &serde_json::Value,
        settings: ChatSettings,
        own: Option<Arc<dyn ChatModel>>,
        tools: Option<ToolRegistry>,
    ) -> Self {
        let clock = ManualClock::new(NOW);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let model = || Arc::new(ScriptedModel::new(Arc::clone(&shared)));
        let (main, spare) = (model(), model());
        let route =
            |provider: &str, model: Arc<dyn ChatModel>| ModelRoute { provider: provider.parse().unwrap(), model };
        let asked = own.unwrap_or_else(|| Arc::clone(&main) as _);
        let catalog = StaticCatalog::new()
            .with_model("main".parse().unwrap(), route("one", asked))
            .with_model("spare".parse().unwrap(), route("two", Arc::clone(&spare) as _));
        let ids = Arc::new(SeededIds::new(7));
        let retry = RetryPolicy { max_attempts: 2, ..RetryPolicy::default() };
        let timeouts = ModelTimeouts { first_token: Duration::from_secs(20), idle: Duration::from_secs(5) };
        let breaker = BreakerPolicy { failures: 4, ..BreakerPolicy::default() };
        let models =
            ModelGateway::new(Arc::new(catalog), Arc::clone(&shared), Arc::clone(&ids) as _, breaker, retry, timeouts);
        let (ledger, slots) = (Arc::new(MemoryTokenLedger::default()), Arc::new(MemoryStreamSlots::default()));
        let (store, keys) = (Arc::new(FailingStore::default()), Arc::new(FailingKeys::default()));
        let telemetry = Arc::new(MemoryTelemetry::new(100));
        let (index, turns) = (Arc::new(MemorySessionIndex::default()), Arc::new(MemoryTurnQueue::default()));
        let lifetime = settings.request_timeout * 2;
        let calls = Calls::default();
        let books = ComposedBooks::new(
            Arc::new(MemoryRateLimiter::default()),
            Arc::clone(&slots) as _,
            Arc::clone(&ledger) as _,
            Arc::clone(&telemetry) as _,
        );
        let queued = QueuedTurns::new(Arc::clone(&turns) as _, Arc::clone(&store) as _, Arc::clone(&index) as _);
        let admission = Admission::new(Arc::new(WatchedBooks { inner: books, calls: calls.clone() }), lifetime);
        let audit = Arc::new(MemoryAuditLog::default());
        let tools = tools.map(|registry| {
            let ports = ToolPorts {
                admission: admission.clone(),
                models: models.clone(),
                idempotency: Arc::clone(&keys) as _,
                audit: Arc::clone(&audit) as _,
                clock: Arc::clone(&shared),
                ids: Arc::clone(&ids) as _,
            };
            ToolService::new(registry, ports, ToolSettings::default())
        });
        let ports = ChatPorts {
            tools,
            admission,
            models,
            turns: Arc::new(WatchedTurns { inner: queued, calls: calls.clone() }),
            idempotency: Arc::clone(&keys) as _,
            clock: Arc::clone(&shared),
            ids: ids as _,
        };
        let tenant = Tenant::from_json(&tenant.to_string()).unwrap();
        let directory: Arc<dyn TenantDirectory> =
            Arc::new(MemoryTenantDirectory::new(TenantIndex::new([tenant]).unwrap()));
        let runtime = tokio::runtime::Handle::current();
        Self {
            clock,
            main,
            spare,
            background: TestBackground::new(move |work| drop(runtime.spawn(work))),
            ledger,
            slots,
            sessions: SessionService::new(Arc::clone(&store) as _, index, turns, shared, Duration::from_secs(30)),
            store,
            keys,
            telemetry,
            audit,
            calls,
            chat: ChatService::new(ports, settings),
            resolver: Resolver::new(directory, None),
            ids: SeededIds::new(8),
        }
    }

    pub(crate) async fn context(&self) -> TenantContext {
        let identity = RequestIdentity { tenant: Some("acme"), host: None, presented: None::<Presented> };
        let tenant = self.resolver.resolve(&identity).await.unwrap();
        self.resolver.authenticate(tenant, None, &ClientAddress::new("192.0.2.1"), NOW).await.unwrap()
    }

    /// A question of 40 characters, which count as 10 tokens, to the model `main`.
    pub(crate) async fn question(&self, session: Option<u128>) -> ChatCommand {
        let context = self.context().await;
        let message = ChatMessage::text(Role::User, "x".repeat(40));
        let request = RequestId::new(self.ids.uuid());
        let trace = TraceId::new("trace").unwrap();
        let caller = context.caller(UserHints::default());
        ChatCommand {
            session: session.map(session_id),
            model: Some("main".parse().unwrap()),
            ..ChatCommand::new(request, trace, caller, vec![message])
        }
    }

    pub(crate) async fn ask(&self, command: ChatCommand) -> Result<ChatReply, ChatRejected> {
        self.chat.send(self.context().await, command, &self.background).await
    }

    /// Lets everything happen that can happen without time passing.
    pub(crate) async fn settle_down(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) async fn history(&self, session: u128) -> Vec<StoredMessage> {
        let page = self.sessions.history(&self.context().await, &session_id(session), None, 100).await;
        page.unwrap_or_default().messages
    }

    pub(crate) fn records(&self) -> Vec<UsageRecord> {
        self.telemetry.records(&acme()).unwrap()
    }

    /// What is spent and what is set aside of the day's budget.
    pub(crate) async fn books(&self) -> (u64, u64) {
        let balance = self.ledger.balance(&acme(), self.clock.now()).await.unwrap();
        (balance.day.settled, balance.held_today)
    }

    /// Asserts that no request holds anything any more: both streams that the tenant may have are free.
    pub(crate) async fn assert_nothing_is_held(&self) {
        assert_eq!(self.background.running(), 0, "a task still runs");
        assert_eq!(self.books().await.1, 0, "tokens are still set aside");
        for n in 0..2 {
            let holder = RequestId::new(Uuid::from_u128(900 + n));
            let later = NOW.saturating_add(Duration::from_secs(1000));
            self.slots.enter(&acme(), holder, 2, later, self.clock.now()).await.unwrap().expect("a stream is not free");
        }
        for n in 0..2 {
            self.slots.leave(&acme(), &RequestId::new(Uuid::from_u128(900 + n))).await.unwrap();
        }
    }
}

#[async_trait]
impl SessionStore for FailingStore {
    async fn append_turn(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        turn: &Turn,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<SessionSummary, PortError> {
        if self.fails.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(PortError::unavailable("session store", "disk full"));
        }
        self.inner.append_turn(tenant, session, turn, retention, now).await
    }

    async fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<RecentMessages, PortError> {
        self.inner.recent(tenant, session, limit, retention, now).await
    }

    async fn page(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        before: Option<u64>,
        limit: u32,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Option<HistoryPage>, PortError> {
        self.inner.page(tenant, session, before, limit, retention, now).await
    }

    async fn delete(&self, tenant: &TenantId, session: &SessionId) -> Result<bool, PortError> {
        self.inner.delete(tenant, session).await
    }

    async fn sweep(&self, tenant: &TenantId, retention: &Retention, now: Timestamp) -> Result<u64, PortError> {
        self.inner.sweep(tenant, retention, now).await
    }
}

#[async_trait]
impl IdempotencyStore for FailingKeys {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        let begun = self.inner.begin(tenant, key, fingerprint, holder, lease_until, now).await;
        if self.loses_answers.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(PortError::Timeout { port: "idempotency store" });
        }
        begun
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        self.inner.finish(tenant, key, holder, answer, keep_until).await
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        if self.is_slow.load(std::sync::atomic::Ordering::Relaxed) {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
        self.inner.abandon(tenant, key, holder).await
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

pub(crate) fn acme() -> TenantId {
    "acme".parse().unwrap()
}

pub(crate) fn session_id(n: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(n))
}

pub(crate) fn say(text: &str) -> Step {
    Step::Say(Delta::Content(text.to_owned()))
}

pub(crate) fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, completion_tokens }
}

/// "Hello" in two pieces; 12 tokens in and 3 out by the provider's count.
pub(crate) fn hello() -> Script {
    Script::saying(["Hel", "lo"], usage(12, 3))
}

pub(crate) fn finish() -> Step {
    Step::Say(Delta::Finish(FinishReason::Stop))
}

pub(crate) async fn read(events: ChatEvents) -> Vec<ChatEvent> {
    events.collect().await
}

pub(crate) fn text(events: &[ChatEvent]) -> String {
    events.iter().filter_map(|e| if let ChatEvent::Content(text) = e { Some(text.as_str()) } else { None }).collect()
}

/// The last event, which must be the only one of its kind.
pub(crate) fn done(events: &[ChatEvent]) -> &enigma_core::chat::ChatDone {
    let dones = events.iter().filter(|event| matches!(event, ChatEvent::Done(_))).count();
    assert_eq!(dones, 1, "done comes once");
    let Some(ChatEvent::Done(done)) = events.last() else { panic!("done comes last") };
    done
}
