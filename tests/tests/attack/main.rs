//! Attacks on the native server: bytes that no client sends, and requests of a tenant that wants what is another's. Whatever
//! happens, a well-behaved client of another tenant is served on, memory stays bounded, and every line of the log is the server's
//! own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

mod exhaustion;
mod framing;
mod injection;
mod paths;
mod tenants;

use std::time::Duration;

use enigma_conformance::neighbour::Neighbour;
use enigma_conformance::tenant::key_of;
use enigma_conformance::{Api, Server, ServerConfig, Tenant, Upstream, raw};
use serde_json::{Value, json};
use tokio::time::Instant;

/// Who attacks.
const ATTACKER: &str = "attacker";
/// Whose data they are after.
const VICTIM: &str = "victim";
/// Who just wants to chat.
const NEIGHBOUR: &str = "neighbour";

/// How much more memory the server may have at the peak of an attack than before it. Hundreds of bodies of 64 KiB are in its
/// hands at once, each in the buffer of its connection and then as a whole, and the allocator gives back with a delay.
const MOST_MEMORY: u64 = 128 << 20;
/// How long the neighbour may wait for an answer, on a machine that runs other tests at the same time.
const MOST_WAIT: Duration = Duration::from_secs(10);
/// How many answers the neighbour must have got before an attack counts as over.
const LEAST_ANSWERS: usize = 5;

/// A server with three tenants.
struct Stage {
    upstream: Upstream,
    server: Server,
    neighbour: Neighbour,
    before: u64,
}

impl Stage {
    fn new() -> Self {
        Self::with(|config| config)
    }

    fn with(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> Self {
        let upstream = Upstream::start();
        let mut config = ServerConfig::new().upstream(&upstream.base_url()).set("server.max_request_body_size", 65_536);
        for name in [ATTACKER, VICTIM, NEIGHBOUR] {
            // A model each: a provider's failures concern all who use the same model of it.
            let tenant = Tenant::new(name).model(name).with("allowedHosts", json!([format!("{name}.test")]));
            config = config.tenant(&tenant);
        }
        let server = configure(config).start();
        let before = server.peak_memory();
        let neighbour = Neighbour::start(server.tenant(NEIGHBOUR));
        Self { upstream, server, neighbour, before }
    }

    fn attacker(&self) -> Api {
        self.server.tenant(ATTACKER)
    }

    fn victim(&self) -> Api {
        self.server.tenant(VICTIM)
    }

    /// A request of the attacker's: its head, with what comes after `content-type`.
    fn head(&self, path: &str, more: &[(&str, &str)]) -> String {
        let key = key_of(ATTACKER);
        let usual = [("x-api-key", &*key), ("content-type", "application/json")];
        raw::head(&self.server.base_url, "POST", path, &[&usual, more].concat())
    }

    /// Judges what the attack has done, and returns the log.
    async fn end(mut self) -> String {
        let end = Instant::now() + MOST_WAIT * 2;
        let more = self.neighbour.answered() + 2;
        while self.neighbour.answered() < more.max(LEAST_ANSWERS) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (answered, slowest) = (self.neighbour.answered(), self.neighbour.finish());
        assert!(
            answered >= more.max(LEAST_ANSWERS) && slowest < MOST_WAIT,
            "{answered} answers, the slowest in {slowest:?}"
        );
        assert_eq!(self.server.tenant(VICTIM).get("/health").await.ok()["tenant"], VICTIM);
        let grown = self.server.peak_memory().saturating_sub(self.before);
        assert!(grown <= MOST_MEMORY, "the attack took {grown} bytes of memory");
        self.server.terminate();
        assert!(self.server.ended(Duration::from_secs(15)).success());
        self.server.stderr.wait_for(Duration::from_secs(5), |_| None::<()>);
        let log = self.server.stderr.text();
        assert!(!log.contains("panicked"), "{log}");
        log
    }
}

/// Every line of a log in JSON, as it can be read.
fn lines(log: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
    log.lines().map(line).collect()
}
