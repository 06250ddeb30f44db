//! A host under test.

use std::time::Duration;

use crate::client::Api;
use crate::tenant::key_of;
use crate::upstream::Upstream;

/// Settings of a host that cases count on; every host that runs them is configured so.
pub mod settings {
    use std::time::Duration;

    /// `ENVIRONMENT`.
    pub const ENVIRONMENT: &str = "test";
    /// `MAX_MESSAGE_COUNT`.
    pub const MAX_MESSAGE_COUNT: usize = 6;
    /// `MAX_MESSAGE_LENGTH`.
    pub const MAX_MESSAGE_LENGTH: usize = 5000;
    /// `MAX_REQUEST_BODY_SIZE`.
    pub const MAX_REQUEST_BODY_SIZE: usize = 32_768;
    /// What a chat reserves for its answer, in tokens.
    pub const DEFAULT_MAX_TOKENS: u64 = 100;
    /// What it can ask for.
    pub const MAX_TOKENS: u64 = 4_000_000;
    /// After this much silence a stream carries a comment.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(1);
    /// How long a model may take to begin.
    pub const FIRST_TOKEN_TIMEOUT: Duration = Duration::from_secs(2);
    /// How long it may pause.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
    /// How long a tool may take.
    pub const TOOL_TIMEOUT: Duration = Duration::from_secs(6);
    /// How long a client may read nothing.
    pub const SEND_TIMEOUT: Duration = Duration::from_secs(3);
    /// Calls of one model for one request.
    pub const MAX_ATTEMPTS: usize = 2;
    /// Failures in a row that open a breaker.
    pub const BREAKER_FAILURES: usize = 4;
    /// For how long it opens.
    pub const BREAKER_OPEN: Duration = Duration::from_secs(2);
    /// Voices of the provider. Workers AI has them too.
    pub const VOICES: [&str; 2] = ["asteria", "luna"];
    /// Models that are served by name; every other name goes to the same provider, under the name that was given.
    pub const MODELS: [&str; 3] = ["@cf/meta/llama-3.1-8b-instruct", "scripted", "scripted-large"];
}

/// What hosts cannot do alike, as `docs/architecture/hosts.md` says; cases allow nothing else.
#[derive(Debug, Clone, Copy)]
pub struct Platform {
    /// How soon the host notices that the client of a stream has gone while the model is silent.
    pub notices_gone_within: Duration,
    /// Whether it notices a client that goes before the answer begins.
    pub notices_gone_early: bool,
    /// Whether it sees that a header was there twice, or is handed both values as one.
    pub sees_repeated_headers: bool,
    /// Whether an answer in one piece tells its length before it comes, or comes in chunks.
    pub tells_lengths: bool,
}

impl Platform {
    /// The native server.
    pub const NATIVE: Self = Self {
        notices_gone_within: Duration::from_secs(1),
        notices_gone_early: true,
        sees_repeated_headers: true,
        tells_lengths: true,
    };
    /// The Worker, which notices a client that has gone when it next writes to it.
    pub const WORKER: Self = Self {
        notices_gone_within: settings::KEEP_ALIVE.saturating_add(Duration::from_secs(1)),
        notices_gone_early: false,
        sees_repeated_headers: false,
        tells_lengths: false,
    };
}

/// A host, and the models behind it.
pub struct Host {
    /// Where it listens, such as `http://127.0.0.1:4711`.
    pub base_url: String,
    /// The models.
    pub upstream: Upstream,
    /// What it is.
    pub platform: Platform,
}

impl Host {
    /// Asks without saying who.
    pub fn anonymous(&self) -> Api {
        Api::new(&self.base_url)
    }

    /// Asks with a tenant's key.
    pub fn tenant(&self, id: &str) -> Api {
        self.anonymous().with("x-tenant-id", id).with("x-api-key", &key_of(id))
    }
}
