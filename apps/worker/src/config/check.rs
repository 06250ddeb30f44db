//! From variables to the configuration: every rule that a type alone does not hold. The ranges are the native server's.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use enigma_cloudflare::Freshness;
use enigma_core::ModelId;
use enigma_core::chat::ChatSettings;
use enigma_core::model::{BreakerPolicy, ModelOverrides, ModelTimeouts, RetryPolicy};
use enigma_core::session::PromptLimits;
use enigma_core::tenant::is_production;
use enigma_core::tools::ToolSettings;
use enigma_http::HttpSettings;
use tracing::Level;

use super::providers::providers;
use super::{Config, ConfigProblem, Environment, ModelsConfig, Variables, settings};

pub(super) fn check(variables: Variables<'_>) -> Result<Config, Vec<ConfigProblem>> {
    let mut checker = Checker { variables, problems: Vec::new() };
    let environment = environment(&mut checker);
    let http = http(&mut checker, &environment);
    let tenants = tenants(&mut checker);
    let chat = chat(&mut checker);
    let tools = chat.as_ref().and_then(|chat| tools(&mut checker, chat));
    let models = models(&mut checker);
    let embedding_model = checker.parsed("EMBEDDING_MODEL_ID");
    let metadata_indexes = checker.text("VECTORIZE_METADATA_INDEXES").unwrap_or_default().parse();
    let metadata_indexes = checker.checked("VECTORIZE_METADATA_INDEXES", metadata_indexes).unwrap_or_default();
    let gateway_id = gateway_id(&mut checker);
    let ai_models = ai_models(&mut checker);
    let providers = providers(&mut checker);
    let log_level = log_level(&mut checker);
    match (http, chat, tools, models, log_level) {
        (Some(http), Some(chat), Some(tools), Some(models), Some(log_level)) if checker.problems.is_empty() => {
            Ok(Config {
                environment,
                http,
                chat,
                tools,
                models,
                providers,
                embedding_model,
                metadata_indexes,
                gateway_id,
                ai_models,
                tenants,
                log_level,
            })
        }
        _ => Err(checker.problems),
    }
}

fn environment(checker: &mut Checker<'_>) -> Environment {
    let name = checker.text("ENVIRONMENT").unwrap_or_default();
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        checker.refuse("ENVIRONMENT", "must be 1 to 64 visible ASCII characters");
    }
    Environment { is_production: is_production(&name), name }
}

fn http(checker: &mut Checker<'_>, environment: &Environment) -> Option<HttpSettings> {
    let max_body_bytes = checker.number("MAX_REQUEST_BODY_SIZE", 1..=16 << 20);
    let max_message_chars = checker.number("MAX_MESSAGE_LENGTH", 1..=10_000);
    let keep_alive = checker.seconds("ENIGMA_SERVER_KEEP_ALIVE_SECONDS", 1..=300);
    Some(HttpSettings {
        environment: environment.name.clone(),
        max_body_bytes: max_body_bytes?,
        max_message_chars: max_message_chars?,
        keep_alive,
        ..HttpSettings::default()
    })
}

fn tenants(checker: &mut Checker<'_>) -> Freshness {
    let refresh_after = checker.seconds("ENIGMA_TENANTS_REFRESH_SECONDS", 1..=3600);
    let refuse_after = checker.seconds("ENIGMA_TENANTS_REFUSE_SECONDS", refresh_after.as_secs().max(1)..=86_400);
    Freshness { refresh_after, refuse_after }
}

fn chat(checker: &mut Checker<'_>) -> Option<ChatSettings> {
    let model: Option<ModelId> = checker.parsed("MODEL_ID");
    let fallback: Option<ModelId> = checker.parsed("FALLBACK_MODEL_ID");
    let max_messages = checker.number("MAX_MESSAGE_COUNT", 0..=1000);
    let history = checker.number("ENIGMA_CHAT_MAX_HISTORY_TOKENS", 0..=10_000_000);
    let max_tokens: Option<u32> = checker.number("ENIGMA_CHAT_MAX_TOKENS", 1..=10_000_000);
    let most = max_tokens.unwrap_or(10_000_000).into();
    let default_max_tokens = checker.number("ENIGMA_CHAT_DEFAULT_MAX_TOKENS", 1..=most);
    let request_timeout = checker.seconds("ENIGMA_CHAT_REQUEST_TIMEOUT_SECONDS", 1..=3600);
    // Natively up to 600. Here the bookkeeping that follows has to fit into what the runtime leaves for it.
    let send_timeout = checker.seconds("ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", 1..=25);
    Some(ChatSettings {
        overrides: ModelOverrides { model, fallback },
        prompt: PromptLimits { max_messages: max_messages?, max_tokens: history? },
        default_max_tokens: default_max_tokens?,
        max_tokens: max_tokens?,
        request_timeout,
        send_timeout,
        ..ChatSettings::default()
    })
}

