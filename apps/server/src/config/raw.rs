//! The configuration's shape. Values that may be left out are optional here only where the settings have no default for them.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawConfig {
    pub(super) environment: String,
    pub(super) server: RawServer,
    pub(super) overload: RawOverload,
    pub(super) tls: Option<RawTls>,
    pub(super) tenants: RawTenants,
    pub(super) storage: RawStorage,
    pub(super) chat: RawChat,
    pub(super) search: RawSearch,
    pub(super) tools: RawTools,
    pub(super) models: RawModels,
    pub(super) providers: Vec<RawProvider>,
    pub(super) ondevice: Option<RawOnDevice>,
    pub(super) espeak: RawEspeak,
    pub(super) log: RawLog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawServer {
    pub(super) listen: String,
    pub(super) socket_mode: String,
    pub(super) trusted_proxies: Vec<String>,
    pub(super) shutdown_grace_seconds: u64,
    pub(super) max_request_body_size: u64,
    pub(super) max_document_body_size: u64,
    pub(super) max_message_length: u64,
    pub(super) keep_alive_seconds: u64,
    pub(super) max_connections: u64,
    pub(super) max_connections_per_address: u64,
    pub(super) header_read_timeout_seconds: u64,
    pub(super) idle_timeout_seconds: u64,
    pub(super) body_read_timeout_seconds: u64,
    pub(super) compression: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTls {
    pub(super) certificate_file: Option<String>,
    pub(super) key_file: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOverload {
    pub(super) max_requests: u64,
    pub(super) max_streams: u64,
    pub(super) tenant_share_percent: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTenants {
    pub(super) directory: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawStorage {
    pub(super) database: String,
    pub(super) synchronous: String,
    pub(super) rebuild_hours: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChat {
    pub(super) model_id: Option<String>,
    pub(super) fallback_model_id: Option<String>,
    pub(super) max_message_count: u64,
    pub(super) max_history_tokens: u64,
    pub(super) default_max_tokens: u64,
    pub(super) max_tokens: u64,
    pub(super) request_timeout_seconds: u64,
    pub(super) send_timeout_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSearch {
    pub(super) prompt_tokens: u64,
    pub(super) max_tokens: u64,
    pub(super) rewrite_timeout_ms: u64,
    pub(super) follow_up_wait_ms: u64,
    pub(super) cache_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTools {
    pub(super) timeout_seconds: u64,
    pub(super) audit_days: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModels {
    pub(super) first_token_timeout_seconds: u64,
    pub(super) idle_timeout_seconds: u64,
    pub(super) max_attempts: u64,
    pub(super) retry_base_delay_ms: u64,
    pub(super) retry_max_delay_ms: u64,
    pub(super) breaker_failures: u64,
    pub(super) breaker_open_seconds: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProvider {
    pub(super) id: String,
    pub(super) base_url: String,
    pub(super) api_key_env: Option<String>,
    #[serde(default = "connect_timeout_seconds")]
    pub(super) connect_timeout_seconds: u64,
    #[serde(default)]
    pub(super) default: bool,
    #[serde(default)]
    pub(super) models: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) embeddings: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) speech: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) voices: Vec<String>,
}

const fn connect_timeout_seconds() -> u64 {
    5
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOnDevice {
    pub(super) models_directory: Option<String>,
    pub(super) model_id: String,
    pub(super) embedding_model_id: String,
    pub(super) pull: bool,
    pub(super) queue: u64,
    pub(super) max_conversations: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEspeak {
    pub(super) model_id: String,
    pub(super) program: String,
    pub(super) voice: String,
    pub(super) processes: u64,
    pub(super) queue: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLog {
    pub(super) level: String,
    pub(super) format: String,
}
