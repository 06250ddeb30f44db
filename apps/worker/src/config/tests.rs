use super::*;
use std::time::Duration;

fn load(variables: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let variables = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::load(&variables).map_err(|ConfigError(problems)| problems.iter().map(ToString::to_string).collect())
}

#[track_caller]
fn assert_refused(variables: &[(&str, &str)], expected: &[&str]) {
    let problems = load(variables).unwrap_err();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "expected {expected} …, got {problem}");
    }
}

#[test]
fn defaults_are_those_of_the_core_but_where_the_platform_differs() {
    let config = load(&[]).unwrap();
    let (chat, http) = (ChatSettings::default(), HttpSettings::default());
    assert_eq!(config.chat.prompt.max_messages, chat.prompt.max_messages);
    assert_eq!(config.chat.prompt.max_tokens, chat.prompt.max_tokens);
    assert_eq!((config.chat.default_max_tokens, config.chat.max_tokens), (chat.default_max_tokens, chat.max_tokens));
    assert_eq!((config.chat.request_timeout, config.chat.send_timeout), (chat.request_timeout, chat.send_timeout));
    // Once its client has gone, a request's task has 30 seconds: an early leaver's must notice, and keep its books, within them.
    let patience = Duration::from_secs(20);
    assert_eq!(config.models.timeouts, ModelTimeouts { first_token: patience, idle: patience });
    assert_eq!(config.models.retry, RetryPolicy::default());
    assert_eq!(config.models.breaker, BreakerPolicy { probe_for: patience, ..BreakerPolicy::default() });
    assert_eq!(config.tenants, Freshness::default());
    assert_eq!(config.http.environment, http.environment);
    assert_eq!(
        (config.http.max_body_bytes, config.http.max_message_chars),
        (http.max_body_bytes, http.max_message_chars)
    );
    assert_eq!(config.http.keep_alive, Duration::from_secs(5));
    assert!(!config.environment.is_production && config.providers.is_empty() && config.log_level == Level::INFO);
    assert!(config.gateway_id.is_none() && config.embedding_model.is_none());
}

