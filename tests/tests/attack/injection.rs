//! Text that wants to be something else: a header, a line of the log, another character.

use bytes::Bytes;
use enigma_conformance::client::{session, tag};
use enigma_conformance::tenant::{hash, key_of};
use enigma_conformance::{Api, raw};
use http::Method;
use serde_json::json;

use crate::{ATTACKER, Stage, VICTIM, lines};

/// What every forged line says.
const FORGED: &str = "forged";

/// Texts that would end a field, a line or a header, where somebody forgot to escape them.
fn breakouts() -> Vec<String> {
    vec![
        format!("a\",\"{FORGED}\":\"yes"),
        format!("a\"}}\n{{\"level\":\"ERROR\",\"{FORGED}\":\"yes\"}}"),
        format!("a\r\n{FORGED}: yes"),
        format!("a\r\n\r\n<script>{FORGED}</script>"),
        format!("a\u{2028}{FORGED}\u{2029}"),
        format!("a\u{85}{FORGED}"),
        format!("\u{1b}[2K\u{1b}[1A\u{1b}[31m{FORGED}\u{7}"),
        format!("a\\\",\\\"{FORGED}\\\":\\\"yes"),
        format!("a\\n{FORGED}"),
        format!("a%0d%0a{FORGED}:%20yes"),
        format!("a\0{FORGED}"),
        format!("{{}}{{0}}%s%n${{jndi:ldap://{FORGED}}}"),
        format!("\u{202e}{FORGED}"),
    ]
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02x}"))
}

