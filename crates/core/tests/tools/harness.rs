//! A deployment in memory with tools, a clock that stands still, and a model that plays scripts.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::model::{BreakerPolicy, ModelGateway, ModelRoute, ModelTimeouts, RetryPolicy, StaticCatalog, Usage};
use enigma_core::ports::{AuditLog, Clock, IdSource, TenantDirectory, TokenLedger};
use enigma_core::tenant::{ClientAddress, RequestIdentity, Resolver, Tenant, TenantContext, TenantIndex, UserHints};
use enigma_core::tools::{
    AuditQuery, AuditRecord, Permission, Question, Tool, ToolCall, ToolCommand, ToolDefinition, ToolFailure, ToolPorts,
    ToolRegistry, ToolRejected, ToolReply, ToolRun, ToolService, ToolSettings,
};
use enigma_core::{RequestId, TenantId, Timestamp, ToolName, TraceId};
use enigma_memory::testing::{ManualClock, Script, ScriptedModel, SeededIds, TestBackground};
use enigma_memory::{
    MemoryAuditLog, MemoryIdempotencyStore, MemoryRateLimiter, MemoryStreamSlots, MemoryTelemetry,
    MemoryTenantDirectory, MemoryTokenLedger,
};
use serde_json::{Value, json};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// What a tool of these tests has.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) model: Arc<ScriptedModel>,
    pub(crate) background: TestBackground,
    pub(crate) audit: Arc<MemoryAuditLog>,
    ledger: Arc<MemoryTokenLedger>,
    pub(crate) telemetry: Arc<MemoryTelemetry>,
    pub(crate) tools: ToolService,
    resolver: Resolver,
    ids: SeededIds,
}

/// Does with `how` what a tool can do, well or badly.
pub(crate) struct Parrot;

#[async_trait]
impl Tool for Parrot {
    fn definition(&self) -> ToolDefinition {
        ToolDefinition {
            name: ToolName::new("parrot").unwrap(),
            description: "Says it again.".to_owned(),
            parameters: json!({ "type": "object", "required": ["how"], "properties": { "how": { "type": "string" } } }),
            output: json!({ "type": "object", "required": ["said"], "properties": { "said": { "type": "string" } } }),
            timeout: TIMEOUT,
            permissions: vec![Permission::Flag("birds".to_owned())],
            takes_documents: false,
        }
    }

    fn estimate(&self, params: &Value) -> u64 {
        if params["how"] == "for free" { 0 } else { 100 }
    }

    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure> {
        match params["how"].as_str().unwrap_or_default() {
            "for free" => {
                assert!(run.ask(Vec::new(), 1).await.is_err(), "it has set nothing aside");
                Ok(json!({ "said": "free" }))
            }
            "panic" => panic!("the parrot has fallen"),
            "fail" => Err(ToolFailure::Told("the parrot is silent".to_owned())),
            "wrong" => Ok(json!({ "said": 3 })),
            "huge" => Ok(json!({ "said": "x".repeat(2_000_000) })),
            "hang" => std::future::pending().await,
            word => {
                let question = Question { instructions: "Say it.", data: &[json!({ "word": word })], max_tokens: 20 };
                run.ask_for(question, |answer| {
                    let said = answer["said"].as_str().ok_or("it says nothing")?;
                    Ok(json!({ "said": said }))
                })
                .await
            }
        }
    }
}

