use super::*;
use crate::cli::Cli;
use clap::Parser;
use std::fs;
use tempfile::TempDir;

const PROVIDER: &str = "[[providers]]\nid = \"p\"\nbase_url = \"http://127.0.0.1:1/v1\"\n";

fn load(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> Result<Config, Vec<String>> {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("enigma.toml");
    fs::write(&path, file).unwrap();
    let flags = Cli::try_parse_from([&["enigma-server"], flags].concat()).unwrap().flags;
    let variables = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    let path_text = format!("{}/", directory.path().display());
    Config::load(Some(&path), &flags, &variables)
        .map_err(|ConfigError(problems)| problems.iter().map(|p| p.to_string().replace(&path_text, "")).collect())
}

#[track_caller]
fn assert_refused(file: &str, variables: &[(&str, &str)], flags: &[&str], expected: &[&str]) {
    let problems = load(file, variables, flags).unwrap_err();
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, expected) in problems.iter().zip(expected) {
        assert!(problem.starts_with(expected), "expected {expected} …, got {problem}");
    }
}

#[test]
fn a_flag_wins_over_a_variable_a_variable_over_the_file_and_the_file_over_the_default() {
    let listen = |file: &str, variables: &[(&str, &str)], flags: &[&str]| {
        load(&format!("{file}\n{PROVIDER}"), variables, flags)
            .unwrap()
            .server
            .listen
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    };
    let file = "[server]\nlisten = \"127.0.0.1:1\"";
    let variable = [("ENIGMA_SERVER_LISTEN", "127.0.0.1:2")];
    let flag = ["--server-listen", "127.0.0.1:3"];
    assert_eq!(listen("", &[], &[]), "127.0.0.1:8080");
    assert_eq!(listen(file, &[], &[]), "127.0.0.1:1");
    assert_eq!(listen(file, &variable, &[]), "127.0.0.1:2");
    assert_eq!(listen(file, &variable, &flag), "127.0.0.1:3");
    assert_eq!(listen("", &[], &flag), "127.0.0.1:3");
}

#[test]
fn every_setting_can_be_a_variable_and_a_flag() {
    let values = |setting: &crate::settings::Setting| match setting.key {
        "chat.model_id" | "chat.fallback_model_id" => "m".to_owned(),
        "ondevice.models_directory" => "/m".to_owned(),
        "tls.certificate_file" | "tls.key_file" => "/x.pem".to_owned(),
        "providers" => "[{ id = \"p\", base_url = \"http://127.0.0.1:1/v1\", default = true }]".to_owned(),
        _ => setting.default.unwrap().to_owned(),
    };
    let all: Vec<_> = SETTINGS.iter().map(|setting| (setting.env, values(setting))).collect();
    let variables: Vec<_> = all.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.providers.len(), 1);
    assert_eq!(config.ondevice.unwrap().directory, Path::new("/m"));

    let flags: Vec<_> = SETTINGS.iter().map(|setting| format!("--{}={}", setting.flag, values(setting))).collect();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let config = load("", &[], &flags).unwrap();
    assert_eq!(config.chat.overrides.model.unwrap().as_str(), "m");
}

#[test]
fn a_whole_file_is_read() {
    let file = include_str!("../../enigma.example.toml");
    let config = load(file, &[("OLLAMA_API_KEY", "secret-of-ollama")], &[]).unwrap();
    assert!(!format!("{config:?}").contains("secret-of-ollama"));
    assert!(config.providers.iter().any(|provider| provider.is_default));
}

#[test]
fn defaults_are_those_of_the_core() {
    let config = load(PROVIDER, &[], &[]).unwrap();
    let chat = ChatSettings::default();
    assert_eq!(config.chat.prompt.max_messages, chat.prompt.max_messages);
    assert_eq!(config.chat.prompt.max_tokens, chat.prompt.max_tokens);
    assert_eq!((config.chat.default_max_tokens, config.chat.max_tokens), (chat.default_max_tokens, chat.max_tokens));
    assert_eq!((config.chat.request_timeout, config.chat.send_timeout), (chat.request_timeout, chat.send_timeout));
    assert_eq!(config.models.timeouts, ModelTimeouts::default());
    assert_eq!(config.models.retry, RetryPolicy::default());
    assert_eq!(config.models.breaker, BreakerPolicy::default());
    assert!(!config.environment.is_production && config.ondevice.is_none());
}

#[test]
fn production_has_three_names() {
    for (name, is_production) in
        [("production", true), ("PRD", true), ("prod", true), ("staging", false), ("production-like", false)]
    {
        let config = load(PROVIDER, &[("ENVIRONMENT", name)], &[]).unwrap();
        assert_eq!(config.environment.is_production, is_production, "{name}");
    }
}

