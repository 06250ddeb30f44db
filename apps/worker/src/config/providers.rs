//! OpenAI-compatible endpoints.

use std::collections::BTreeMap;

use enigma_core::{ModelId, ProviderId};
use enigma_openai::{Endpoint, EndpointOptions, Secret};
use serde::Deserialize;

use super::check::Checker;

/// The name of Workers AI among providers.
pub const WORKERS_AI_PROVIDER: &str = "workers-ai";

const VARIABLE: &str = "ENIGMA_PROVIDERS";

/// An OpenAI-compatible endpoint.
#[derive(Debug)]
pub struct ProviderConfig {
    /// Its name in logs and records.
    pub id: ProviderId,
    /// Where it is, and how it is called.
    pub endpoint: Endpoint,
    /// Whether it serves every model without a route of its own.
    pub is_default: bool,
    /// The models it serves that answer.
    pub models: Vec<ModelId>,
    /// The models it serves that embed.
    pub embeddings: Vec<ModelId>,
    /// The models it serves that speak.
    pub speech: Vec<ModelId>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProvider {
    id: String,
    base_url: String,
    api_key_env: Option<String>,
    /// The native server's. Here it has no effect: the runtime does not tell when it has connected.
    connect_timeout_seconds: Option<u64>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    models: BTreeMap<String, String>,
    #[serde(default)]
    embeddings: BTreeMap<String, String>,
    #[serde(default)]
    speech: BTreeMap<String, String>,
    #[serde(default)]
    voices: Vec<String>,
}

pub(super) fn providers(checker: &mut Checker<'_>) -> Vec<ProviderConfig> {
    let Some(text) = checker.text(VARIABLE) else { return vec![] };
    let mut deserializer = serde_json::Deserializer::from_str(&text);
    let read: Result<Vec<RawProvider>, _> = serde_path_to_error::deserialize(&mut deserializer);
    let raw = match read {
        Ok(raw) if deserializer.end().is_ok() => raw,
        Err(error) if error.path().iter().len() > 0 && error.inner().is_data() => {
            checker.refuse(&format!("{VARIABLE}{}", error.path()), unquoted(&error.inner().to_string()));
            return vec![];
        }
        // Without what the parser says: it may quote what stands there.
        _ => {
            checker.refuse(VARIABLE, "must be a JSON array of objects");
            return vec![];
        }
    };
    let mut providers: Vec<ProviderConfig> = Vec::with_capacity(raw.len());
    for (n, raw) in raw.into_iter().enumerate() {
        let place = format!("{VARIABLE}[{n}]");
        let Some(provider) = provider(checker, &place, raw) else { continue };
        if providers.iter().any(|other| other.id == provider.id) || provider.id.as_str() == WORKERS_AI_PROVIDER {
            checker.refuse(&format!("{place}.id"), format!("{} is taken", provider.id));
        }
        if provider.is_default && providers.iter().any(|other| other.is_default) {
            checker.refuse(&format!("{place}.default"), "another provider is the default already");
        }
        providers.push(provider);
    }
    providers
}

/// What a parser says, less the text that it quotes, which may be a key in the wrong place.
fn unquoted(said: &str) -> String {
    match (said.find('"'), said.rfind('"')) {
        (Some(from), Some(to)) if from < to => format!("{}{}", said[..from].trim_end(), &said[to + 1..]),
        _ => said.to_owned(),
    }
}

fn provider(checker: &mut Checker<'_>, place: &str, raw: RawProvider) -> Option<ProviderConfig> {
    let id: Option<ProviderId> = checker.checked(&format!("{place}.id"), raw.id.parse());
    let api_key = match &raw.api_key_env {
        Some(name) => Some(Secret::new(api_key(checker, &format!("{place}.api_key_env"), name)?)),
        None => None,
    };
    if let Some(seconds) = raw.connect_timeout_seconds {
        checker.within::<u64>(&format!("{place}.connect_timeout_seconds"), seconds, 1..=120);
    }
    let models = names(checker, &format!("{place}.models"), raw.models);
    let embeddings = names(checker, &format!("{place}.embeddings"), raw.embeddings);
    let speech = names(checker, &format!("{place}.speech"), raw.speech);
    let listed = |names: &BTreeMap<ModelId, String>| names.keys().cloned().collect();
    let (listed, listed_embeddings, listed_speech) = (listed(&models), listed(&embeddings), listed(&speech));
    let voices = raw.voices;
    let options = EndpointOptions { api_key, models, embeddings, speech, voices, ..EndpointOptions::at(raw.base_url) };
    let endpoint = checker.checked(place, Endpoint::new(options))?;
    Some(ProviderConfig {
        id: id?,
        endpoint,
        is_default: raw.default,
        models: listed,
        embeddings: listed_embeddings,
        speech: listed_speech,
    })
}

/// The platform's names, with the provider's.
fn names(checker: &mut Checker<'_>, place: &str, raw: BTreeMap<String, String>) -> BTreeMap<ModelId, String> {
    let mut names = BTreeMap::new();
    for (name, there) in raw {
        let model: Option<ModelId> = checker.checked(&format!("{place}.{name}"), name.parse());
        names.extend(model.map(|model| (model, there)));
    }
    names
}

/// Never repeats what is written there: it may be the key itself, put there by mistake.
fn api_key(checker: &mut Checker<'_>, place: &str, name: &str) -> Option<String> {
    let is_name = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_name) {
        checker.refuse(place, "must be the name of a secret, of A-Z, 0-9 and _, that holds the key");
        return None;
    }
    let key = checker.variable(name);
    if key.is_none() {
        checker.refuse(place, format!("the secret {name} is not set"));
    }
    key
}
