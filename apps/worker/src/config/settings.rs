//! Every setting: its variable, its default, and what it means. The defaults and `docs/guides/cloudflare.md` come from here.

/// One setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Its variable.
    pub name: &'static str,
    /// What it is where nobody says.
    pub default: Option<&'static str>,
    /// What it does.
    pub meaning: &'static str,
}

const fn setting(name: &'static str, default: Option<&'static str>, meaning: &'static str) -> Setting {
    Setting { name, default, meaning }
}

/// All settings, in the order in which the guide has them.
#[rustfmt::skip] // One setting a paragraph: where it is said, then what it is.
pub const SETTINGS: &[Setting] = &[
    setting("ENVIRONMENT", Some("development"),
        "Where this is. `production`, `prod` and `prd` refuse open tenants unless they say `allowOpenInProduction`"),

    setting("MAX_REQUEST_BODY_SIZE", Some("65536"),
        "The longest body of a request, in bytes"),
    setting("MAX_MESSAGE_LENGTH", Some("10000"),
        "The longest message of a chat, in characters; at most 10000"),
    setting("ENIGMA_SERVER_KEEP_ALIVE_SECONDS", Some("5"),
        "After how much silence a stream carries a comment. That a client has gone while the model is silent is only noticed by it, so that it is shorter than the native server's"),

    setting("ENIGMA_TENANTS_REFRESH_SECONDS", Some("30"),
        "How old a copy of the tenants may be before KV is read again"),
    setting("ENIGMA_TENANTS_REFUSE_SECONDS", Some("300"),
        "How old a copy may become where KV cannot be read. Nobody gets in with an older one"),

    setting("MODEL_ID", None,
        "The model that answers where the request names none, before the tenant's own"),
    setting("FALLBACK_MODEL_ID", None,
        "The model that answers where the first one cannot, before the tenant's own"),
    setting("EMBEDDING_MODEL_ID", None,
        "The model that embeds documents and questions, before the tenant's own"),
    setting("VECTORIZE_METADATA_INDEXES", None,
        "The metadata indexes that the vector index was made with, such as `lang:string,year:number`; at most 10. Filters by them are answered by Vectorize"),
    setting("MAX_MESSAGE_COUNT", Some("50"),
        "Messages of history that a model is shown"),
    setting("ENIGMA_CHAT_MAX_HISTORY_TOKENS", Some("4096"),
        "Tokens of history that a model is shown, estimated as a quarter of the characters"),
    setting("ENIGMA_CHAT_DEFAULT_MAX_TOKENS", Some("1024"),
        "The longest answer where the request does not say, in tokens"),
    setting("ENIGMA_CHAT_MAX_TOKENS", Some("4096"),
        "The longest answer that a request can ask for, in tokens"),
    setting("ENIGMA_CHAT_REQUEST_TIMEOUT_SECONDS", Some("300"),
        "How long a chat may take in all"),
    setting("ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", Some("20"),
        "How long a client may read nothing of its answer before it counts as gone; at most 25, as the runtime ends all work 30 seconds after a client has left"),

    setting("ENIGMA_TOOLS_TIMEOUT_SECONDS", Some("120"),
        "How long a tool may take, where its own limit is not shorter"),
    setting("ENIGMA_TOOLS_AUDIT_DAYS", Some("7"),
        "How long the runs of tools are kept on record, in days"),

    setting("ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", Some("20"),
        "How long a model may take to begin its answer"),
    setting("ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", Some("20"),
        "How long a model may be silent in the middle of its answer"),
    setting("ENIGMA_MODELS_MAX_ATTEMPTS", Some("3"),
        "Calls of one model for one request, the first included"),
    setting("ENIGMA_MODELS_RETRY_BASE_DELAY_MS", Some("250"),
        "The longest pause before the second call, in milliseconds; it doubles with each one after"),
    setting("ENIGMA_MODELS_RETRY_MAX_DELAY_MS", Some("5000"),
        "The longest pause before any call, in milliseconds"),
    setting("ENIGMA_MODELS_BREAKER_FAILURES", Some("5"),
        "Failures in a row after which a model of a provider is left alone"),
    setting("ENIGMA_MODELS_BREAKER_OPEN_SECONDS", Some("20"),
        "How long it is left alone"),

    setting("ENIGMA_GATEWAY_ID", None,
        "The AI Gateway of tenants without an `aiGatewayId` of their own. Without either, Workers AI is not asked"),
    setting("ENIGMA_AI_MODELS", None,
        "Models of Workers AI that `GET /v1/models` lists, separated by commas. Others are served all the same"),
    setting("ENIGMA_PROVIDERS", None,
        "OpenAI-compatible endpoints, a JSON array such as `[{ \"id\": \"openai\", \"base_url\": \"https://api.openai.com/v1\", \"api_key_env\": \"OPENAI_API_KEY\", \"models\": { \"small\": \"gpt-4o-mini\" } }]`"),

    setting("DEBUG_LOGGING", Some("false"),
        "`true` means `ENIGMA_LOG_LEVEL` `debug` where that says nothing"),
    setting("ENIGMA_LOG_LEVEL", Some("info"),
        "What is logged: `error`, `warn`, `info`, `debug` or `trace`"),
];