#[test]
fn the_on_device_model_is_on_where_its_section_is() {
    let ondevice = load("[ondevice]", &[], &[]).unwrap().ondevice.unwrap();
    let chat = ondevice.chat.unwrap();
    assert_eq!((chat.local.model.as_str(), chat.queue, ondevice.pull), ("smollm2-135m-instruct", 32, true));
    assert!(ondevice.embeddings.is_none());
    assert!(load("", &[], &["--ondevice-pull", "false"]).unwrap().ondevice.is_some_and(|model| !model.pull));
    assert_refused(
        "[ondevice]\nmodel_id = \"all-minilm-l6-v2\"",
        &[],
        &[],
        &["enigma.toml: ondevice.model_id: must be one of: smollm2-135m-instruct, none"],
    );
}

#[test]
fn an_embedder_can_run_here_without_a_chat_model_but_not_nothing_at_all() {
    let embedding = "[ondevice]\nembedding_model_id = \"All-MiniLM-L6-v2\"";
    let ondevice = load(embedding, &[], &[]).unwrap().ondevice.unwrap();
    assert!(ondevice.chat.is_some());
    assert_eq!(ondevice.embeddings.unwrap().model.as_str(), "All-MiniLM-L6-v2");

    let config = load(&format!("{PROVIDER}\n{embedding}"), &[], &["--ondevice-model-id=none"]).unwrap();
    let serves = |name: &str, purpose| config.serves(&name.parse().unwrap(), purpose);
    assert!(serves("All-MiniLM-L6-v2", ModelUse::Embeddings) && !serves("All-MiniLM-L6-v2", ModelUse::Chat));
    assert!(config.ondevice.unwrap().chat.is_none());

    let nothing = ["--ondevice-model-id=none"];
    assert_refused(PROVIDER, &[], &nothing, &["flag --ondevice-model-id: ondevice.model_id: must be a model where"]);
    let wrong = "[ondevice]\nembedding_model_id = \"smollm2-135m-instruct\"";
    assert_refused(
        wrong,
        &[],
        &[],
        &["enigma.toml: ondevice.embedding_model_id: must be one of: all-minilm-l6-v2, none"],
    );
    assert_refused(embedding, &[], &nothing, &["enigma.toml: providers: there is no model"]);
}

#[test]
fn a_provider_maps_names_of_models_that_speak_and_tells_voices() {
    let file = format!("{PROVIDER}speech = {{ \"a\" = \"tts-1\" }}\nvoices = [\"alloy\"]");
    let config = load(&file, &[], &[]).unwrap();
    let serves = |name: &str, purpose| config.serves(&name.parse().unwrap(), purpose);
    assert!(serves("a", ModelUse::Speech) && !serves("a", ModelUse::Chat) && !serves("b", ModelUse::Speech));
    let config = load(&format!("{PROVIDER}default = true"), &[], &[]).unwrap();
    assert!(config.serves(&"any".parse().unwrap(), ModelUse::Speech), "the default provider speaks too");
    let wrong = format!("{PROVIDER}voices = [\"\"]");
    assert_refused(&wrong, &[], &[], &["enigma.toml: providers[0]: a voice has no name"]);
}

#[test]
fn the_speech_engine_is_a_model_unless_it_is_not_wanted() {
    let serves = |file: &str, name: &str| {
        let config = load(&format!("{PROVIDER}{file}"), &[], &[]).unwrap();
        config.serves(&name.parse().unwrap(), ModelUse::Speech)
    };
    assert!(serves("", "espeak-ng") && !serves("", "other"));
    let section = |line: &str| format!("[espeak]\n{line}\n");
    assert!(serves(&section("model_id = \"robot\""), "robot"));
    assert!(!serves(&section("model_id = \"none\""), "espeak-ng"));
    for (line, place) in [
        ("processes = 0", "espeak.processes: must be 1 to 256"),
        ("queue = 10001", "espeak.queue: must be 0 to 10000"),
        ("program = \"\"", "espeak.program: must be a path"),
        ("model_id = \"a b\"", "espeak.model_id: must be"),
    ] {
        assert_refused(&format!("{PROVIDER}{}", section(line)), &[], &[], &[&format!("enigma.toml: {place}")]);
    }
}

