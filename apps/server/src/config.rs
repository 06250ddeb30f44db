//! The configuration, checked: what the rest of the server is made from.

mod check;
mod layers;
mod raw;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use enigma_core::chat::ChatSettings;
use enigma_core::model::{BreakerPolicy, ModelTimeouts, RetryPolicy};
use enigma_core::search::SearchSettings;
use enigma_core::tenant::ModelUse;
use enigma_core::tools::ToolSettings;
use enigma_core::{ModelId, ProviderId};
use enigma_espeak::EspeakOptions;
use enigma_http::OverloadLimits;
use enigma_ondevice::weights::Weights;
use enigma_openai::Endpoint;
use enigma_sqlite::Synchronous;
use thiserror::Error;
use toml::Table;
use tracing::Level;

pub(crate) use self::check::{ESPEAK_PROVIDER, ONDEVICE_PROVIDER};
use self::layers::{Layers, Source};
use self::raw::RawConfig;
use crate::cli::Flags;
use crate::client_address::TrustedProxies;
use crate::settings::SETTINGS;
use crate::sockets::Place;
use crate::tls::TlsFiles;

/// Everything that can be set.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) environment: Environment,
    pub(crate) server: ServerConfig,
    pub(crate) overload: OverloadLimits,
    pub(crate) tls: Option<TlsFiles>,
    pub(crate) tenants_directory: PathBuf,
    pub(crate) storage: Storage,
    pub(crate) chat: ChatSettings,
    pub(crate) search: SearchSettings,
    pub(crate) tools: ToolSettings,
    pub(crate) models: ModelsConfig,
    pub(crate) providers: Vec<ProviderConfig>,
    pub(crate) ondevice: Option<OnDeviceConfig>,
    pub(crate) espeak: Option<EspeakConfig>,
    pub(crate) log: LogConfig,
}

/// Where this is.
#[derive(Debug)]
pub(crate) struct Environment {
    pub(crate) name: String,
    pub(crate) is_production: bool,
}

/// What concerns connections and requests.
#[derive(Debug)]
pub(crate) struct ServerConfig {
    pub(crate) listen: Vec<Place>,
    /// The permission bits of sockets in the file system.
    pub(crate) socket_mode: u32,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) shutdown_grace: Duration,
    pub(crate) max_body_bytes: usize,
    /// Of bodies with a document.
    pub(crate) max_document_body_bytes: usize,
    pub(crate) max_message_chars: usize,
    pub(crate) keep_alive: Duration,
    pub(crate) max_connections: usize,
    /// 0 is no limit of its own.
    pub(crate) max_connections_per_address: usize,
    pub(crate) header_read_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    pub(crate) compression: bool,
}

/// Where data is kept.
#[derive(Debug)]
pub(crate) enum Storage {
    /// Nowhere.
    Memory,
    /// In a SQLite file.
    File { path: PathBuf, synchronous: Synchronous, rebuild_every: Option<Duration> },
}

/// How models are called.
#[derive(Debug)]
pub(crate) struct ModelsConfig {
    pub(crate) timeouts: ModelTimeouts,
    pub(crate) retry: RetryPolicy,
    pub(crate) breaker: BreakerPolicy,
}

/// An OpenAI-compatible endpoint.
#[derive(Debug)]
pub(crate) struct ProviderConfig {
    pub(crate) id: ProviderId,
    pub(crate) endpoint: Endpoint,
    pub(crate) connect_timeout: Duration,
    pub(crate) is_default: bool,
    pub(crate) models: Vec<ModelId>,
    pub(crate) embeddings: Vec<ModelId>,
    pub(crate) speech: Vec<ModelId>,
}

/// The speech engine of this machine, where it is wanted.
#[derive(Debug)]
pub(crate) struct EspeakConfig {
    pub(crate) model: ModelId,
    pub(crate) options: EspeakOptions,
}

/// The models of this process; one of the two at least.
#[derive(Debug)]
pub(crate) struct OnDeviceConfig {
    pub(crate) chat: Option<OnDeviceChat>,
    pub(crate) embeddings: Option<LocalModel>,
    pub(crate) directory: PathBuf,
    pub(crate) pull: bool,
}

