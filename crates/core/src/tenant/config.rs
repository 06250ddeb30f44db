//! A tenant's configuration: the file's shape, and what it becomes when it has been checked.

mod auth;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::auth::{Auth, RawAuth};
use super::directory::normalise_host;
use super::key::{ApiKey, KeyHash, Scope, ScopeSet};
use crate::id::{KeyId, ModelId, TenantId};
use crate::limit::{Window, WindowPolicy};
use crate::session::Retention;
use crate::time::Timestamp;
use crate::token::TokenPolicy;

/// A field of a tenant's file that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct TenantConfigError {
    /// The field's path, such as `rateLimit.burst`.
    pub field: String,
    /// Why it cannot be accepted.
    pub reason: String,
}

impl TenantConfigError {
    fn new(field: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self { field: field.into(), reason: reason.to_string() }
    }
}

/// What a tenant demands of those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuthMode {
    /// Nothing.
    Open,
    /// An API key of this tenant.
    ApiKey,
    /// A JSON Web Token.
    Jwt,
}

/// Tokens that a tenant may use up, by UTC day and month. `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TokenBudget {
    /// Per day.
    pub daily: Option<u64>,
    /// Per month.
    pub monthly: Option<u64>,
}

/// Which web pages may call the tenant's routes from a browser.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// Origins such as `https://app.example`, or `*` for all.
    pub allowed_origins: BTreeSet<String>,
    /// Whether a page may send cookies along; never together with `*`.
    pub allow_credentials: bool,
    /// How long a browser may remember the answer to its question.
    pub max_age: Duration,
}

impl Cors {
    /// Whether pages of `origin` may call.
    pub fn allows(&self, origin: &str) -> bool {
        self.allowed_origins.contains("*") || self.allowed_origins.contains(origin)
    }
}

/// How much a tenant may do at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Concurrency {
    /// Answers being generated at once, streamed or not.
    pub max_streams: u32,
}

/// A tenant, checked. Every way to make one goes through [`Tenant::from_json`], so that a value of this type can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    id: TenantId,
    account_id: Option<String>,
    ai_gateway_id: Option<String>,
    vectorize_namespace: Option<String>,
    chat_model: ModelId,
    embedding_model: Option<ModelId>,
    speech_model: Option<ModelId>,
    user_window: WindowPolicy,
    shared_window: WindowPolicy,
    budget: TokenBudget,
    retention: Retention,
    flags: BTreeMap<String, bool>,
    allowed_models: Option<BTreeSet<ModelId>>,
    hosts: BTreeSet<String>,
    keys: Vec<ApiKey>,
    auth: Auth,
    cors: Cors,
    concurrency: Concurrency,
}

