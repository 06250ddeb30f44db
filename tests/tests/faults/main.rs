//! Models that fail in every way that a network and a provider have. Each fault has one outcome, a known number of calls, a
//! record, and books that are right to the token; the server is the native one, with everything in SQLite.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

mod before;
mod during;
mod guards;
mod waits;

use std::sync::Arc;

use enigma_conformance::client::session;
use enigma_conformance::{Answer, Api, Books, Server, ServerConfig, Tenant, Upstream, Wire};
use serde_json::{Value, json};
use tempfile::TempDir;

const BUDGET: u64 = 100_000;
const MESSAGE: &str = "is anybody there?";
/// What a request may take in all, in seconds.
const REQUEST_TIMEOUT: u64 = 9;

/// A server, the models that fail, and one that does not.
struct Bench {
    wire: Wire,
    server: Server,
    books: Books,
    _good: Upstream,
    _directory: Arc<TempDir>,
}

/// The name of a fault's tenant, and of its model.
fn name(fault: usize, kind: &str) -> String {
    format!("{kind}-{fault}")
}

impl Bench {
    /// A server with a tenant and a model of its own for each of `count` faults of a `kind`.
    fn new(kind: &str, count: usize) -> Self {
        let (wire, good, directory) = (Wire::start(), Upstream::start(), Arc::new(tempfile::tempdir().unwrap()));
        let mut config = ServerConfig::new()
            .provider(&format!("id = \"wire\"\nbase_url = {}\ndefault = true", json!(wire.base_url())))
            .provider(&format!(
                "id = \"good\"\nbase_url = {}\nmodels = {{ \"scripted\" = \"scripted\" }}",
                json!(good.base_url())
            ))
            .set("chat.request_timeout_seconds", REQUEST_TIMEOUT);
        for fault in 0..count {
            let name = name(fault, kind);
            let tenant = Tenant::new(&name).only_models(&[&name, "scripted"]);
            config = config.tenant(&tenant.with("tokenBudget", json!({ "daily": BUDGET, "monthly": BUDGET })));
        }
        let server = config.stored_in(&directory).start();
        let books = Books::of(directory.path());
        Self { wire, server, books, _good: good, _directory: directory }
    }

    /// Asserts what a tenant has spent in all: by the rows, and by what it can still reserve and no more.
    async fn assert_spent(&self, tenant: &str, spent: u64) {
        let account = self.books.settled(tenant).await;
        assert_eq!((account.day, account.month, account.held), (spent, spent, 0), "{tenant}");
        let recorded: u64 = self.books.recorded(tenant).iter().map(|record| record.charged).sum();
        assert_eq!(recorded, spent, "{tenant}: the records and the books differ");
        let api = self.server.tenant(tenant);
        let prompt = "[[usage 0 0]]".len().div_ceil(4) as u64;
        let most = |tokens: u64| json!({ "max_tokens": tokens - prompt });
        let refused = api.complete("[[usage 0 0]]", &most(BUDGET - spent + 1)).await;
        refused.openai_error(429, "budget_exceeded", "insufficient_quota");
        api.complete("[[usage 0 0]]", &most(BUDGET - spent)).await.object();
    }
}

fn body(session: &str, model: &str, stream: bool) -> Value {
    json!({ "sessionId": session, "message": MESSAGE, "modelId": model, "stream": stream })
}

fn estimate(text: &str) -> u64 {
    text.chars().count().div_ceil(4) as u64
}

async fn ask(api: &Api, session: &str, model: &str, stream: bool) -> Answer {
    api.post("/chat", &body(session, model, stream)).await
}

/// Nothing that a provider or the system said reaches a client.
fn assert_discreet(answer: &Answer) {
    for secret in ["secret", "os error", "reset", "127.0.0.1", "hyper", "expected"] {
        assert!(!answer.text.contains(secret), "{secret:?} in {answer:?}");
    }
}

/// Asserts that the server is as well as before.
async fn assert_well(server: &Server, tenant: &str) {
    let (api, session) = (server.tenant(tenant), session());
    let body = json!({ "sessionId": session, "message": "[[usage 0 0]]", "modelId": "scripted", "stream": false });
    api.post("/chat", &body).await.ok();
    assert!(!server.output().contains("panicked"), "{}", server.output());
}