fn tools(checker: &mut Checker<'_>, chat: &ChatSettings) -> Option<ToolSettings> {
    let timeout = checker.seconds("ENIGMA_TOOLS_TIMEOUT_SECONDS", 1..=3600);
    let audit_days: u32 = checker.number("ENIGMA_TOOLS_AUDIT_DAYS", 1..=3650)?;
    Some(ToolSettings {
        overrides: chat.overrides.clone(),
        timeout,
        request_timeout: chat.request_timeout,
        audit_for: Duration::from_secs(u64::from(audit_days) * 86_400),
    })
}

fn models(checker: &mut Checker<'_>) -> Option<ModelsConfig> {
    let first_token = checker.seconds("ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", 1..=3600);
    let idle = checker.seconds("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", 1..=3600);
    let attempts = checker.number("ENIGMA_MODELS_MAX_ATTEMPTS", 1..=10);
    let longest: Option<u32> = checker.number("ENIGMA_MODELS_RETRY_MAX_DELAY_MS", 0..=600_000);
    let base: Option<u32> = checker.number("ENIGMA_MODELS_RETRY_BASE_DELAY_MS", 0..=longest.unwrap_or(600_000).into());
    let failures = checker.number("ENIGMA_MODELS_BREAKER_FAILURES", 1..=1000);
    let open_for = checker.seconds("ENIGMA_MODELS_BREAKER_OPEN_SECONDS", 1..=3600);
    let millis = |value: u32| Duration::from_millis(value.into());
    Some(ModelsConfig {
        timeouts: ModelTimeouts { first_token, idle },
        retry: RetryPolicy { max_attempts: attempts?, base_delay: millis(base?), max_delay: millis(longest?) },
        // A probe that has not begun to answer by then has failed.
        breaker: BreakerPolicy { failures: failures?, open_for, probe_for: first_token },
    })
}

fn gateway_id(checker: &mut Checker<'_>) -> Option<String> {
    let id = checker.text("ENIGMA_GATEWAY_ID")?;
    if id.len() > 64 || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        checker.refuse("ENIGMA_GATEWAY_ID", "must be 1 to 64 of A-Z, a-z, 0-9, - and _");
    }
    Some(id)
}

fn ai_models(checker: &mut Checker<'_>) -> Vec<ModelId> {
    let list = checker.text("ENIGMA_AI_MODELS").unwrap_or_default();
    let mut models = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.parse() {
            Ok(model) => models.push(model),
            Err(error) => checker.refuse("ENIGMA_AI_MODELS", error),
        }
    }
    models
}

fn log_level(checker: &mut Checker<'_>) -> Option<Level> {
    let debug = checker.variable("DEBUG_LOGGING").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    if debug && checker.variable("ENIGMA_LOG_LEVEL").is_none() {
        return Some(Level::DEBUG);
    }
    let text = checker.text("ENIGMA_LOG_LEVEL")?;
    checker.checked("ENIGMA_LOG_LEVEL", text.parse().map_err(|_| "must be error, warn, info, debug or trace"))
}

/// Reads variables, and collects what is wrong, so that all of it is told at once.
pub(super) struct Checker<'a> {
    variables: Variables<'a>,
    problems: Vec<ConfigProblem>,
}

impl Checker<'_> {
    pub(super) fn refuse(&mut self, variable: &str, reason: impl Display) {
        self.problems.push(ConfigProblem { variable: variable.to_owned(), reason: reason.to_string() });
    }

    /// A variable, less the space around it. Empty ones count as not there: that is how an environment leaves one out.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let value = (self.variables)(name)?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// A variable, or the setting's default.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.variable(name).or_else(|| settings::default(name).map(str::to_owned))
    }

    pub(super) fn checked<T, E: Display>(&mut self, variable: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.refuse(variable, error)).ok()
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        self.checked(name, text.parse())
    }

    fn number<N: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<N> {
        let text = self.text(name)?;
        let value = self.checked(name, text.parse().map_err(|_| "must be a whole number"))?;
        self.within(name, value, range)
    }

    pub(super) fn within<N: TryFrom<u64>>(&mut self, place: &str, value: u64, range: RangeInclusive<u64>) -> Option<N> {
        let number = if range.contains(&value) { N::try_from(value).ok() } else { None };
        if number.is_none() {
            self.refuse(place, format!("must be {} to {}", range.start(), range.end()));
        }
        number
    }

    /// What is wrong is noted, so that the value, whatever it is, will not be used.
    fn seconds(&mut self, name: &str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(name, range).unwrap_or_default())
    }
}