/// Says `text` wherever a request has room for it.
async fn say_everywhere(stage: &Stage, text: &str) {
    let api = stage.attacker();
    let body = |fields: serde_json::Value| {
        let mut body = json!({ "sessionId": session(), "message": "x", "stream": false });
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    for fields in [
        json!({ "message": text }),
        json!({ "userId": text }),
        json!({ "modelId": text }),
        json!({ "sessionId": text }),
        json!({ "tool_name": text }),
        json!({ text: text }),
        // The provider's failure is logged, with the name of the model.
        json!({ "modelId": text.replace(|c: char| !c.is_ascii_graphic(), ""), "message": "[[status 500]]" }),
    ] {
        let answer = api.post("/chat", &body(fields)).await;
        assert!(!answer.headers.contains_key(FORGED), "{answer:?}");
    }
    api.complete(text, &json!({ "model": text, "user": text, "tools": [{ "type": text }], "tool_choice": text })).await;
    let path = encoded(text);
    for path in [
        format!("/{path}"),
        format!("/sessions/{path}/history"),
        format!("/v1/models/{path}"),
        format!("/sessions?userId={path}&cursor={path}"),
    ] {
        let answer = api.get(&path).await;
        assert!(!answer.headers.contains_key(FORGED), "{answer:?}");
    }
    // By hand, as no client sends such headers.
    for name in [
        "x-trace-id",
        "traceparent",
        "x-tenant-id",
        "x-user-id",
        "x-session-id",
        "idempotency-key",
        "user-agent",
        "origin",
        "x-forwarded-for",
        "host",
        "content-type",
        "accept",
        "cookie",
        "x-request-id",
    ] {
        let key = key_of(ATTACKER);
        let request =
            format!("GET /health HTTP/1.1\r\nx-api-key: {key}\r\n{name}: {text}\r\nconnection: close\r\n\r\n");
        let (status, read) = raw::exchange(&stage.server.base_url, request.as_bytes()).await;
        let head = read.split("\r\n\r\n").next().unwrap_or_default();
        assert!(!head.contains(FORGED), "{status} {name}: {read}");
    }
}

/// No text becomes a header, in no answer.
#[tokio::test]
async fn no_text_becomes_a_header_or_a_line_of_the_log() {
    for format in ["json", "text"] {
        let stage = Stage::with(|config| config.set("log.format", format).set("log.level", "trace"));
        for text in breakouts() {
            say_everywhere(&stage, &text).await;
        }
        let token = format!("{FORGED}!#$%&'*+-.^_`|~");
        let key = key_of(ATTACKER);
        let request =
            raw::head(&stage.server.base_url, &token, "/health", &[("x-api-key", &key), ("connection", "close")]);
        let (status, read) = raw::exchange(&stage.server.base_url, request.as_bytes()).await;
        assert_eq!(status, 405, "{read}");

        let log = stage.end().await;
        assert!(log.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{format}: control characters");
        assert!(!log.contains(['\u{85}', '\u{2028}', '\u{2029}', '\u{202e}']), "{format}: separators");
        if format == "text" {
            // Each line begins with its time, so none was begun by somebody else.
            let is_ours = |line: &str| line.starts_with("20") && line.contains('Z');
            let other = log.lines().find(|line| !is_ours(line));
            assert!(other.is_none(), "{other:?}");
            continue;
        }
        let entries = lines(&log);
        assert!(entries.len() > 100, "the attack was not logged");
        for entry in entries {
            let object = entry.as_object().unwrap();
            assert!(!object.contains_key(FORGED) && entry["span"].get(FORGED).is_none(), "{entry}");
            assert!(!entry["span"]["method"].to_string().contains(FORGED), "{entry}");
            assert!(entry["level"].is_string() && entry["timestamp"].is_string(), "{entry}");
        }
    }
}

/// Bytes that are no text.
#[tokio::test]
async fn bodies_that_are_no_text_are_refused() {
    let (stage, tag) = (Stage::new(), tag());
    let id = session();
    let around = |bytes: &[u8]| {
        [format!("{{\"sessionId\":\"{id}\",\"stream\":false,\"message\":\"{tag}").as_bytes(), bytes, b"\"}"].concat()
    };
    let valid = around("\u{1f600} e\u{301} \u{202e} \u{feff}".as_bytes());
    for (what, body) in [
        ("a lone continuation", around(b"\x80")),
        ("a byte that is never one", around(b"\xff")),
        ("an overlong slash", around(b"\xc0\xaf")),
        ("an overlong null", around(b"\xe0\x80\x80")),
        ("half a surrogate pair", around(b"\xed\xa0\x80")),
        ("beyond Unicode", around(b"\xf4\x90\x80\x80")),
        ("a character that is cut", around(b"\xf0\x9f\x98")),
        ("a control character", around(b"\n")),
        ("a null", around(b"\0")),
        ("half an escape", around(b"\\ud83d")),
        ("an escape of nothing", around(b"\\x41")),
        ("UTF-16", valid.iter().flat_map(|byte| [*byte, 0]).collect()),
        ("a mark before it", [b"\xef\xbb\xbf", &valid[..]].concat()),
        ("two of them", [&valid[..], &valid].concat()),
        ("a comment after it", [&valid[..], b" // x"].concat()),
        ("nothing", Vec::new()),
    ] {
        for path in ["/chat", "/v1/chat/completions"] {
            let answer =
                stage.attacker().send(Method::POST, path, Some(("application/json", body.clone().into()))).await;
            assert!(answer.status == 400 && answer.text.contains("invalid_json"), "{what}: {answer:?}");
        }
    }
    assert!(stage.upstream.calls(&tag).is_empty());
    stage.attacker().send(Method::POST, "/chat", Some(("application/json", Bytes::from(valid)))).await.ok();
    stage.end().await;
}

/// Credentials in all the wrong places, and what was said. `process.rs` does the same for the right places.
#[tokio::test]
async fn secrets_in_wrong_places_are_not_in_the_log() {
    const GUESSED: &str = "guessed-secret-2718";
    let stage = Stage::with(|config| config.set("log.level", "trace"));
    let (key, said) = (key_of(VICTIM), tag());
    let api = Api::new(&stage.server.base_url);
    for secret in [&*key, GUESSED, &*said] {
        for path in [
            format!("/health?api_key={secret}"),
            format!("/{secret}"),
            format!("/sessions/{secret}/history"),
            format!("/sessions?cursor={secret}"),
        ] {
            assert!(api.get(&path).await.status >= 400, "{path}");
        }
        for (name, value) in [
            ("x-tenant-id", secret.to_owned()),
            ("authorization", format!("Basic {secret}")),
            ("authorization", format!("Bearer {secret}.{secret}.{secret}")),
            ("cookie", format!("key={secret}")),
            ("x-user-id", secret.to_owned()),
            ("idempotency-key", secret.to_owned()),
            ("user-agent", secret.to_owned()),
            ("referer", format!("http://x/?key={secret}")),
            ("traceparent", secret.to_owned()),
            ("x-trace-id", format!("key {secret}")),
            ("content-type", secret.to_owned()),
        ] {
            api.with(name, &value).get("/health").await;
            // A model of its own: its failures open its breaker, and not the neighbour's.
            let failing = json!({
                "sessionId": session(), "message": format!("{secret} [[status 500]]"), "stream": false, "modelId": "failing",
            });
            stage.attacker().with(name, &value).post("/chat", &failing).await;
        }
        let user =
            json!({ "sessionId": session(), "message": said, "stream": false, "modelId": "other", "userId": secret });
        stage.attacker().post("/chat", &user).await.ok();
        let raw_key = format!("GET /health HTTP/1.1\r\nhost: {secret}\r\nx-api-key: {secret}\0\r\n\r\n");
        raw::exchange(&stage.server.base_url, raw_key.as_bytes()).await;
    }
    let log = stage.end().await;
    assert!(lines(&log).len() > 50);
    for (what, secret) in
        [("key", &*key), ("guess", GUESSED), ("text", &*said), ("hash", hash(&key).trim_start_matches("sha256:"))]
    {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "the {what} is in the log: {line:?}");
    }
}
