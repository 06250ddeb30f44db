//! A disk, a file and a clock that fail under the native server. What was acknowledged is kept, the books stay right, and
//! everything works again without a restart when the system does.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

mod clock;
mod damaged;
mod disk;
mod locked;
mod storm;

use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::system::System;
use enigma_conformance::upstream::PATIENCE;
use enigma_conformance::{Answer, Api, Books, Server, ServerConfig, Tenant, Upstream};
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

const BUDGET: u64 = 900_000;

/// Models, a directory, and a system that can fail; servers come and go.
struct Bench {
    upstream: Upstream,
    system: System,
    directory: Arc<TempDir>,
}

impl Bench {
    fn new() -> Self {
        Self { upstream: Upstream::start(), system: System::new(), directory: Arc::new(tempfile::tempdir().unwrap()) }
    }

    /// Two tenants, and everything in SQLite, which waits for the disk at every commit.
    fn config(&self) -> ServerConfig {
        let tenant = |id| {
            Tenant::new(id)
                .with("maxMessagesPerSession", json!(1_000_000))
                .with("tokenBudget", json!({ "daily": BUDGET, "monthly": BUDGET }))
        };
        let config = ServerConfig::new()
            .upstream(&self.upstream.base_url())
            .set("storage.synchronous", "full")
            .set("log.level", "warn")
            .tenant(&tenant("acme"))
            .tenant(&tenant("other"))
            .stored_in(&self.directory);
        self.system.under(config, self.directory.path())
    }

    fn start(&self) -> Server {
        self.config().start()
    }

    fn books(&self) -> Books {
        Books::of(self.directory.path())
    }

    fn database(&self) -> std::path::PathBuf {
        self.directory.path().join("enigma.db")
    }
}

/// Asks until it is answered, for as long as refusals are those of a storage that is not there.
async fn until_answered(api: &Api, session: &str, message: &str) -> Answer {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = api.chat(session, message).await;
        if answer.status == 200 {
            return answer;
        }
        answer.error(503, "unavailable");
        assert!(Instant::now() < end, "it does not come back: {answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Asserts that nothing was refused in a way that nobody has thought of.
fn assert_calm(server: &Server) {
    let output = server.output();
    assert!(!output.contains("panicked"), "{output}");
}