#[test]
fn a_provider_maps_names_of_embedding_models_of_their_own() {
    let file =
        format!("{PROVIDER}models = {{ \"a\" = \"chat\" }}\nembeddings = {{ \"a\" = \"near\", \"b\" = \"far\" }}");
    let config = load(&file, &[], &[]).unwrap();
    let serves = |name: &str, purpose| config.serves(&name.parse().unwrap(), purpose);
    assert!(serves("a", ModelUse::Chat) && serves("a", ModelUse::Embeddings) && serves("b", ModelUse::Embeddings));
    assert!(!serves("b", ModelUse::Chat) && !serves("c", ModelUse::Embeddings));
    let config = load(&format!("{PROVIDER}default = true"), &[], &[]).unwrap();
    assert!(config.serves(&"any".parse().unwrap(), ModelUse::Embeddings), "the default provider embeds too");
    let wrong = format!("{PROVIDER}embeddings = {{ \"a b\" = \"near\" }}");
    assert_refused(&wrong, &[], &[], &["enigma.toml: providers[0].embeddings.a b: must be"]);
    let wrong = format!("{PROVIDER}embeddings = {{ \"a\" = \"\" }}");
    assert_refused(&wrong, &[], &[], &["enigma.toml: providers[0]: the provider's name of model a is empty"]);
}

