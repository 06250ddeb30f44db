//! Every setting: its key in the file, its environment variable, its flag, its default, and what it means. `--help`, the
//! defaults and `docs/guides/configuration.md` all come from here.

use self::Kind::{List, Number, Switch, Text, Toml};

/// How a setting is written where it is one text: in a variable or a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Switch,
    /// Texts with commas between them.
    List,
    /// A TOML value.
    Toml,
}

impl Kind {
    /// What `--help` calls a value.
    pub(crate) fn value_name(self) -> &'static str {
        match self {
            Text => "TEXT",
            Number => "NUMBER",
            Switch => "TRUE|FALSE",
            List => "LIST",
            Toml => "TOML",
        }
    }
}

/// One setting.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    /// Its place in the file, such as `server.listen`.
    pub(crate) key: &'static str,
    /// Its flag, without the dashes at its start.
    pub(crate) flag: &'static str,
    /// Its environment variable.
    pub(crate) env: &'static str,
    /// How it is written as one text.
    pub(crate) kind: Kind,
    /// What it is where nobody says.
    pub(crate) default: Option<&'static str>,
    /// What it does.
    pub(crate) meaning: &'static str,
}

impl Setting {
    /// The section of the file that it is in; empty for none.
    pub(crate) fn section(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(section, _)| section)
    }
}

const fn setting(
    key: &'static str,
    flag: &'static str,
    env: &'static str,
    kind: Kind,
    default: Option<&'static str>,
    meaning: &'static str,
) -> Setting {
    Setting { key, flag, env, kind, default, meaning }
}