impl Tenant {
    /// Reads a tenant's file, `tenants/NAME/tenant.config.json`.
    ///
    /// # Errors
    /// [`TenantConfigError`] names the first field that is unknown, missing or wrong.
    pub fn from_json(text: &str) -> Result<Self, TenantConfigError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let raw: RawTenant = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
            let path = error.path().to_string();
            let field = match &*path {
                // A text that is no JSON breaks at no field in particular, and one without a name cannot be named.
                "?" | "" => ".",
                path => path,
            };
            // What stands in place of the list may be a key, and what the parser says would quote it.
            if field == "apiKeys" && error.inner().is_data() {
                return TenantConfigError::new(field, "must be a list");
            }
            TenantConfigError::new(field, error.inner())
        })?;
        deserializer.end().map_err(|error| TenantConfigError::new(".", error))?;
        Self::try_from(raw)
    }

    /// Its id.
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// Its account at the platform's host.
    pub fn account_id(&self) -> Option<&str> {
        self.account_id.as_deref()
    }

    /// Its AI Gateway.
    pub fn ai_gateway_id(&self) -> Option<&str> {
        self.ai_gateway_id.as_deref()
    }

    /// Its namespace of the vector index: its own id unless the file says otherwise.
    pub fn vectorize_namespace(&self) -> &str {
        self.vectorize_namespace.as_deref().unwrap_or(self.id.as_str())
    }

    /// The model that answers its chats.
    pub fn chat_model(&self) -> &ModelId {
        &self.chat_model
    }

    /// The model that embeds its documents.
    pub fn embedding_model(&self) -> Option<&ModelId> {
        self.embedding_model.as_ref()
    }

    /// The model that speaks for it.
    pub fn speech_model(&self) -> Option<&ModelId> {
        self.speech_model.as_ref()
    }

    /// What one user may ask.
    pub fn user_window(&self) -> &WindowPolicy {
        &self.user_window
    }

    /// What all users together may ask.
    pub fn tenant_window(&self) -> &WindowPolicy {
        &self.shared_window
    }

    /// Its token budget.
    pub fn budget(&self) -> &TokenBudget {
        &self.budget
    }

    /// How long and how many messages its sessions keep.
    pub fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Whether a feature flag is on. Flags are off unless the file says otherwise.
    pub fn flag(&self, name: &str) -> bool {
        self.flag_or(name, false)
    }

    /// The flag of that name, or `default` where the tenant says nothing.
    pub fn flag_or(&self, name: &str, default: bool) -> bool {
        self.flags.get(name).copied().unwrap_or(default)
    }

    /// Whether its users may have `model` answer.
    pub fn allows_model(&self, model: &ModelId) -> bool {
        self.allowed_models.as_ref().is_none_or(|allowed| allowed.contains(model))
    }

    /// The allow-list, when it is switched on.
    pub fn allowed_models(&self) -> Option<&BTreeSet<ModelId>> {
        self.allowed_models.as_ref()
    }

    /// The hosts that stand for it, in lower case and without ports.
    pub fn hosts(&self) -> &BTreeSet<String> {
        &self.hosts
    }

    /// Its API keys.
    pub fn keys(&self) -> &[ApiKey] {
        &self.keys
    }

    /// What it demands of those who ask.
    pub fn auth_mode(&self) -> AuthMode {
        self.auth.mode
    }

    /// What it demands of a token: in mode `jwt`, and in no other.
    pub fn token_policy(&self) -> Option<&TokenPolicy> {
        self.auth.tokens.as_ref()
    }

    /// Whether mode `open` is meant even in production.
    pub fn allows_open_in_production(&self) -> bool {
        self.auth.allow_open_in_production
    }

    /// Its CORS policy.
    pub fn cors(&self) -> &Cors {
        &self.cors
    }

    /// Its concurrency.
    pub fn concurrency(&self) -> &Concurrency {
        &self.concurrency
    }
}

