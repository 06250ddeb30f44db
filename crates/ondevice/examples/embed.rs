//! A conversation without HTTP: the platform's use cases inside this program, with a model that runs in it too.
//!
//! ```sh
//! cargo run --release -p enigma-ondevice --features pull --example embed
//! cargo run --release -p enigma-ondevice --features pull --example embed -- "What is Rust?" "And who uses it?"
//! ```
//!
//! The first run fetches the model's weights.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program that prints, and whose own clock and runtime these are"
)]

use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use enigma_core::admission::Admission;
use enigma_core::books::ComposedBooks;
use enigma_core::chat::{ChatCommand, ChatEvent, ChatPorts, ChatService, ChatSettings};
use enigma_core::model::{
    BreakerPolicy, ChatMessage, ModelGateway, ModelRoute, ModelTimeouts, RetryPolicy, Role, StaticCatalog,
};
use enigma_core::ports::{Background, Clock, IdSource};
use enigma_core::tenant::{ClientAddress, RequestIdentity, Resolver, Tenant, TenantIndex, UserHints};
use enigma_core::turns::QueuedTurns;
use enigma_core::{RequestId, SessionId, Timestamp, TraceId};
use enigma_memory::{
    MemoryIdempotencyStore, MemoryRateLimiter, MemorySessionIndex, MemorySessionStore, MemoryStreamSlots,
    MemoryTelemetry, MemoryTenantDirectory, MemoryTokenLedger, MemoryTurnQueue,
};
use enigma_ondevice::{OnDeviceModel, OnDeviceOptions, weights};
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, pending};

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

struct OsIds;

impl IdSource for OsIds {
    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random numbers");
        u128::from_le_bytes(bytes)
    }
}

struct Tasks;

impl Background for Tasks {
    fn spawn(&self, work: BoxFuture<'static, ()>) {
        tokio::spawn(work);
    }

    fn stopping(&self) -> BoxFuture<'static, ()> {
        Box::pin(pending())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut questions: Vec<String> = std::env::args().skip(1).collect();
    if questions.is_empty() {
        questions = ["What is a compiler? Answer in one sentence.", "What is it good for? Answer in one sentence."]
            .map(str::to_owned)
            .into();
    }
    let directory = weights::default_dir().ok_or("no home directory to keep the weights in")?;
    let file =
        weights::pull(&weights::SMOLLM2_135M_INSTRUCT, &directory, &weights::Sources::default(), &|_| {}).await?;
    let model = tokio::task::spawn_blocking(move || OnDeviceModel::load(&file, OnDeviceOptions::default())).await??;

    let (clock, ids): (Arc<dyn Clock>, Arc<dyn IdSource>) = (Arc::new(SystemClock), Arc::new(OsIds));
    let chat = service(model, &clock, &ids)?;

    let tenant = r#"{ "tenantId": "home", "aiModels": { "chat": "small" }, "auth": { "mode": "open" } }"#;
    let directory = MemoryTenantDirectory::new(TenantIndex::new([Tenant::from_json(tenant)?])?);
    let resolver = Resolver::new(Arc::new(directory), None);
    let identity = RequestIdentity { tenant: Some("home"), ..RequestIdentity::default() };
    let session = SessionId::new(ids.uuid());
    for question in questions {
        println!("> {question}");
        let tenant = resolver.resolve(&identity).await?;
        let context = resolver.authenticate(tenant, None, &ClientAddress::new("in process"), clock.now()).await?;
        let request = RequestId::new(ids.uuid());
        let caller = context.caller(UserHints::default());
        let messages = vec![ChatMessage::text(Role::User, question)];
        let command = ChatCommand {
            session: Some(session),
            ..ChatCommand::new(request, TraceId::new(&request.to_string())?, caller, messages)
        };
        let mut reply = chat.send(context, command, &Tasks).await?;
        while let Some(event) = reply.events.next().await {
            match event {
                ChatEvent::Content(text) => print!("{text}"),
                ChatEvent::Failed(failure) => print!(" [{failure:?}]"),
                ChatEvent::Done(done) => println!("\n  ({} tokens in, {} out)", done.tokens_in, done.tokens_out),
                ChatEvent::Reasoning(_) | ChatEvent::ToolCall(_) | ChatEvent::Tool(_) => {}
            }
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

/// The chat service of this program: everything in memory, one model.
fn service(
    model: OnDeviceModel,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn IdSource>,
) -> Result<ChatService, Box<dyn Error>> {
    let route = ModelRoute { provider: "ondevice".parse()?, model: Arc::new(model) };
    let models = ModelGateway::new(
        Arc::new(StaticCatalog::new().with_model("small".parse()?, route)),
        Arc::clone(clock),
        Arc::clone(ids),
        BreakerPolicy::default(),
        RetryPolicy::default(),
        ModelTimeouts::default(),
    );
    let settings = ChatSettings { default_max_tokens: 200, ..ChatSettings::default() };
    let books = ComposedBooks::new(
        Arc::new(MemoryRateLimiter::default()),
        Arc::new(MemoryStreamSlots::default()),
        Arc::new(MemoryTokenLedger::default()),
        Arc::new(MemoryTelemetry::default()),
    );
    let turns = QueuedTurns::new(
        Arc::new(MemoryTurnQueue::default()),
        Arc::new(MemorySessionStore::default()),
        Arc::new(MemorySessionIndex::default()),
    );
    let ports = ChatPorts {
        tools: None,
        admission: Admission::new(Arc::new(books), settings.request_timeout * 2),
        models,
        turns: Arc::new(turns),
        idempotency: Arc::new(MemoryIdempotencyStore::default()),
        clock: Arc::clone(clock),
        ids: Arc::clone(ids),
    };
    Ok(ChatService::new(ports, settings))
}
