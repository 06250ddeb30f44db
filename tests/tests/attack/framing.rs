//! Requests that two programs could read as two different ones (request smuggling), and floods of what surrounds a body.

use std::fmt::Write as _;
use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::raw;
use enigma_conformance::tenant::key_of;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{ATTACKER, Stage, VICTIM};

/// After this much silence nothing more comes.
const SILENCE: Duration = Duration::from_millis(700);

/// What it is, headers, and what follows them.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

/// A chat that would be seen if it were carried out.
fn hidden(stage: &Stage, tag: &str) -> String {
    let body = json!({ "sessionId": session(), "message": tag, "stream": false }).to_string();
    stage.head("/chat", &[("content-length", &body.len().to_string())]) + &body
}

/// Length and encoding contradict each other, or are said twice, or in a way that not everybody understands.
#[tokio::test]
async fn a_request_within_a_request_is_never_carried_out() {
    let (stage, tag) = (Stage::new(), tag());
    let inner = hidden(&stage, &tag);
    let ended = format!("0\r\n\r\n{inner}");
    let chunked = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let (all, four, inside) = (ended.len().to_string(), "4".to_owned(), inner.len().to_string());
    let more = (inner.len() + 1).to_string();
    let te = ("transfer-encoding", "chunked");
    let cases: [Case<'_>; 21] = [
        ("length, then chunked", vec![("content-length", &all), te], &ended),
        ("chunked, then length", vec![te, ("content-length", &all)], &ended),
        ("a length in the chunks", vec![("content-length", &four), te], &chunked),
        ("chunked, and not", vec![te, ("transfer-encoding", "identity")], &ended),
        ("not last", vec![("transfer-encoding", "chunked, identity")], &ended),
        ("an unknown encoding", vec![("content-length", &all), ("transfer-encoding", "xchunked")], &ended),
        ("a vertical tab", vec![("content-length", &all), ("transfer-encoding", "\x0bchunked")], &ended),
        ("a space before the colon", vec![("content-length", &all), ("transfer-encoding ", "chunked")], &ended),
        ("a folded line", vec![("content-length", &all), ("transfer-encoding", "\r\n chunked")], &ended),
        ("a bare line feed", vec![("content-length", "0"), ("x", "y\ntransfer-encoding: chunked\n")], &ended),
        ("a bare return", vec![("content-length", "0"), ("x", "y\rcontent-length: 0")], &inner),
        ("two lengths", vec![("content-length", "0"), ("content-length", &inside)], &inner),
        ("two lengths, the other way", vec![("content-length", &inside), ("content-length", "0")], &inner),
        ("two lengths in one", vec![("content-length", "0, 5")], &inner),
        ("a signed length", vec![("content-length", "+0")], &inner),
        ("a negative length", vec![("content-length", "-1")], &inner),
        ("a hexadecimal length", vec![("content-length", "0x0")], &inner),
        ("no length at all", vec![("content-length", "")], &inner),
        ("more than there can be", vec![("content-length", "18446744073709551616")], &inner),
        ("a length of letters", vec![("content-length", "0a")], &inner),
        ("more than comes", vec![("content-length", &more)], &inner),
    ];
    for (what, headers, body) in cases {
        let request = stage.head("/chat", &headers) + body;
        let (read, ended) = raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE).await;
        let statuses = raw::statuses(&read);
        // The one that is short waits for its rest; the others are refused, once.
        if what == "more than comes" {
            assert!(statuses.is_empty() && !ended, "{what}: {read}");
        } else {
            assert!(matches!(statuses[..], [400..=499]) && ended, "{what}: {ended} {read}");
        }
        assert!(stage.upstream.calls(&tag).is_empty(), "{what}: the hidden request was carried out");
    }
    stage.end().await;
}

