//! From the configuration's shape to the configuration: every rule that a type alone does not hold.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use enigma_core::chat::ChatSettings;
use enigma_core::model::{BreakerPolicy, ModelOverrides, ModelTimeouts, RetryPolicy};
use enigma_core::search::SearchSettings;
use enigma_core::session::PromptLimits;
use enigma_core::tenant::ModelUse;
use enigma_core::tools::ToolSettings;
use enigma_core::{ModelId, ProviderId};
use enigma_espeak::EspeakOptions;
use enigma_http::OverloadLimits;
use enigma_ondevice::weights::{self, Kind};
use enigma_openai::{Endpoint, EndpointOptions, Secret};
use enigma_operator::tenants::is_production;
use enigma_sqlite::Synchronous;
use tracing::Level;

use crate::client_address::{Network, TrustedProxies};
use crate::sockets::Place;
use crate::tls::TlsFiles;

use super::raw::{
    RawChat, RawConfig, RawEspeak, RawModels, RawOnDevice, RawOverload, RawProvider, RawSearch, RawServer, RawStorage,
    RawTls, RawTools,
};
use super::{
    Config, Environment, EspeakConfig, LocalModel, LogConfig, ModelsConfig, OnDeviceChat, OnDeviceConfig,
    ProviderConfig, ServerConfig, Storage, Variables,
};

/// The provider's name of the on-device model.
pub(crate) const ONDEVICE_PROVIDER: &str = "ondevice";

/// The provider's name of the speech engine of this machine.
pub(crate) const ESPEAK_PROVIDER: &str = "espeak";

/// Written in the place of a model that is not wanted.
const NONE: &str = "none";

/// Fields and what is wrong with them.
type Problems = Vec<(String, String)>;

pub(super) fn check(raw: RawConfig, variables: Variables<'_>) -> Result<Config, Problems> {
    let mut checker = Checker::default();
    if raw.providers.is_empty() && raw.ondevice.as_ref().is_none_or(|raw| raw.model_id == NONE) {
        checker.refuse("providers", "there is no model: add a provider, or a section ondevice");
    }
    let environment = environment(&mut checker, &raw.environment);
    let server = server(&mut checker, &raw.server);
    let overload = overload(&mut checker, &raw.overload);
    let tls = raw.tls.and_then(|raw| tls(&mut checker, &raw));
    let storage = storage(&mut checker, &raw.storage);
    let chat = chat(&mut checker, &raw.chat);
    let search = chat.as_ref().and_then(|chat| search(&mut checker, &raw.search, chat));
    let tools = chat.as_ref().and_then(|chat| tools(&mut checker, &raw.tools, chat));
    let models = models(&mut checker, &raw.models);
    let providers = providers(&mut checker, raw.providers, variables);
    let ondevice = raw.ondevice.and_then(|raw| ondevice(&mut checker, raw));
    let espeak = espeak(&mut checker, &raw.espeak);
    let level: Option<Level> = checker.parsed("log.level", &raw.log.level, "must be error, warn, info, debug or trace");
    let json = checker.one_of("log.format", &raw.log.format, &[("json", true), ("text", false)]);
    let tenants_directory = checker.path("tenants.directory", &raw.tenants.directory);

    if let (Some(chat), true) = (&chat, checker.0.is_empty()) {
        for (field, model) in
            [("chat.model_id", &chat.overrides.model), ("chat.fallback_model_id", &chat.overrides.fallback)]
        {
            if let Some(model) =
                model.as_ref().filter(|model| !serves(&providers, ondevice.as_ref(), None, model, ModelUse::Chat))
            {
                checker.refuse(field, format!("nobody serves model {model}"));
            }
        }
    }

    let problems = checker.0;
    match (environment, server, overload, storage, chat, search, tools, models, level, json) {
        (
            Some(environment),
            Some(server),
            Some(overload),
            Some(storage),
            Some(chat),
            Some(search),
            Some(tools),
            Some(models),
            Some(level),
            Some(json),
        ) if problems.is_empty() => {
            let log = LogConfig { level, json };
            Ok(Config {
                environment,
                server,
                overload,
                tls,
                tenants_directory,
                storage,
                chat,
                search,
                tools,
                models,
                providers,
                ondevice,
                espeak,
                log,
            })
        }
        _ => Err(problems),
    }
}