impl World {
    /// A tenant with these flags.
    pub(crate) fn new(flags: &Value) -> Self {
        let tenant = json!({
            "tenantId": "acme", "aiModels": { "chat": "main" }, "auth": { "mode": "open" },
            "tokenBudget": { "daily": 1000 }, "rateLimit": { "perMinute": 5 }, "featureFlags": flags,
        });
        let clock = ManualClock::new(NOW);
        let shared: Arc<dyn Clock> = Arc::new(clock.clone());
        let model = Arc::new(ScriptedModel::new(Arc::clone(&shared)));
        let route = ModelRoute { provider: "one".parse().unwrap(), model: Arc::clone(&model) as _ };
        let ids: Arc<dyn IdSource> = Arc::new(SeededIds::new(7));
        let models = ModelGateway::new(
            Arc::new(StaticCatalog::new().with_model("main".parse().unwrap(), route)),
            Arc::clone(&shared),
            Arc::clone(&ids),
            BreakerPolicy::default(),
            RetryPolicy { max_attempts: 1, ..RetryPolicy::default() },
            ModelTimeouts { first_token: Duration::from_secs(200), idle: Duration::from_secs(200) },
        );
        let (ledger, telemetry) = (Arc::new(MemoryTokenLedger::default()), Arc::new(MemoryTelemetry::default()));
        let books = ComposedBooks::new(
            Arc::new(MemoryRateLimiter::default()),
            Arc::new(MemoryStreamSlots::default()),
            Arc::clone(&ledger) as _,
            Arc::clone(&telemetry) as _,
        );
        let audit = Arc::new(MemoryAuditLog::default());
        let ports = ToolPorts {
            admission: Admission::new(Arc::new(books), Duration::from_secs(900)),
            models,
            idempotency: Arc::new(MemoryIdempotencyStore::default()),
            audit: Arc::clone(&audit) as _,
            clock: shared,
            ids,
        };
        let mut registry = ToolRegistry::new();
        registry.register(Arc::new(Parrot)).unwrap();
        let tenant = Tenant::from_json(&tenant.to_string()).unwrap();
        let directory: Arc<dyn TenantDirectory> =
            Arc::new(MemoryTenantDirectory::new(TenantIndex::new([tenant]).unwrap()));
        let runtime = tokio::runtime::Handle::current();
        Self {
            clock,
            model,
            background: TestBackground::new(move |work| drop(runtime.spawn(work))),
            audit,
            ledger,
            telemetry,
            tools: ToolService::new(registry, ports, ToolSettings::default()),
            resolver: Resolver::new(directory, None),
            ids: SeededIds::new(8),
        }
    }

    /// A tenant that may use the parrot.
    pub(crate) fn usual() -> Self {
        Self::new(&json!({ "tools_enabled": true, "birds": true }))
    }

    pub(crate) async fn context(&self) -> TenantContext {
        let identity = RequestIdentity { tenant: Some("acme"), host: None, presented: None };
        let tenant = self.resolver.resolve(&identity).await.unwrap();
        self.resolver.authenticate(tenant, None, &ClientAddress::new("192.0.2.1"), NOW).await.unwrap()
    }

    pub(crate) async fn command(&self, tool: &str, params: Value) -> ToolCommand {
        ToolCommand {
            request: RequestId::new(self.ids.uuid()),
            trace: TraceId::new("trace").unwrap(),
            traceparent: None,
            route: "/tools/execute",
            caller: self.context().await.caller(UserHints::default()),
            call: ToolCall { name: ToolName::new(tool).unwrap(), params },
            idempotency: None,
        }
    }

    pub(crate) async fn execute(&self, command: ToolCommand) -> Result<ToolReply, ToolRejected> {
        self.tools.execute(self.context().await, command, &self.background).await
    }

    /// Has the parrot do it.
    pub(crate) async fn parrot(&self, how: &str) -> Result<ToolReply, ToolRejected> {
        self.execute(self.command("parrot", json!({ "how": how })).await).await
    }

    /// What the model says next, and the tokens that it counts.
    pub(crate) fn will_say(&self, text: &str) {
        self.model.push(Script::saying([text], Usage { prompt_tokens: 7, completion_tokens: 3 }));
    }

    pub(crate) async fn audited(&self) -> Vec<AuditRecord> {
        self.background.idle().await;
        self.audit.list(&acme(), &AuditQuery::default(), None, 100, self.clock.now()).await.unwrap().records
    }

    /// What is spent and what is set aside of the day's budget.
    pub(crate) async fn books(&self) -> (u64, u64) {
        let balance = self.ledger.balance(&acme(), self.clock.now()).await.unwrap();
        (balance.day.settled, balance.held_today)
    }

    /// Lets everything happen that can happen without time passing.
    pub(crate) async fn settle_down(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

pub(crate) fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}