#[rustfmt::skip] // One setting a paragraph: where it is said, then what it is.
pub(crate) const SETTINGS: &[Setting] = &[
    setting("environment", "environment", "ENVIRONMENT", Text, Some("development"),
        "Where this is. `production`, `prod` and `prd` refuse open tenants unless they say `allowOpenInProduction`"),

    setting("server.listen", "server-listen", "ENIGMA_SERVER_LISTEN", Text, Some("127.0.0.1:8080"),
        "Where to listen, with commas between: `ADDRESS:PORT`, or `unix:PATH` for a socket in the file system. Port 0 picks a free one. Sockets that systemd hands over take its place"),
    setting("server.socket_mode", "server-socket-mode", "ENIGMA_SERVER_SOCKET_MODE", Text, Some("660"),
        "Who may connect to a socket in the file system: its permission bits, in octal"),
    setting("server.trusted_proxies", "server-trusted-proxies", "ENIGMA_SERVER_TRUSTED_PROXIES", List, Some(""),
        "Addresses and networks whose `x-forwarded-for` is believed, such as `127.0.0.1` or `10.0.0.0/8`; `unix` is whoever connects to a socket in the file system"),
    setting("server.shutdown_grace_seconds", "server-shutdown-grace-seconds", "ENIGMA_SERVER_SHUTDOWN_GRACE_SECONDS", Number, Some("30"),
        "How long answers may still run after SIGTERM or SIGINT before they are ended"),
    setting("server.max_request_body_size", "server-max-request-body-size", "MAX_REQUEST_BODY_SIZE", Number, Some("65536"),
        "The longest body of a request, in bytes"),
    setting("server.max_document_body_size", "server-max-document-body-size", "MAX_DOCUMENT_BODY_SIZE", Number, Some("2097152"),
        "The longest body of a request with a document, in bytes"),
    setting("server.max_message_length", "server-max-message-length", "MAX_MESSAGE_LENGTH", Number, Some("10000"),
        "The longest message of a chat, in characters; at most 10000"),
    setting("server.keep_alive_seconds", "server-keep-alive-seconds", "ENIGMA_SERVER_KEEP_ALIVE_SECONDS", Number, Some("15"),
        "After how much silence a stream carries a comment, so that nobody between takes it for dead"),
    setting("server.max_connections", "server-max-connections", "ENIGMA_SERVER_MAX_CONNECTIONS", Number, Some("16384"),
        "Connections at a time. Further ones wait in the system's backlog"),
    setting("server.max_connections_per_address", "server-max-connections-per-address", "ENIGMA_SERVER_MAX_CONNECTIONS_PER_ADDRESS", Number, Some("12288"),
        "Connections at a time of one address, or one /64 of IPv6. Further ones are closed. Trusted proxies have no such limit; `0` is none for anybody"),
    setting("server.header_read_timeout_seconds", "server-header-read-timeout-seconds", "ENIGMA_SERVER_HEADER_READ_TIMEOUT_SECONDS", Number, Some("10"),
        "How long a connection may take to send the head of a request, from its first byte, or from connecting; and for TLS before that"),
    setting("server.idle_timeout_seconds", "server-idle-timeout-seconds", "ENIGMA_SERVER_IDLE_TIMEOUT_SECONDS", Number, Some("75"),
        "How long a connection may be idle between two requests. It should be longer than a proxy in front keeps its connections"),
    setting("server.body_read_timeout_seconds", "server-body-read-timeout-seconds", "ENIGMA_SERVER_BODY_READ_TIMEOUT_SECONDS", Number, Some("30"),
        "How long a request may take to send its body"),
    setting("server.compression", "server-compression", "ENIGMA_SERVER_COMPRESSION", Switch, Some("false"),
        "Whether answers of 1 KiB and more are compressed with gzip for those who ask for it. Event streams never are"),

    setting("tls.certificate_file", "tls-certificate-file", "ENIGMA_TLS_CERTIFICATE_FILE", Text, None,
        "The certificate and those between it and its root, in PEM. With it and its key the addresses of `server.listen` speak TLS"),
    setting("tls.key_file", "tls-key-file", "ENIGMA_TLS_KEY_FILE", Text, None,
        "The key of the certificate, in PEM"),

    setting("overload.max_requests", "overload-max-requests", "ENIGMA_OVERLOAD_MAX_REQUESTS", Number, Some("4096"),
        "Requests in work at once. A chat counts until its body is read, any other request until its response is sent. Further ones are refused"),
    setting("overload.max_streams", "overload-max-streams", "ENIGMA_OVERLOAD_MAX_STREAMS", Number, Some("32768"),
        "Answers of models under way at once, streamed or not. Further ones are refused"),
    setting("overload.tenant_share_percent", "overload-tenant-share-percent", "ENIGMA_OVERLOAD_TENANT_SHARE_PERCENT", Number, Some("50"),
        "What one tenant alone may have of each of the two, in a hundred"),

    setting("tenants.directory", "tenants-directory", "ENIGMA_TENANTS_DIRECTORY", Text, Some("tenants"),
        "Where the tenants are: `NAME/tenant.config.json` in it. Relative paths, here and elsewhere, start at the working directory"),

    setting("storage.database", "storage-database", "ENIGMA_STORAGE_DATABASE", Text, Some("data/enigma.db"),
        "The SQLite file. `memory` keeps everything in memory, and forgets it with the process"),
    setting("storage.synchronous", "storage-synchronous", "ENIGMA_STORAGE_SYNCHRONOUS", Text, Some("normal"),
        "SQLite's `synchronous`: `off`, `normal`, `full` or `extra`. What was acknowledged survives the death of the process with each of them, and a power cut from `full` on"),
    setting("storage.rebuild_hours", "storage-rebuild-hours", "ENIGMA_STORAGE_REBUILD_HOURS", Number, Some("24"),
        "After how many hours the database is written anew, which removes the last traces of what was deleted. Writers wait while that takes. `0` is never"),

    setting("chat.model_id", "chat-model-id", "MODEL_ID", Text, None,
        "The model that answers where the request names none, before the tenant's own"),
    setting("chat.fallback_model_id", "chat-fallback-model-id", "FALLBACK_MODEL_ID", Text, None,
        "The model that answers where the first one cannot, before the tenant's own"),
    setting("chat.max_message_count", "chat-max-message-count", "MAX_MESSAGE_COUNT", Number, Some("50"),
        "Messages of history that a model is shown"),
    setting("chat.max_history_tokens", "chat-max-history-tokens", "ENIGMA_CHAT_MAX_HISTORY_TOKENS", Number, Some("4096"),
        "Tokens of history that a model is shown, estimated as a quarter of the characters"),
    setting("chat.default_max_tokens", "chat-default-max-tokens", "ENIGMA_CHAT_DEFAULT_MAX_TOKENS", Number, Some("1024"),
        "The longest answer where the request does not say, in tokens"),
    setting("chat.max_tokens", "chat-max-tokens", "ENIGMA_CHAT_MAX_TOKENS", Number, Some("4096"),
        "The longest answer that a request can ask for, in tokens"),
    setting("chat.request_timeout_seconds", "chat-request-timeout-seconds", "ENIGMA_CHAT_REQUEST_TIMEOUT_SECONDS", Number, Some("300"),
        "How long a chat may take in all"),
    setting("chat.send_timeout_seconds", "chat-send-timeout-seconds", "ENIGMA_CHAT_SEND_TIMEOUT_SECONDS", Number, Some("20"),
        "How long a client may read nothing of its answer, to a chat or to anything else, before it counts as gone and loses its connection"),

    setting("search.prompt_tokens", "search-prompt-tokens", "ENIGMA_SEARCH_PROMPT_TOKENS", Number, Some("3000"),
        "What a question and its sources may have together, in tokens, estimated as a quarter of the characters"),
    setting("search.max_tokens", "search-max-tokens", "ENIGMA_SEARCH_MAX_TOKENS", Number, Some("512"),
        "The longest answer from documents, in tokens"),
    setting("search.rewrite_timeout_ms", "search-rewrite-timeout-ms", "ENIGMA_SEARCH_REWRITE_TIMEOUT_MS", Number, Some("2000"),
        "How long a model may take to put a question in other words; then it is searched for as it is. 0 leaves that out"),
    setting("search.follow_up_wait_ms", "search-follow-up-wait-ms", "ENIGMA_SEARCH_FOLLOW_UP_WAIT_MS", Number, Some("1000"),
        "How long an answer that is whole waits for its follow-up questions. 0 leaves them out"),
    setting("search.cache_seconds", "search-cache-seconds", "ENIGMA_SEARCH_CACHE_SECONDS", Number, Some("3600"),
        "How long an answer is kept for the same question; less, when the documents change"),

    setting("tools.timeout_seconds", "tools-timeout-seconds", "ENIGMA_TOOLS_TIMEOUT_SECONDS", Number, Some("120"),
        "How long a tool may take, where its own limit is not shorter"),
    setting("tools.audit_days", "tools-audit-days", "ENIGMA_TOOLS_AUDIT_DAYS", Number, Some("7"),
        "How long the runs of tools are kept on record, in days"),

    setting("models.first_token_timeout_seconds", "models-first-token-timeout-seconds", "ENIGMA_MODELS_FIRST_TOKEN_TIMEOUT_SECONDS", Number, Some("60"),
        "How long a model may take to begin its answer"),
    setting("models.idle_timeout_seconds", "models-idle-timeout-seconds", "ENIGMA_MODELS_IDLE_TIMEOUT_SECONDS", Number, Some("30"),
        "How long a model may be silent in the middle of its answer"),
    setting("models.max_attempts", "models-max-attempts", "ENIGMA_MODELS_MAX_ATTEMPTS", Number, Some("3"),
        "Calls of one model for one request, the first included"),
    setting("models.retry_base_delay_ms", "models-retry-base-delay-ms", "ENIGMA_MODELS_RETRY_BASE_DELAY_MS", Number, Some("250"),
        "The longest pause before the second call, in milliseconds; it doubles with each one after"),
    setting("models.retry_max_delay_ms", "models-retry-max-delay-ms", "ENIGMA_MODELS_RETRY_MAX_DELAY_MS", Number, Some("5000"),
        "The longest pause before any call, in milliseconds"),
    setting("models.breaker_failures", "models-breaker-failures", "ENIGMA_MODELS_BREAKER_FAILURES", Number, Some("5"),
        "Failures in a row after which a model of a provider is left alone"),
    setting("models.breaker_open_seconds", "models-breaker-open-seconds", "ENIGMA_MODELS_BREAKER_OPEN_SECONDS", Number, Some("20"),
        "How long it is left alone"),

    setting("providers", "providers", "ENIGMA_PROVIDERS", Toml, Some("[]"),
        "OpenAI-compatible endpoints, a list of tables; in one text a TOML array such as `[{ id = \"ollama\", base_url = \"http://127.0.0.1:11434/v1\", default = true }]`"),

    setting("ondevice.models_directory", "ondevice-models-directory", "ENIGMA_ONDEVICE_MODELS_DIRECTORY", Text, None,
        "Where weight files are. Without it `ENIGMA_MODELS_DIR`, or else `enigma/models` in the user's cache"),
    setting("ondevice.model_id", "ondevice-model-id", "ENIGMA_ONDEVICE_MODEL_ID", Text, Some("smollm2-135m-instruct"),
        "The chat model that runs in this process, or `none`"),
    setting("ondevice.embedding_model_id", "ondevice-embedding-model-id", "ENIGMA_ONDEVICE_EMBEDDING_MODEL_ID", Text, Some("none"),
        "The embedding model that runs in this process, such as `all-minilm-l6-v2`, or `none`"),
    setting("ondevice.pull", "ondevice-pull", "ENIGMA_ONDEVICE_PULL", Switch, Some("true"),
        "Whether weights that are missing are fetched at the start"),
    setting("ondevice.queue", "ondevice-queue", "ENIGMA_ONDEVICE_QUEUE", Number, Some("32"),
        "Chats that may wait for the on-device model. Further ones are refused"),
    setting("ondevice.max_conversations", "ondevice-max-conversations", "ENIGMA_ONDEVICE_MAX_CONVERSATIONS", Number, Some("4"),
        "Chats that the on-device model answers at a time"),

    setting("espeak.model_id", "espeak-model-id", "ENIGMA_ESPEAK_MODEL_ID", Text, Some("espeak-ng"),
        "What the speech engine of this machine is called as a model, or `none`. It speaks where `espeak-ng` is installed"),
    setting("espeak.program", "espeak-program", "ENIGMA_ESPEAK_PROGRAM", Text, Some("espeak-ng"),
        "The program, by its path, or by its name in `PATH`"),
    setting("espeak.voice", "espeak-voice", "ENIGMA_ESPEAK_VOICE", Text, Some("en-us"),
        "Its voice where a request names none"),
    setting("espeak.processes", "espeak-processes", "ENIGMA_ESPEAK_PROCESSES", Number, Some("2"),
        "Texts that it speaks at a time"),
    setting("espeak.queue", "espeak-queue", "ENIGMA_ESPEAK_QUEUE", Number, Some("32"),
        "Texts that may wait for it. Further ones are refused"),

    setting("log.level", "log-level", "ENIGMA_LOG_LEVEL", Text, Some("info"),
        "What is logged: `error`, `warn`, `info`, `debug` or `trace`. `DEBUG_LOGGING=true` means `debug` where neither variable nor flag say more"),
    setting("log.format", "log-format", "ENIGMA_LOG_FORMAT", Text, Some("json"),
        "How it is written: `json` or `text`"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Variables that have had their names for longer than this server, and one that is called like them.
    const OLD_NAMES: [&str; 7] = [
        "ENVIRONMENT",
        "MODEL_ID",
        "FALLBACK_MODEL_ID",
        "MAX_MESSAGE_COUNT",
        "MAX_MESSAGE_LENGTH",
        "MAX_REQUEST_BODY_SIZE",
        "MAX_DOCUMENT_BODY_SIZE",
    ];

    #[test]
    fn a_flag_and_a_variable_are_called_as_their_key() {
        for setting in SETTINGS {
            assert_eq!(setting.flag, setting.key.replace(['.', '_'], "-"));
            let regular = format!("ENIGMA_{}", setting.key.replace('.', "_").to_uppercase());
            assert!(setting.env == regular || OLD_NAMES.contains(&setting.env), "{}", setting.env);
        }
        let names: BTreeSet<_> = SETTINGS.iter().map(|setting| setting.env).collect();
        assert_eq!(names.len(), SETTINGS.len());
    }

    fn row(setting: &Setting) -> String {
        let default = match setting.default {
            Some("" | "[]") => "none".to_owned(),
            Some(default) => format!("`{default}`"),
            None => String::from("none"),
        };
        let Setting { key, env, flag, meaning, .. } = setting;
        format!("| `{key}` | `{env}` | `--{flag}` | {default} | {} |", meaning.replace('|', "\\|"))
    }

    #[test]
    fn the_guide_says_what_the_code_does() {
        let guide = include_str!("../../../docs/guides/configuration.md");
        let expected: Vec<_> = SETTINGS.iter().map(row).collect();
        let heads = |line: &&str| line.starts_with("| `") && line.contains("| `--");
        let found: Vec<_> = guide.lines().filter(heads).collect();
        assert_eq!(found, expected, "the guide's tables should read:\n{}", expected.join("\n"));
    }
}