/// Whether there is a provider for `model`.
pub(super) fn serves(
    providers: &[ProviderConfig],
    ondevice: Option<&OnDeviceConfig>,
    espeak: Option<&EspeakConfig>,
    model: &ModelId,
    purpose: ModelUse,
) -> bool {
    let listed = |provider: &ProviderConfig| match purpose {
        ModelUse::Chat => provider.models.contains(model),
        ModelUse::Embeddings => provider.embeddings.contains(model),
        ModelUse::Speech => provider.speech.contains(model),
    };
    let local = ondevice.and_then(|section| match purpose {
        ModelUse::Chat => section.chat.as_ref().map(|chat| &chat.local),
        ModelUse::Embeddings => section.embeddings.as_ref(),
        ModelUse::Speech => None,
    });
    let speaks = purpose == ModelUse::Speech && espeak.is_some_and(|espeak| espeak.model == *model);
    speaks
        || local.is_some_and(|local| local.model == *model)
        || providers.iter().any(|provider| provider.is_default || listed(provider))
}

fn environment(checker: &mut Checker, name: &str) -> Option<Environment> {
    if name.is_empty() || name.len() > 64 || !name.bytes().all(|b| b.is_ascii_graphic()) {
        checker.refuse("environment", "must be 1 to 64 visible ASCII characters");
        return None;
    }
    Some(Environment { name: name.to_owned(), is_production: is_production(name) })
}

fn server(checker: &mut Checker, raw: &RawServer) -> Option<ServerConfig> {
    let listen = places(checker, &raw.listen);
    let socket_mode = u32::from_str_radix(&raw.socket_mode, 8).ok().filter(|mode| *mode <= 0o777);
    if socket_mode.is_none() {
        checker.refuse("server.socket_mode", "must be permission bits in octal, such as 660");
    }
    let mut trusted_proxies = TrustedProxies::default();
    for (n, text) in raw.trusted_proxies.iter().enumerate() {
        if text == "unix" {
            trusted_proxies.unix = true;
            continue;
        }
        let rule = "must be an IP address, a network such as 10.0.0.0/8, or unix";
        let network = checker.parsed::<Network>(&format!("server.trusted_proxies[{n}]"), text, rule);
        trusted_proxies.networks.extend(network);
    }
    let mut seconds = |field: &str, value, range| checker.seconds(&format!("server.{field}"), value, range);
    let shutdown_grace = seconds("shutdown_grace_seconds", raw.shutdown_grace_seconds, 0..=3600);
    let keep_alive = seconds("keep_alive_seconds", raw.keep_alive_seconds, 1..=300);
    let header_read_timeout = seconds("header_read_timeout_seconds", raw.header_read_timeout_seconds, 1..=300);
    let idle_timeout = seconds("idle_timeout_seconds", raw.idle_timeout_seconds, 1..=3600);
    let body_read_timeout = seconds("body_read_timeout_seconds", raw.body_read_timeout_seconds, 1..=300);
    let mut number = |field: &str, value, range| checker.number(&format!("server.{field}"), value, range);
    Some(ServerConfig {
        max_body_bytes: number("max_request_body_size", raw.max_request_body_size, 1..=16 << 20)?,
        max_document_body_bytes: number("max_document_body_size", raw.max_document_body_size, 1..=64 << 20)?,
        max_message_chars: number("max_message_length", raw.max_message_length, 1..=10_000)?,
        max_connections: number("max_connections", raw.max_connections, 1..=1_000_000)?,
        max_connections_per_address: number(
            "max_connections_per_address",
            raw.max_connections_per_address,
            0..=1_000_000,
        )?,
        listen,
        socket_mode: socket_mode?,
        trusted_proxies,
        shutdown_grace,
        keep_alive,
        header_read_timeout,
        idle_timeout,
        body_read_timeout,
        compression: raw.compression,
    })
}

fn overload(checker: &mut Checker, raw: &RawOverload) -> Option<OverloadLimits> {
    let mut number = |field: &str, value, range| checker.number(&format!("overload.{field}"), value, range);
    let max_requests = number("max_requests", raw.max_requests, 1..=1_000_000);
    let max_streams = number("max_streams", raw.max_streams, 1..=1_000_000);
    let tenant_share_percent = number("tenant_share_percent", raw.tenant_share_percent, 1..=100);
    Some(OverloadLimits {
        max_requests: max_requests?,
        max_streams: max_streams?,
        tenant_share_percent: tenant_share_percent?,
    })
}