#[test]
fn debug_logging_counts_for_less_than_a_level_that_was_asked_for_next_to_it() {
    let debug = [("DEBUG_LOGGING", "true")];
    let file = format!("{PROVIDER}\n[log]\nlevel = \"warn\"");
    assert_eq!(load(&file, &debug, &[]).unwrap().log.level, Level::DEBUG);
    assert_eq!(load(&file, &[("DEBUG_LOGGING", "false")], &[]).unwrap().log.level, Level::WARN);
    assert_eq!(load(&file, &debug, &["--log-level", "error"]).unwrap().log.level, Level::ERROR);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_its_line() {
    assert_refused("x = 1\ny = [", &[], &[], &["enigma.toml: .: line 2: "]);
    let flags = Flags::default();
    let error = Config::load(Some(Path::new("/no/such.toml")), &flags, &|_| None).unwrap_err();
    assert!(error.to_string().starts_with("/no/such.toml: .: cannot be read"), "{error}");
}

#[test]
fn a_field_that_is_unknown_or_of_another_type_is_named() {
    assert_refused("[server]\nlisten_on = \"x\"", &[], &[], &["enigma.toml: server.listen_on: unknown field"]);
    assert_refused("colour = 1", &[], &[], &["enigma.toml: colour: unknown field"]);
    assert_refused("server = 3", &[], &[], &["enigma.toml: server: invalid type"]);
    assert_refused("[chat]\nmax_tokens = \"many\"", &[], &[], &["enigma.toml: chat.max_tokens: invalid type"]);
    assert_refused(
        &format!("{PROVIDER}api_key = \"sk-secret\""),
        &[],
        &[],
        &["enigma.toml: providers[0].api_key: unknown"],
    );
}

#[test]
fn a_bad_value_is_named_by_whoever_gave_it_and_all_are_told() {
    let file = format!(
        "environment = \"\"\n[server]\nlisten = \"localhost\"\ntrusted_proxies = [\"10.0.0.0/33\"]\n{PROVIDER}"
    );
    let variables = [("MODEL_ID", "a b"), ("MAX_MESSAGE_LENGTH", "10001")];
    assert_refused(
        &file,
        &variables,
        &["--log-format", "xml"],
        &[
            "enigma.toml: environment: must be 1 to 64",
            "enigma.toml: server.listen: must be an IP address and a port",
            "enigma.toml: server.trusted_proxies[0]: must be an IP address, a network",
            "environment variable MAX_MESSAGE_LENGTH: server.max_message_length: must be 1 to 10000",
            "environment variable MODEL_ID: chat.model_id: must be 1 to 200 visible",
            "flag --log-format: log.format: must be one of: json, text",
        ],
    );
    assert_refused(
        "",
        &[("MAX_MESSAGE_COUNT", "ten")],
        &[],
        &["environment variable MAX_MESSAGE_COUNT: chat.max_message_count: must be a whole number"],
    );
    assert_refused("", &[], &[], &["enigma.toml: providers: there is no model"]);
}

#[test]
fn a_model_for_all_tenants_that_nobody_serves_is_refused() {
    let file = format!("[chat]\nfallback_model_id = \"spare\"\n{PROVIDER}models = {{ \"main\" = \"m\" }}");
    assert_refused(
        &file,
        &[("MODEL_ID", "other")],
        &[],
        &[
            "environment variable MODEL_ID: chat.model_id: nobody serves model other",
            "enigma.toml: chat.fallback_model_id: nobody serves model spare",
        ],
    );
    let config = load(&file.replace("spare", "main"), &[], &[]).unwrap();
    let serves = |name: &str| config.serves(&name.parse().unwrap(), ModelUse::Chat);
    assert!(serves("main") && !serves("other"));
}

#[test]
fn a_server_can_listen_at_several_places() {
    let listen = |text: &str| load(&format!("[server]\nlisten = \"{text}\"\n{PROVIDER}"), &[], &[]);
    let places = listen("127.0.0.1:1, unix:/run/e.sock,[::1]:2").unwrap().server.listen;
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    assert_eq!(places, ["127.0.0.1:1", "unix:/run/e.sock", "[::1]:2"]);
    for (text, reason) in
        [("", "must be"), ("127.0.0.1:1,", "must be"), ("unix:", "must be"), ("[::]:1,[::]:1", "[::]:1 is")]
    {
        let problems = listen(text).unwrap_err();
        assert!(problems[0].starts_with(&format!("enigma.toml: server.listen: {reason}")), "{problems:?}");
    }
}

#[test]
fn sockets_and_tls_are_checked() {
    let wrong = format!(
        "[server]\nsocket_mode = \"rw\"\nmax_connections_per_address = 1000001\n[tls]\ncertificate_file = \"c\"\n{PROVIDER}"
    );
    let expected = [
        "enigma.toml: server.socket_mode: must be permission bits",
        "enigma.toml: server.max_connections_per_address: must be 0 to 1000000",
        "enigma.toml: tls.key_file: must be given",
    ];
    assert_refused(&wrong, &[], &[], &expected);
    assert_refused(PROVIDER, &[], &["--tls-key-file=k"], &["enigma.toml: tls.certificate_file: must be given"]);
    let file = format!("[server]\ntrusted_proxies = [\"unix\", \"10.0.0.1\"]\n{PROVIDER}");
    let config = load(&file, &[("ENIGMA_TLS_CERTIFICATE_FILE", "c")], &["--tls-key-file=k"]).unwrap();
    assert!(config.server.trusted_proxies.unix && config.server.trusted_proxies.networks.len() == 1);
    assert_eq!((config.server.socket_mode, config.server.compression), (0o660, false));
    assert_eq!(config.tls, Some(TlsFiles { certificate: "c".into(), key: "k".into() }));
}

#[test]
fn limits_that_depend_on_each_other_are_compared() {
    let file = format!("[chat]\nmax_tokens = 10\n{PROVIDER}");
    assert_refused(&file, &[], &[], &["enigma.toml: chat.default_max_tokens: must be 1 to 10"]);
    let file = format!("[models]\nretry_max_delay_ms = 100\n{PROVIDER}");
    assert_refused(&file, &[], &[], &["enigma.toml: models.retry_base_delay_ms: must be 0 to 100"]);
}

#[test]
fn providers_are_checked_and_their_keys_never_shown() {
    let more = |text: &str| format!("{PROVIDER}{text}");
    assert_refused(
        &more("api_key_env = \"sk-secret\""),
        &[],
        &[],
        &["enigma.toml: providers[0].api_key_env: must be the name of an environment variable"],
    );
    assert!(!format!("{:?}", load(&more("api_key_env = \"sk-secret\""), &[], &[])).contains("sk-secret"));
    assert_refused(
        &more("api_key_env = \"KEY\""),
        &[],
        &[],
        &["enigma.toml: providers[0].api_key_env: the environment variable KEY is not set"],
    );
    assert_refused(&more(PROVIDER), &[], &[], &["enigma.toml: providers[1].id: p is taken"]);
    let two = more("default = true\n[[providers]]\nid = \"q\"\nbase_url = \"https://q.example/v1\"\ndefault = true");
    assert_refused(&two, &[], &[], &["enigma.toml: providers[1].default: another provider"]);
    let wrong = "[[providers]]\nid = \"P!\"\nbase_url = \"ftp://x\"";
    assert_refused(
        wrong,
        &[],
        &[],
        &["enigma.toml: providers[0].id: must be", "enigma.toml: providers[0]: the base URL"],
    );
    let keyed = load(&more("api_key_env = \"KEY\""), &[("KEY", "sk-secret-key")], &[]).unwrap();
    assert!(!format!("{keyed:?}").contains("sk-secret-key"));
    assert_refused(
        "",
        &[("ENIGMA_PROVIDERS", "[{ id = \"p\" }]")],
        &[],
        &["environment variable ENIGMA_PROVIDERS: providers[0]: missing field `base_url`"],
    );
}