/// The default of a setting.
pub(super) fn default(name: &str) -> Option<&'static str> {
    SETTINGS.iter().find(|setting| setting.name == name)?.default
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// What is not as it is natively, and said so in the guide.
    const DIFFERENT: [&str; 6] = [
        "ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS",
        "ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS",
        "ENIGMA_SERVER_KEEP_ALIVE_SECONDS",
        "ENIGMA_CHAT_SEND_TIMEOUT_SECONDS",
        "ENIGMA_PROVIDERS",
        "ENIGMA_LOG_LEVEL",
    ];

    /// What only a Worker has.
    const ONLY_HERE: [&str; 7] = [
        "ENIGMA_TENANTS_REFRESH_SECONDS",
        "ENIGMA_TENANTS_REFUSE_SECONDS",
        "EMBEDDING_MODEL_ID",
        "VECTORIZE_METADATA_INDEXES",
        "ENIGMA_GATEWAY_ID",
        "ENIGMA_AI_MODELS",
        "DEBUG_LOGGING",
    ];

    #[test]
    fn the_guide_says_what_the_code_does() {
        let guide = include_str!("../../../../docs/guides/cloudflare.md");
        let row = |Setting { name, default, meaning }: &Setting| {
            let default = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
            format!("| `{name}` | {default} | {} |", meaning.replace('|', "\\|"))
        };
        let expected: Vec<_> = SETTINGS.iter().map(row).collect();
        let is_setting = |line: &&str| SETTINGS.iter().any(|s| line.starts_with(&format!("| `{}` |", s.name)));
        let found: Vec<_> = guide.lines().filter(is_setting).collect();
        assert_eq!(found, expected, "the guide's tables should read:\n{}", expected.join("\n"));
    }

    #[test]
    fn a_setting_that_the_native_server_has_too_is_the_same_here() {
        let guide = include_str!("../../../../docs/guides/configuration.md");
        let native: BTreeMap<&str, (&str, &str)> = guide
            .lines()
            .filter_map(|line| match line.split(" | ").collect::<Vec<_>>()[..] {
                [_, variable, _, default, meaning] => Some((variable, (default, meaning.trim_end_matches(" |")))),
                _ => None,
            })
            .collect();
        for Setting { name, default, meaning } in SETTINGS {
            let Some(native) = native.get(format!("`{name}`").as_str()) else {
                assert!(ONLY_HERE.contains(name), "{name} is not a setting of the native server");
                continue;
            };
            let here = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
            let same = *native == (here.as_str(), *meaning);
            assert_eq!(same, !DIFFERENT.contains(name), "{name}: natively {native:?}");
        }
    }
}