fn places(checker: &mut Checker, text: &str) -> Vec<Place> {
    let rule = "must be an IP address and a port, such as 127.0.0.1:8080, or unix:PATH";
    let mut places: Vec<Place> = Vec::new();
    for part in text.split(',') {
        let Some(place) = checker.parsed("server.listen", part.trim(), rule) else { continue };
        if places.contains(&place) {
            checker.refuse("server.listen", format!("{place} is there twice"));
        }
        places.push(place);
    }
    places
}

fn tls(checker: &mut Checker, raw: &RawTls) -> Option<TlsFiles> {
    match (&raw.certificate_file, &raw.key_file) {
        (Some(certificate), Some(key)) => Some(TlsFiles {
            certificate: checker.path("tls.certificate_file", certificate),
            key: checker.path("tls.key_file", key),
        }),
        (Some(_), None) => {
            checker.refuse("tls.key_file", "must be given with tls.certificate_file");
            None
        }
        (None, Some(_)) => {
            checker.refuse("tls.certificate_file", "must be given with tls.key_file");
            None
        }
        (None, None) => None,
    }
}

fn storage(checker: &mut Checker, raw: &RawStorage) -> Option<Storage> {
    let levels = [
        ("off", Synchronous::Off),
        ("normal", Synchronous::Normal),
        ("full", Synchronous::Full),
        ("extra", Synchronous::Extra),
    ];
    let synchronous = checker.one_of("storage.synchronous", &raw.synchronous, &levels);
    let hours: Option<u64> = checker.number("storage.rebuild_hours", raw.rebuild_hours, 0..=24 * 366);
    if raw.database == "memory" {
        return Some(Storage::Memory);
    }
    let path = checker.path("storage.database", &raw.database);
    let rebuild_every = hours.filter(|hours| *hours > 0).map(|hours| Duration::from_secs(hours * 3600));
    Some(Storage::File { path, synchronous: synchronous?, rebuild_every })
}