/// The file's shape. Everything but `tenantId` and `aiModels.chat` may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawTenant {
    tenant_id: String,
    account_id: Option<String>,
    ai_gateway_id: Option<String>,
    ai_models: RawModels,
    vectorize_namespace: Option<String>,
    #[serde(default)]
    rate_limit: RawRateLimit,
    #[serde(default)]
    token_budget: RawBudget,
    session_retention_days: Option<u32>,
    max_messages_per_session: Option<u32>,
    #[serde(default)]
    feature_flags: BTreeMap<String, bool>,
    #[serde(default)]
    allowed_models: Vec<String>,
    #[serde(default)]
    allowed_hosts: Vec<String>,
    #[serde(default)]
    api_keys: Vec<RawKey>,
    #[serde(default)]
    auth: RawAuth,
    #[serde(default)]
    cors: RawCors,
    #[serde(default)]
    concurrency: RawConcurrency,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawModels {
    chat: String,
    embeddings: Option<String>,
    tts: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRateLimit {
    #[serde(default = "default_per_minute")]
    per_minute: u32,
    burst: Option<u32>,
    window_sec: Option<u32>,
    burst_window_sec: Option<u32>,
    /// For all users together.
    tenant: Option<RawWindow>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawWindow {
    per_minute: u32,
    burst: Option<u32>,
}

const fn default_per_minute() -> u32 {
    60
}

impl Default for RawRateLimit {
    fn default() -> Self {
        Self { per_minute: default_per_minute(), burst: None, window_sec: None, burst_window_sec: None, tenant: None }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawBudget {
    daily: Option<u64>,
    monthly: Option<u64>,
}

enum RawKey {
    Hash(String),
    Full(RawFullKey),
}

impl<'de> Deserialize<'de> for RawKey {
    /// A text is a hash alone; anything else is read as the full form, so that what is wrong with it can be named.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(hash) => Ok(Self::Hash(hash)),
            full => RawFullKey::deserialize(full).map(Self::Full).map_err(serde::de::Error::custom),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawFullKey {
    hash: String,
    id: Option<String>,
    scopes: Option<Vec<Scope>>,
    expires_at: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawCors {
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    allow_credentials: bool,
    max_age_sec: Option<u32>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawConcurrency {
    max_streams: Option<u32>,
}

impl TryFrom<RawTenant> for Tenant {
    type Error = TenantConfigError;

    fn try_from(raw: RawTenant) -> Result<Self, TenantConfigError> {
        let id = TenantId::new(&raw.tenant_id).map_err(|error| TenantConfigError::new("tenantId", error))?;
        let (user_window, shared_window) = windows(&raw.rate_limit)?;
        let allow_list = raw.feature_flags.get("modelAllowList").copied().unwrap_or(false);
        let allowed_models = raw
            .allowed_models
            .iter()
            .enumerate()
            .map(|(n, name)| model(&format!("allowedModels[{n}]"), name))
            .collect::<Result<BTreeSet<_>, _>>()?;
        for (field, budget) in
            [("tokenBudget.daily", raw.token_budget.daily), ("tokenBudget.monthly", raw.token_budget.monthly)]
        {
            within(field, budget.unwrap_or(1), 1, MAX_BUDGET)?;
        }
        Ok(Self {
            id,
            account_id: raw.account_id,
            ai_gateway_id: raw.ai_gateway_id,
            vectorize_namespace: raw.vectorize_namespace,
            chat_model: model("aiModels.chat", &raw.ai_models.chat)?,
            embedding_model: raw.ai_models.embeddings.map(|name| model("aiModels.embeddings", &name)).transpose()?,
            speech_model: raw.ai_models.tts.map(|name| model("aiModels.tts", &name)).transpose()?,
            user_window,
            shared_window,
            budget: TokenBudget { daily: raw.token_budget.daily, monthly: raw.token_budget.monthly },
            retention: Retention {
                days: within("sessionRetentionDays", raw.session_retention_days.unwrap_or(30), 1, 36_500)?,
                max_messages: within(
                    "maxMessagesPerSession",
                    raw.max_messages_per_session.unwrap_or(1000),
                    2,
                    1_000_000,
                )?,
            },
            flags: raw.feature_flags,
            allowed_models: allow_list.then_some(allowed_models),
            hosts: hosts(&raw.allowed_hosts)?,
            keys: keys(&raw.api_keys)?,
            auth: Auth::try_from(raw.auth)?,
            cors: cors(raw.cors)?,
            concurrency: Concurrency {
                max_streams: within("concurrency.maxStreams", raw.concurrency.max_streams.unwrap_or(64), 1, 100_000)?,
            },
        })
    }
}

/// Keeps a sum of two budgets well inside every integer type that an adapter may store it in, JavaScript's included.
const MAX_BUDGET: u64 = 1 << 50;
/// A limiter keeps one time per allowed request of a window.
const MAX_LIMIT: u32 = 1_000_000;
/// What all users of a tenant may ask, in multiples of what one may, where the file does not say.
const USERS_PER_TENANT: u32 = 10;

fn windows(raw: &RawRateLimit) -> Result<(WindowPolicy, WindowPolicy), TenantConfigError> {
    let length = within("rateLimit.windowSec", raw.window_sec.unwrap_or(60), 1, 86_400)?;
    let burst_length = match raw.burst_window_sec {
        Some(seconds) => Duration::from_secs(within("rateLimit.burstWindowSec", seconds, 1, length)?.into()),
        None => Duration::from_secs(length.into()) / 6,
    };
    let policy = |field: &str, per_minute: u32, burst: Option<u32>| {
        let limit = within(&format!("{field}.perMinute"), per_minute, 1, MAX_LIMIT)?;
        let burst = within(&format!("{field}.burst"), burst.unwrap_or(limit), 1, MAX_LIMIT)?;
        Ok(WindowPolicy {
            sustained: Window { limit, length: Duration::from_secs(length.into()) },
            burst: Window { limit: burst, length: burst_length },
        })
    };
    let user = policy("rateLimit", raw.per_minute, raw.burst)?;
    let tenant = match &raw.tenant {
        Some(all) => policy("rateLimit.tenant", all.per_minute, all.burst)?,
        None => WindowPolicy {
            sustained: Window {
                limit: user.sustained.limit.saturating_mul(USERS_PER_TENANT).min(MAX_LIMIT),
                ..user.sustained
            },
            burst: Window { limit: user.burst.limit.saturating_mul(USERS_PER_TENANT).min(MAX_LIMIT), ..user.burst },
        },
    };
    Ok((user, tenant))
}

fn keys(raw: &[RawKey]) -> Result<Vec<ApiKey>, TenantConfigError> {
    let mut keys: Vec<ApiKey> = Vec::with_capacity(raw.len());
    for (n, raw) in raw.iter().enumerate() {
        let field = |name: &str| format!("apiKeys[{n}]{name}");
        let (hash, id, scopes, expires_at) = match raw {
            RawKey::Hash(hash) => (hash, None, None, None),
            RawKey::Full(full) => (&full.hash, full.id.as_ref(), full.scopes.as_ref(), full.expires_at.as_ref()),
        };
        // The reason never repeats the value: it may be a key that somebody wrote here by mistake.
        let hash: KeyHash = hash.parse().map_err(|error| TenantConfigError::new(field(""), error))?;
        let id = match id {
            Some(id) => KeyId::new(id).map_err(|error| TenantConfigError::new(field(".id"), error))?,
            None => hash.default_id(),
        };
        if keys.iter().any(|key| key.hash == hash || key.id == id) {
            return Err(TenantConfigError::new(field(""), "is there twice"));
        }
        let expires_at = expires_at
            .map(|at| {
                Timestamp::parse_rfc3339(at)
                    .ok_or_else(|| TenantConfigError::new(field(".expiresAt"), "must be an RFC 3339 time"))
            })
            .transpose()?;
        let scopes = scopes.map_or_else(ScopeSet::usual, |scopes| scopes.iter().copied().collect());
        keys.push(ApiKey { id, hash, scopes, expires_at });
    }
    Ok(keys)
}

fn hosts(raw: &[String]) -> Result<BTreeSet<String>, TenantConfigError> {
    let mut hosts = BTreeSet::new();
    for (n, host) in raw.iter().enumerate() {
        let field = || format!("allowedHosts[{n}]");
        let normal = normalise_host(host)
            .ok_or_else(|| TenantConfigError::new(field(), "must be a host name or address, without scheme or path"))?;
        if !hosts.insert(normal.into_owned()) {
            return Err(TenantConfigError::new(field(), "is there twice"));
        }
    }
    Ok(hosts)
}

fn cors(raw: RawCors) -> Result<Cors, TenantConfigError> {
    for (n, origin) in raw.allowed_origins.iter().enumerate() {
        let field = || format!("cors.allowedOrigins[{n}]");
        let host = origin.split_once("://").map(|(_, host)| host);
        let is_origin =
            host.is_some_and(|host| normalise_host(host).is_some()) && origin.to_ascii_lowercase() == *origin;
        if origin == "*" {
            if raw.allow_credentials {
                return Err(TenantConfigError::new(field(), "* cannot go together with allowCredentials"));
            }
        } else if !is_origin {
            return Err(TenantConfigError::new(field(), "must be scheme://host[:port] in lower case, or *"));
        }
    }
    Ok(Cors {
        allowed_origins: raw.allowed_origins.into_iter().collect(),
        allow_credentials: raw.allow_credentials,
        max_age: Duration::from_secs(within("cors.maxAgeSec", raw.max_age_sec.unwrap_or(600), 0, 86_400)?.into()),
    })
}

fn model(field: &str, name: &str) -> Result<ModelId, TenantConfigError> {
    ModelId::new(name).map_err(|error| TenantConfigError::new(field, error))
}

fn within<N: PartialOrd + ToString + Copy>(field: &str, value: N, least: N, most: N) -> Result<N, TenantConfigError> {
    if value < least || value > most {
        let reason = format!("must be {} to {}", least.to_string(), most.to_string());
        return Err(TenantConfigError::new(field, reason));
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