/// A body belongs to its request, also where none is expected.
#[tokio::test]
async fn a_body_that_nobody_reads_is_no_request() {
    let (stage, tag) = (Stage::new(), tag());
    let inner = hidden(&stage, &tag);
    let key = key_of(ATTACKER);
    let length = inner.len().to_string();
    for (method, path) in
        [("GET", "/health"), ("GET", "/healthz"), ("DELETE", "/health"), ("GET", "/nothing"), ("HEAD", "/health")]
    {
        let headers = [("x-api-key", &*key), ("content-length", &*length)];
        let request = raw::head(&stage.server.base_url, method, path, &headers) + &inner;
        let (read, _) = raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE).await;
        assert_eq!(raw::statuses(&read).len(), 1, "{method} {path}: {read}");
        assert!(stage.upstream.calls(&tag).is_empty(), "{method} {path}: the body was carried out");
    }
    stage.end().await;
}

/// Chunks that are no chunks, and what some parsers take for one.
#[tokio::test]
async fn chunks_are_read_strictly() {
    let (stage, tag) = (Stage::new(), tag());
    let body = json!({ "sessionId": session(), "message": tag, "stream": false }).to_string();
    let size = format!("{:x}", body.len());
    let head = stage.head("/chat", &[("transfer-encoding", "chunked")]);
    let padding = "x".repeat(200);
    // A byte in a chunk, with much beside it.
    let flood: String = body.chars().fold(String::new(), |flood, c| flood + &format!("1;{padding}\r\n{c}\r\n"));
    let trailers = "x-more: trailers\r\n".repeat(2000);
    for (what, chunks) in [
        ("a size that overflows", format!("1{size:0>16}\r\n{body}\r\n0\r\n\r\n")),
        ("a size with a prefix", format!("0x{size}\r\n{body}\r\n0\r\n\r\n")),
        ("a negative size", format!("-{size}\r\n{body}\r\n0\r\n\r\n")),
        ("line feeds alone", format!("{size}\n{body}\n0\n\n")),
        ("a line feed in an extension", format!("{size};a\nb\r\n{body}\r\n0\r\n\r\n")),
        ("no end of a chunk", format!("{size}\r\n{body}XX0\r\n\r\n")),
        ("a flood of extensions", format!("{flood}0\r\n\r\n")),
        ("a flood of trailers", format!("{size}\r\n{body}\r\n0\r\n{trailers}\r\n")),
    ] {
        let (read, ended) = raw::converse(&stage.server.base_url, (head.clone() + &chunks).as_bytes(), SILENCE).await;
        assert!(matches!(raw::statuses(&read)[..], [400..=499]) && ended, "{what}: {ended} {read}");
        assert!(stage.upstream.calls(&tag).is_empty(), "{what}: it was carried out");
    }
    // Trailers are no headers: who asks has been said before.
    let trailers = format!("x-api-key: {}\r\nx-tenant-id: {VICTIM}\r\n", key_of(VICTIM));
    let request = format!("{head}{size}\r\n{body}\r\n0\r\n{trailers}\r\n");
    let (status, read) = raw::exchange(&stage.server.base_url, request.as_bytes()).await;
    assert_eq!(status, 200, "{read}");
    assert!(read.contains(&format!("x-tenant-id: {ATTACKER}\r\n")), "{read}");
    stage.end().await;
}

/// A client that goes in the middle, or hands in half a request and waits.
#[tokio::test]
async fn half_a_request_is_none() {
    let (stage, tag) = (Stage::new(), tag());
    let body = json!({ "sessionId": session(), "message": tag, "stream": false }).to_string();
    let sized = stage.head("/chat", &[("content-length", &(body.len() + 10).to_string())]) + &body;
    let chunked = stage.head("/chat", &[("transfer-encoding", "chunked")]) + &format!("{:x}\r\n{body}\r\n", body.len());
    for request in [sized.as_str(), &chunked, &sized[..40]] {
        let mut stream = raw::connect(&stage.server.base_url).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut read = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut read)).await;
        assert!(ended.is_ok(), "the connection stays open");
        assert!(!String::from_utf8_lossy(&read).contains(" 200 "), "{}", String::from_utf8_lossy(&read));
    }
    assert!(stage.upstream.calls(&tag).is_empty());
    stage.end().await;
}