fn chat(checker: &mut Checker, raw: &RawChat) -> Option<ChatSettings> {
    let model = checker.model("chat.model_id", raw.model_id.as_deref());
    let fallback = checker.model("chat.fallback_model_id", raw.fallback_model_id.as_deref());
    let request_timeout = checker.seconds("chat.request_timeout_seconds", raw.request_timeout_seconds, 1..=3600);
    let send_timeout = checker.seconds("chat.send_timeout_seconds", raw.send_timeout_seconds, 1..=600);
    let max_messages = checker.number("chat.max_message_count", raw.max_message_count, 0..=1000);
    let history = checker.number("chat.max_history_tokens", raw.max_history_tokens, 0..=10_000_000);
    let max_tokens = checker.number("chat.max_tokens", raw.max_tokens, 1..=10_000_000);
    let default_max_tokens =
        checker.number("chat.default_max_tokens", raw.default_max_tokens, 1..=raw.max_tokens.clamp(1, 10_000_000));
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

/// What chats and searches have in common is set for chats.
fn search(checker: &mut Checker, raw: &RawSearch, chat: &ChatSettings) -> Option<SearchSettings> {
    let mut number = |field: &str, value, range| checker.number::<u32>(&format!("search.{field}"), value, range);
    let prompt_tokens = number("prompt_tokens", raw.prompt_tokens, 300..=1_000_000);
    let max_tokens = number("max_tokens", raw.max_tokens, 1..=1_000_000);
    let rewrite = number("rewrite_timeout_ms", raw.rewrite_timeout_ms, 0..=60_000);
    let follow_up = number("follow_up_wait_ms", raw.follow_up_wait_ms, 0..=60_000);
    let cache = number("cache_seconds", raw.cache_seconds, 0..=31_536_000);
    let or_none = |millis: u32| (millis > 0).then(|| Duration::from_millis(millis.into()));
    Some(SearchSettings {
        overrides: chat.overrides.clone(),
        prompt_tokens: prompt_tokens?.into(),
        max_tokens: max_tokens?,
        rewrite_timeout: or_none(rewrite?),
        follow_up_wait: or_none(follow_up?),
        cache_for: Duration::from_secs(cache?.into()),
        request_timeout: chat.request_timeout,
        send_timeout: chat.send_timeout,
        ..SearchSettings::default()
    })
}

/// What chats and tools have in common is set for chats.
fn tools(checker: &mut Checker, raw: &RawTools, chat: &ChatSettings) -> Option<ToolSettings> {
    let timeout = checker.number::<u32>("tools.timeout_seconds", raw.timeout_seconds, 1..=3600);
    let audit_days = checker.number::<u32>("tools.audit_days", raw.audit_days, 1..=3650);
    Some(ToolSettings {
        overrides: chat.overrides.clone(),
        timeout: Duration::from_secs(timeout?.into()),
        request_timeout: chat.request_timeout,
        audit_for: Duration::from_secs(u64::from(audit_days?) * 86_400),
    })
}

fn models(checker: &mut Checker, raw: &RawModels) -> Option<ModelsConfig> {
    let mut seconds = |field: &str, value| checker.seconds(&format!("models.{field}"), value, 1..=3600);
    let first_token = seconds("first_token_timeout_seconds", raw.first_token_timeout_seconds);
    let idle = seconds("idle_timeout_seconds", raw.idle_timeout_seconds);
    let open_for = seconds("breaker_open_seconds", raw.breaker_open_seconds);
    let mut number = |field: &str, value, range| checker.number::<u32>(&format!("models.{field}"), value, range);
    let attempts = number("max_attempts", raw.max_attempts, 1..=10);
    let failures = number("breaker_failures", raw.breaker_failures, 1..=1000);
    let longest = number("retry_max_delay_ms", raw.retry_max_delay_ms, 0..=600_000);
    let base = number("retry_base_delay_ms", raw.retry_base_delay_ms, 0..=raw.retry_max_delay_ms.min(600_000));
    let millis = |value: u32| Duration::from_millis(value.into());
    Some(ModelsConfig {
        timeouts: ModelTimeouts { first_token, idle },
        retry: RetryPolicy { max_attempts: attempts?, base_delay: millis(base?), max_delay: millis(longest?) },
        // A probe that has not begun to answer by then has failed.
        breaker: BreakerPolicy { failures: failures?, open_for, probe_for: first_token },
    })
}

fn providers(checker: &mut Checker, raw: Vec<RawProvider>, variables: Variables<'_>) -> Vec<ProviderConfig> {
    let mut providers: Vec<ProviderConfig> = Vec::with_capacity(raw.len());
    for (n, raw) in raw.into_iter().enumerate() {
        let Some(provider) = provider(checker, &format!("providers[{n}]"), raw, variables) else { continue };
        if providers.iter().any(|other| other.id == provider.id)
            || [ONDEVICE_PROVIDER, ESPEAK_PROVIDER].contains(&provider.id.as_str())
        {
            checker.refuse(&format!("providers[{n}].id"), format!("{} is taken", provider.id));
        }
        if provider.is_default && providers.iter().any(|other| other.is_default) {
            checker.refuse(&format!("providers[{n}].default"), "another provider is the default already");
        }
        providers.push(provider);
    }
    providers
}

fn provider(checker: &mut Checker, field: &str, raw: RawProvider, variables: Variables<'_>) -> Option<ProviderConfig> {
    let id: Option<ProviderId> = checker.checked(&format!("{field}.id"), raw.id.parse());
    let api_key = match &raw.api_key_env {
        Some(name) => Some(Secret::new(api_key(checker, &format!("{field}.api_key_env"), name, variables)?)),
        None => None,
    };
    let connect_timeout =
        checker.seconds(&format!("{field}.connect_timeout_seconds"), raw.connect_timeout_seconds, 1..=120);
    let models = names(checker, &format!("{field}.models"), raw.models);
    let embeddings = names(checker, &format!("{field}.embeddings"), raw.embeddings);
    let speech = names(checker, &format!("{field}.speech"), raw.speech);
    let listed = |names: &BTreeMap<ModelId, String>| names.keys().cloned().collect();
    let (listed, listed_embeddings, listed_speech) = (listed(&models), listed(&embeddings), listed(&speech));
    let voices = raw.voices;
    let options = EndpointOptions { api_key, models, embeddings, speech, voices, ..EndpointOptions::at(raw.base_url) };
    let endpoint = checker.checked(field, Endpoint::new(options))?;
    Some(ProviderConfig {
        id: id?,
        endpoint,
        connect_timeout,
        is_default: raw.default,
        models: listed,
        embeddings: listed_embeddings,
        speech: listed_speech,
    })
}

/// The platform's names, with the provider's.
fn names(checker: &mut Checker, field: &str, raw: BTreeMap<String, String>) -> BTreeMap<ModelId, String> {
    let mut names = BTreeMap::new();
    for (name, there) in raw {
        let model: Option<ModelId> = checker.checked(&format!("{field}.{name}"), name.parse());
        names.extend(model.map(|model| (model, there)));
    }
    names
}

/// Never repeats what is written there: it may be the key itself, put there by mistake.
fn api_key(checker: &mut Checker, field: &str, name: &str, variables: Variables<'_>) -> Option<String> {
    let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        checker.refuse(field, "must be the name of an environment variable, of A-Z, 0-9 and _, that holds the key");
        return None;
    }
    let key = variables(name);
    if key.is_none() {
        checker.refuse(field, format!("the environment variable {name} is not set"));
    }
    key
}

