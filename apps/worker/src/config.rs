//! The Worker's settings, from its variables, checked. They are called as the native server's environment variables are.
//!
//! A Worker cannot refuse to start. With settings that are wrong it answers every request with an error, and logs what is wrong.

mod check;
mod providers;
mod settings;
mod variables;

use std::fmt;

use enigma_cloudflare::{Freshness, MetadataIndexes};
use enigma_core::ModelId;
use enigma_core::chat::ChatSettings;
use enigma_core::model::{BreakerPolicy, ModelTimeouts, RetryPolicy};
use enigma_core::tools::ToolSettings;
use enigma_http::HttpSettings;
use thiserror::Error;
use tracing::Level;

pub use self::providers::{ProviderConfig, WORKERS_AI_PROVIDER};
pub use self::settings::{SETTINGS, Setting};
pub use self::variables::{Variables, of};

/// Everything that can be set.
#[derive(Debug)]
pub struct Config {
    /// Where this is.
    pub environment: Environment,
    /// What concerns requests.
    pub http: HttpSettings,
    /// What concerns chats.
    pub chat: ChatSettings,
    /// What concerns tools.
    pub tools: ToolSettings,
    /// How models are called.
    pub models: ModelsConfig,
    /// OpenAI-compatible endpoints. What none of them serves, Workers AI does.
    pub providers: Vec<ProviderConfig>,
    /// The model that embeds documents and questions, before the tenant's own.
    pub embedding_model: Option<ModelId>,
    /// The metadata that the vector index can filter by.
    pub metadata_indexes: MetadataIndexes,
    /// The AI Gateway of tenants that have none of their own.
    pub gateway_id: Option<String>,
    /// Models of Workers AI that are listed by name. It is asked for every other name too that nobody else serves.
    pub ai_models: Vec<ModelId>,
    /// How old a copy of the tenants may be.
    pub tenants: Freshness,
    /// What is logged.
    pub log_level: Level,
}

/// Where this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its name, such as `staging`.
    pub name: String,
    /// Whether it is production.
    pub is_production: bool,
}

/// How models are called.
#[derive(Debug, Clone)]
pub struct ModelsConfig {
    /// How long they may take.
    pub timeouts: ModelTimeouts,
    /// When they are called again.
    pub retry: RetryPolicy,
    /// When they are left alone.
    pub breaker: BreakerPolicy,
}

/// A setting that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The variable, with the place in it where it has several.
    pub variable: String,
    /// Why it cannot be accepted. Never a key.
    pub reason: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "variable {}: {}", self.variable, self.reason)
    }
}

/// Everything that is wrong, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<ConfigProblem>);

impl Config {
    /// Reads the variables. One that is empty counts as not there.
    ///
    /// # Errors
    /// [`ConfigError`]: everything that is wrong.
    pub fn load(variables: Variables<'_>) -> Result<Self, ConfigError> {
        check::check(variables).map_err(ConfigError)
    }
}

#[cfg(test)]
mod tests;