/// Other protocols, and other versions of this one.
#[tokio::test]
async fn other_protocols_get_nothing() {
    let stage = Stage::new();
    let key = key_of(ATTACKER);
    let with = |line: &str, more: &str| format!("{line}\r\nhost: x\r\nx-api-key: {key}\r\n{more}\r\n");
    for (what, request) in [
        ("HTTP/2 by prior knowledge", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_owned()),
        ("HTTP/0.9", "GET /health\r\n".to_owned()),
        ("a version of its own", with("GET /health HTTP/1.9", "")),
        ("chunks in HTTP/1.0", with("POST /chat HTTP/1.0", "transfer-encoding: chunked\r\n")),
        ("a tunnel", with(&format!("CONNECT {VICTIM}.test:443 HTTP/1.1"), "")),
        ("TLS", "\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned()),
        ("a name that is no token", with("GET /health HTTP/1.1", "x y: z\r\n")),
        ("no name", with("GET /health HTTP/1.1", ": z\r\n")),
        ("a null in a value", with("GET /health HTTP/1.1", "x: a\0b\r\n")),
    ] {
        let (read, _) = raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE).await;
        assert!(matches!(raw::statuses(&read)[..], [] | [400..=499]), "{what}: {read}");
    }
    // An upgrade is not taken up: the request is answered as if nobody had asked for one.
    let upgrade = with(
        "GET /health HTTP/1.1",
        "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n",
    );
    let (status, read) = raw::exchange(&stage.server.base_url, upgrade.as_bytes()).await;
    assert_eq!(status, 200, "{read}");
    stage.end().await;
}

/// Hundreds of requests at once on each of many connections.
#[tokio::test]
async fn a_flood_of_pipelined_requests_is_answered_in_order() {
    const CONNECTIONS: usize = 40;
    const REQUESTS: usize = 100;
    let stage = Stage::new();
    let mut request = String::new();
    for n in 0..REQUESTS {
        write!(request, "GET /nothing-{n} HTTP/1.1\r\nhost: x\r\nx-trace-id: flood-{n}\r\n\r\n").unwrap();
    }
    let floods =
        (0..CONNECTIONS).map(async |_| raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE * 3).await);
    for (read, _) in futures_util::future::join_all(floods).await {
        assert_eq!(raw::statuses(&read), vec![404; REQUESTS]);
        let mut rest = read.as_str();
        for n in 0..REQUESTS {
            let wanted = format!("x-trace-id: flood-{n}\r\n");
            rest =
                rest.split_once(&wanted).unwrap_or_else(|| panic!("no answer to request {n}, or not in its place")).1;
        }
    }
    stage.end().await;
}

/// More headers, longer ones, and longer paths than any client has.
#[tokio::test]
async fn floods_of_headers_are_refused() {
    let stage = Stage::new();
    let key = key_of(ATTACKER);
    let request =
        |path: &str, headers: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n{headers}\r\n");
    let many = |count: usize| (0..count).fold(String::new(), |many, n| many + &format!("x-{n}: y\r\n"));
    let (status, read) = raw::exchange(&stage.server.base_url, request("/health", &many(90)).as_bytes()).await;
    assert_eq!(status, 200, "{read}");
    let long = "x".repeat(40_000);
    for (what, request) in [
        ("many", request("/health", &many(150))),
        ("very many", request("/health", &many(20_000))),
        ("a long one", request("/health", &format!("x: {long}\r\n"))),
        ("a long name", request("/health", &format!("{long}: x\r\n"))),
        ("a long path", request(&format!("/{long}"), "")),
        ("a long method", request("/health", "").replacen("GET", &long, 1)),
    ] {
        let (read, ended) = raw::converse(&stage.server.base_url, request.as_bytes(), SILENCE).await;
        assert!(matches!(raw::statuses(&read)[..], [400..=499]) && ended, "{what}: {ended} {read}");
    }
    stage.end().await;
}