/// The model of this name, if one is wanted.
fn local(checker: &mut Checker, field: &str, name: &str, kind: Kind) -> Option<LocalModel> {
    if name == NONE {
        return None;
    }
    let weights = weights::find(name).filter(|weights| weights.kind == kind);
    if weights.is_none() {
        let known = weights::KNOWN.iter().filter(|weights| weights.kind == kind);
        let known = known.map(|weights| weights.name.to_ascii_lowercase()).collect::<Vec<_>>();
        checker.refuse(field, format!("must be one of: {}, none", known.join(", ")));
    }
    Some(LocalModel { model: checker.model(field, Some(name))?, weights: weights? })
}

fn ondevice(checker: &mut Checker, raw: RawOnDevice) -> Option<OnDeviceConfig> {
    let queue = checker.number("ondevice.queue", raw.queue, 1..=10_000);
    let conversations = checker.number("ondevice.max_conversations", raw.max_conversations, 1..=64);
    let chat = local(checker, "ondevice.model_id", &raw.model_id, Kind::Chat);
    let embeddings = local(checker, "ondevice.embedding_model_id", &raw.embedding_model_id, Kind::Embeddings);
    if raw.model_id == NONE && raw.embedding_model_id == NONE {
        checker.refuse("ondevice.model_id", "must be a model where ondevice.embedding_model_id is none");
    }
    let directory = match raw.models_directory {
        Some(text) => Some(checker.path("ondevice.models_directory", &text)),
        None => weights::default_dir(),
    };
    if directory.is_none() {
        checker.refuse("ondevice.models_directory", "must be given, as there is no home directory");
    }
    let (queue, conversations) = (queue?, conversations?);
    let chat = chat.map(|local| OnDeviceChat { local, queue, conversations });
    Some(OnDeviceConfig { chat, embeddings, directory: directory?, pull: raw.pull })
}

fn espeak(checker: &mut Checker, raw: &RawEspeak) -> Option<EspeakConfig> {
    let program = checker.path("espeak.program", &raw.program);
    let processes = checker.number("espeak.processes", raw.processes, 1..=256);
    let queue = checker.number("espeak.queue", raw.queue, 0..=10_000);
    let (max_processes, queue, voice) = (processes?, queue?, raw.voice.clone());
    if raw.model_id == NONE {
        return None;
    }
    let model = checker.model("espeak.model_id", Some(&raw.model_id))?;
    Some(EspeakConfig {
        model,
        options: EspeakOptions { program, voice, max_processes, queue, ..EspeakOptions::default() },
    })
}

/// Collects what is wrong, so that all of it is told at once.
#[derive(Default)]
struct Checker(Problems);

impl Checker {
    fn refuse(&mut self, field: &str, reason: impl Display) {
        self.0.push((field.to_owned(), reason.to_string()));
    }

    fn checked<T, E: Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.refuse(field, error)).ok()
    }

    fn parsed<T: FromStr>(&mut self, field: &str, text: &str, rule: &str) -> Option<T> {
        self.checked(field, text.parse().map_err(|_| rule))
    }

    fn number<N: TryFrom<u64>>(&mut self, field: &str, value: u64, range: RangeInclusive<u64>) -> Option<N> {
        let number = if range.contains(&value) { N::try_from(value).ok() } else { None };
        if number.is_none() {
            self.refuse(field, format!("must be {} to {}", range.start(), range.end()));
        }
        number
    }

    /// What is wrong is noted, so that the value, whatever it is, will not be used.
    fn seconds(&mut self, field: &str, value: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(field, value, range).unwrap_or_default())
    }

    fn one_of<T: Copy>(&mut self, field: &str, text: &str, known: &[(&str, T)]) -> Option<T> {
        let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            self.refuse(field, format!("must be one of: {}", names.join(", ")));
        }
        found
    }

    fn model(&mut self, field: &str, name: Option<&str>) -> Option<ModelId> {
        self.checked(field, name?.parse())
    }

    fn path(&mut self, field: &str, text: &str) -> PathBuf {
        if text.is_empty() {
            self.refuse(field, "must be a path");
        }
        PathBuf::from(text)
    }
}