/// The chat model of this process.
#[derive(Debug)]
pub(crate) struct OnDeviceChat {
    pub(crate) local: LocalModel,
    pub(crate) queue: usize,
    pub(crate) conversations: usize,
}

/// A model whose files are on this machine.
#[derive(Debug)]
pub(crate) struct LocalModel {
    pub(crate) model: ModelId,
    pub(crate) weights: Weights,
}

/// What is logged.
#[derive(Debug)]
pub(crate) struct LogConfig {
    pub(crate) level: Level,
    pub(crate) json: bool,
}

/// A setting that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConfigProblem {
    /// Who said it.
    pub(crate) source: Source,
    /// Its place, `.` for the whole file.
    pub(crate) field: String,
    /// Why it cannot be accepted. Never a key.
    pub(crate) reason: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.source, self.field, self.reason)
    }
}

/// Everything that is wrong, one a line.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub(crate) struct ConfigError(pub(crate) Vec<ConfigProblem>);

impl From<ConfigProblem> for ConfigError {
    fn from(problem: ConfigProblem) -> Self {
        Self(vec![problem])
    }
}

/// The variables of the environment, as a function so that tests have their own.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variables of this process. Empty ones count as not there: that is how many tools leave one out.
pub(crate) fn process_variables(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.trim().is_empty()).then_some(value)
}

impl Config {
    /// Puts together flags, variables, the file and the defaults.
    ///
    /// # Errors
    /// [`ConfigError`]: everything that is wrong, each with its source, field and reason.
    pub(crate) fn load(file: Option<&Path>, flags: &Flags, variables: Variables<'_>) -> Result<Self, ConfigError> {
        let base = match file {
            Some(path) => Layers::from_file(path)?,
            None => Layers::new(Table::new(), Source::Default),
        };
        Self::layered(base, flags, variables)
    }

    /// The same over the table of the demo mode.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub(crate) fn demo(table: Table, flags: &Flags, variables: Variables<'_>) -> Result<Self, ConfigError> {
        Self::layered(Layers::new(table, Source::Demo), flags, variables)
    }

    /// Whether any provider serves `model` for this.
    pub(crate) fn serves(&self, model: &ModelId, purpose: ModelUse) -> bool {
        check::serves(&self.providers, self.ondevice.as_ref(), self.espeak.as_ref(), model, purpose)
    }

    fn layered(mut layers: Layers, flags: &Flags, variables: Variables<'_>) -> Result<Self, ConfigError> {
        let debug = variables("DEBUG_LOGGING").is_some_and(|value| value.trim().eq_ignore_ascii_case("true"));
        let level = debug.then(|| ("log.level", "debug".to_owned(), Source::Environment("DEBUG_LOGGING")));
        let from_variables = SETTINGS
            .iter()
            .filter_map(|setting| Some((setting.key, variables(setting.env)?, Source::Environment(setting.env))));
        let from_flags =
            flags.0.iter().map(|(setting, value)| (setting.key, value.clone(), Source::Flag(setting.flag)));
        let mut problems = Vec::new();
        for (key, text, source) in level.into_iter().chain(from_variables).chain(from_flags) {
            let setting = SETTINGS.iter().find(|setting| setting.key == key).expect("every key here is a setting's");
            problems.extend(layers.set(setting, &text, source).err());
        }
        if !problems.is_empty() {
            return Err(ConfigError(problems));
        }
        let layers = layers.with_defaults();
        let at = |field: String, reason: String| ConfigProblem { source: layers.source_of(&field), field, reason };
        let raw: RawConfig = serde_path_to_error::deserialize(layers.table())
            .map_err(|error| at(error.path().to_string(), error.inner().message().trim().to_owned()))?;
        check::check(raw, variables)
            .map_err(|wrong| ConfigError(wrong.into_iter().map(|(field, reason)| at(field, reason)).collect()))
    }
}

#[cfg(test)]
mod tests;