#[test]
fn every_setting_is_read_and_an_empty_one_is_none() {
    let other = |setting: &Setting| match setting.name {
        "ENVIRONMENT" => "PRD".to_owned(),
        "MODEL_ID" | "FALLBACK_MODEL_ID" | "EMBEDDING_MODEL_ID" => "@cf/m".to_owned(),
        "VECTORIZE_METADATA_INDEXES" => "lang:string, year:number".to_owned(),
        "ENIGMA_GATEWAY_ID" => "gateway".to_owned(),
        "ENIGMA_AI_MODELS" => "@cf/a, @cf/b".to_owned(),
        "ENIGMA_PROVIDERS" => {
            r#"[{ "id": "p", "base_url": "https://p.example/v1", "models": { "a": "b" } }]"#.to_owned()
        }
        "DEBUG_LOGGING" => "TRUE".to_owned(),
        "ENIGMA_LOG_LEVEL" => "warn".to_owned(),
        // One more than the default; the body's and a message's length are at their ends already.
        "MAX_MESSAGE_LENGTH" => "9999".to_owned(),
        _ => (setting.default.unwrap().parse::<u64>().unwrap() + 1).to_string(),
    };
    let values: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, other(setting))).collect();
    let variables: Vec<_> = values.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let config = load(&variables).unwrap();
    let (default, seconds) = (load(&[]).unwrap(), Duration::from_secs);
    assert!(config.environment.is_production && config.environment.name == "PRD" && config.http.environment == "PRD");
    assert_eq!((config.http.max_body_bytes, config.http.max_message_chars), (65_537, 9_999));
    assert_eq!(config.http.keep_alive, seconds(6));
    assert_eq!(config.tenants, Freshness { refresh_after: seconds(31), refuse_after: seconds(301) });
    let overrides = &config.chat.overrides;
    for model in [&overrides.model, &overrides.fallback, &config.embedding_model] {
        assert_eq!(model.as_ref().map(ModelId::as_str), Some("@cf/m"));
    }
    assert_eq!(config.chat.prompt.max_messages, default.chat.prompt.max_messages + 1);
    assert_eq!(config.chat.prompt.max_tokens, default.chat.prompt.max_tokens + 1);
    assert_eq!((config.chat.default_max_tokens, config.chat.max_tokens), (1025, 4097));
    assert_eq!((config.chat.request_timeout, config.chat.send_timeout), (seconds(301), seconds(21)));
    assert_eq!((config.models.timeouts.first_token, config.models.timeouts.idle), (seconds(21), seconds(21)));
    assert_eq!((config.models.retry.max_attempts, config.models.breaker.failures), (4, 6));
    let millis = Duration::from_millis;
    assert_eq!((config.models.retry.base_delay, config.models.retry.max_delay), (millis(251), millis(5001)));
    assert_eq!((config.models.breaker.open_for, config.models.breaker.probe_for), (seconds(21), seconds(21)));
    assert_eq!(config.gateway_id.as_deref(), Some("gateway"));
    assert_eq!(config.providers[0].models.iter().map(ModelId::as_str).collect::<Vec<_>>(), ["a"]);
    assert_eq!(config.log_level, Level::WARN, "a level that is said counts for more than DEBUG_LOGGING");

    let empty: Vec<_> = SETTINGS.iter().map(|setting| (setting.name, " ")).collect();
    assert_eq!(format!("{:?}", load(&empty).unwrap()), format!("{default:?}"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    assert_refused(
        &[
            ("ENVIRONMENT", "two words"),
            ("MODEL_ID", "a b"),
            ("MAX_MESSAGE_LENGTH", "10001"),
            ("MAX_MESSAGE_COUNT", "ten"),
            ("MAX_REQUEST_BODY_SIZE", "0"),
            ("EMBEDDING_MODEL_ID", "ä"),
            ("ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", "26"),
            ("ENIGMA_GATEWAY_ID", "a/b"),
            ("ENIGMA_PROVIDERS", "["),
            ("ENIGMA_LOG_LEVEL", "loud"),
        ],
        &[
            "variable ENVIRONMENT: must be 1 to 64 visible",
            "variable MAX_REQUEST_BODY_SIZE: must be 1 to 16777216",
            "variable MAX_MESSAGE_LENGTH: must be 1 to 10000",
            "variable MODEL_ID: must be 1 to 200 visible",
            "variable MAX_MESSAGE_COUNT: must be a whole number",
            "variable ENIGMA_CHAT_SEND_TIMEOUT_SECONDS: must be 1 to 25",
            "variable EMBEDDING_MODEL_ID: must be 1 to 200 visible",
            "variable ENIGMA_GATEWAY_ID: must be 1 to 64 of",
            "variable ENIGMA_PROVIDERS: must be a JSON array",
            "variable ENIGMA_LOG_LEVEL: must be error, warn",
        ],
    );
}

#[test]
fn limits_that_depend_on_each_other_are_compared() {
    assert_refused(&[("ENIGMA_CHAT_MAX_TOKENS", "10")], &["variable ENIGMA_CHAT_DEFAULT_MAX_TOKENS: must be 1 to 10"]);
    assert_refused(
        &[("ENIGMA_MODELS_RETRY_MAX_DELAY_MS", "100")],
        &["variable ENIGMA_MODELS_RETRY_BASE_DELAY_MS: must be 0 to 100"],
    );
    assert_refused(
        &[("ENIGMA_TENANTS_REFRESH_SECONDS", "301")],
        &["variable ENIGMA_TENANTS_REFUSE_SECONDS: must be 301 to 86400"],
    );
}

#[test]
fn debug_logging_counts_where_no_level_is_said() {
    assert_eq!(load(&[("DEBUG_LOGGING", "true")]).unwrap().log_level, Level::DEBUG);
    assert_eq!(load(&[("DEBUG_LOGGING", "false")]).unwrap().log_level, Level::INFO);
    assert_eq!(load(&[("DEBUG_LOGGING", "true"), ("ENIGMA_LOG_LEVEL", "error")]).unwrap().log_level, Level::ERROR);
}

#[test]
fn providers_are_checked_and_their_keys_never_shown() {
    let refused = |text: &str, expected: &[&str]| {
        assert_refused(&[("ENIGMA_PROVIDERS", text)], expected);
        assert!(!load(&[("ENIGMA_PROVIDERS", text)]).unwrap_err().join("").contains("sk-secret"), "{text}");
    };
    for text in ["sk-secret", "\"sk-secret\"", "{}", "[] sk-secret"] {
        refused(text, &["variable ENIGMA_PROVIDERS: must be a JSON array"]);
    }
    let at = |more: &str| format!(r#"[{{ "id": "p", "base_url": "https://p.example/v1"{more} }}]"#);
    refused(&at(r#", "api_key": "sk-secret""#), &["variable ENIGMA_PROVIDERS[0].api_key: unknown field `api_key`"]);
    refused(&at(r#", "api_key_env": "sk-secret""#), &["variable ENIGMA_PROVIDERS[0].api_key_env: must be the name"]);
    refused(&at(r#", "api_key_env": "KEY""#), &["variable ENIGMA_PROVIDERS[0].api_key_env: the secret KEY is not set"]);
    refused(
        &at(r#", "connect_timeout_seconds": 0"#),
        &["variable ENIGMA_PROVIDERS[0].connect_timeout_seconds: must be 1 to 120"],
    );
    refused(
        &at(r#", "models": "sk-secret""#),
        &["variable ENIGMA_PROVIDERS[0].models: invalid type: string, expected"],
    );
    refused(
        &at(r#", "embeddings": { "a": " " }"#),
        &["variable ENIGMA_PROVIDERS[0]: the provider's name of model a is empty"],
    );
    refused(
        &at(r#", "embeddings": { "a b": "c" }"#),
        &["variable ENIGMA_PROVIDERS[0].embeddings.a b: must be 1 to 200"],
    );
    refused(r#"[{ "id": "p" }]"#, &["variable ENIGMA_PROVIDERS[0]: missing field `base_url`"]);
    refused(
        r#"[{ "id": "P!", "base_url": "ftp://x" }]"#,
        &["variable ENIGMA_PROVIDERS[0].id: must be", "variable ENIGMA_PROVIDERS[0]: the base URL"],
    );
    refused(
        r#"[{ "id": "p", "base_url": "https://p/v1", "default": true }, { "id": "p", "base_url": "https://q/v1", "default": true },
            { "id": "workers-ai", "base_url": "https://r/v1" }]"#,
        &[
            "variable ENIGMA_PROVIDERS[1].id: p is taken",
            "variable ENIGMA_PROVIDERS[1].default: another",
            "variable ENIGMA_PROVIDERS[2].id: workers-ai is taken",
        ],
    );
    let embeds = load(&[("ENIGMA_PROVIDERS", &at(r#", "embeddings": { "near": "text-embedding-3-small" }"#))]).unwrap();
    assert_eq!(embeds.providers[0].embeddings.iter().map(ModelId::as_str).collect::<Vec<_>>(), ["near"]);
    assert!(embeds.providers[0].models.is_empty());
    let keyed = load(&[("ENIGMA_PROVIDERS", &at(r#", "api_key_env": "KEY""#)), ("KEY", "sk-secret-key")]).unwrap();
    assert!(!format!("{keyed:?}").contains("sk-secret-key"));
}
