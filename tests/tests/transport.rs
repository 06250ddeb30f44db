//! How bytes come and go: versions of HTTP, TLS, sockets in the file system, compression, and what limits connections.

#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::tenant::key_of;
use enigma_conformance::upstream::{PATIENCE, words};
use enigma_conformance::{Api, ServerConfig, Tenant, Upstream, raw};
use http::{Method, Version};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

fn directory() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

fn config(upstream: &Upstream) -> ServerConfig {
    ServerConfig::new().upstream(&upstream.base_url()).tenant(&Tenant::new("acme"))
}

/// The same with TLS, and the certificate.
fn secured(upstream: &Upstream, directory: &Arc<TempDir>) -> (ServerConfig, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let certificate = made.cert.pem();
    let config = config(upstream)
        .set("tls.certificate_file", write("cert.pem", &certificate))
        .set("tls.key_file", write("key.pem", &made.signing_key.serialize_pem()))
        .stored_in(directory);
    (config, certificate)
}

/// A whole chat and a streamed one.
async fn chats(api: &Api, version: Version) {
    let reply = api.begin(Method::GET, "/healthz", None).await.unwrap();
    assert_eq!((reply.status, reply.version), (200, version));
    let session = session();
    api.chat(&session, "[[tokens 3]]").await.ok();
    let finished = api.chat_stream(&session, "[[tokens 5]]").await.finish().await;
    assert_eq!((finished.text, finished.error), (words(5), None));
    assert_eq!(api.history(&session).await.ok()["messages"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn http_2_is_agreed_on_within_tls_and_http_1_for_whoever_knows_no_other() {
    let (upstream, directory) = (Upstream::start(), directory());
    let (config, certificate) = secured(&upstream, &directory);
    let server = config.start();
    let key = key_of("acme");
    chats(&Api::trusting(&server.base_url, &certificate).with("x-api-key", &key), Version::HTTP_2).await;
    chats(&Api::trusting_http1(&server.base_url, &certificate).with("x-api-key", &key), Version::HTTP_11).await;
}

#[tokio::test]
async fn http_2_is_spoken_without_tls_to_whoever_begins_with_it() {
    let upstream = Upstream::start();
    let tenant = Tenant::new("many").with("concurrency", json!({ "maxStreams": 200 }));
    let server = config(&upstream).tenant(&tenant).start();
    let api = Api::http2(&server.base_url).with("x-api-key", &key_of("many"));
    chats(&api, Version::HTTP_2).await;
    // Many at a time, and one that waits does not hold up the others.
    let tag = tag();
    let mut waiting = api.chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    let many = (0..100).map(|_| async { api.chat(&session(), "[[tokens 3]]").await.ok() });
    futures_util::future::join_all(many).await;
    assert_eq!(waiting.text().await, words(1));
    upstream.open(&tag);
    assert_eq!(waiting.finish().await.text, words(2));
}

/// There is no header `host` in HTTP/2; a request has its authority.
#[tokio::test]
async fn a_tenant_is_told_by_the_authority_of_http_2() {
    let upstream = Upstream::start();
    let tenant = Tenant::new("host").open().with("allowedHosts", json!(["127.0.0.1"]));
    let server = config(&upstream).tenant(&tenant).start();
    let api = Api::http2(&server.base_url);
    api.chat(&session(), "[[tokens 3]]").await.ok();
    api.with("x-api-key", &key_of("acme")).chat(&session(), "hello").await.error(403, "tenant_mismatch");
}

#[tokio::test]
async fn the_end_lets_streams_of_http_2_finish() {
    let (upstream, tag) = (Upstream::start(), tag());
    let mut server = config(&upstream).set("server.shutdown_grace_seconds", 20).start();
    let api = Api::http2(&server.base_url).with("x-api-key", &key_of("acme"));
    let mut reply = api.chat_stream(&session(), &format!("[[tokens 1]][[gate {tag}]][[tokens 2]]")).await;
    assert_eq!(reply.text().await, words(1));
    let idle = Api::http2(&server.base_url);
    idle.get("/healthz").await.ok();
    server.terminate();
    let end = Instant::now() + PATIENCE;
    while TcpStream::connect(raw::authority(&server.base_url)).await.is_ok() {
        assert!(Instant::now() < end, "it still accepts connections");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    upstream.open(&tag);
    let finished = reply.finish().await;
    assert_eq!((finished.text, finished.error), (words(2), None));
    assert!(server.ended(Duration::from_secs(10)).success());
}

#[tokio::test]
async fn a_client_of_http_2_that_goes_ends_its_answer() {
    let upstream = Upstream::start();
    let server = config(&upstream).start();
    let api = Api::http2(&server.base_url).with("x-api-key", &key_of("acme"));
    let tag = tag();
    let mut reply = api.chat_stream(&session(), &format!("{tag}[[tokens 1]][[hang]]")).await;
    assert_eq!(reply.text().await, words(1));
    // The stream is reset, and the connection goes on.
    drop(reply);
    upstream.cancelled(&tag).await;
    api.chat(&session(), "[[tokens 3]]").await.ok();
}

#[tokio::test]
async fn several_places_at_once_and_one_of_them_in_the_file_system() {
    let (upstream, directory) = (Upstream::start(), directory());
    let path = directory.path().join("enigma.sock");
    // Of a server that was killed.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let tenant =
        Tenant::new("open").open().with("rateLimit", json!({ "perMinute": 2, "tenant": { "perMinute": 100 } }));
    let listen = format!("127.0.0.1:0, unix:{}", path.display());
    let start = |proxies: &[&str]| {
        config(&upstream)
            .tenant(&tenant)
            .set("server.listen", listen.clone())
            .set("server.socket_mode", "600")
            .set("server.trusted_proxies", json!(proxies))
            .start()
    };
    let asked = async |forwarded: &str| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let body = json!({ "sessionId": session(), "message": "hello", "stream": false }).to_string();
        let request = format!(
            "POST /chat HTTP/1.1\r\nhost: x\r\nx-tenant-id: open\r\nx-forwarded-for: {forwarded}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        raw::status(&answer)
    };
    let mut server = start(&[]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    server.tenant("acme").chat(&session(), "hello").await.ok();
    // Whoever they say they are, they are one.
    assert_eq!([asked("203.0.113.1").await, asked("203.0.113.2").await, asked("203.0.113.3").await], [200, 200, 429]);
    server.terminate();
    assert!(server.ended(Duration::from_secs(10)).success());
    assert!(!path.exists(), "it goes with its server");

    let server = start(&["unix"]);
    assert_eq!([asked("203.0.113.1").await, asked("203.0.113.1").await, asked("203.0.113.1").await], [200, 200, 429]);
    assert_eq!(asked("203.0.113.2").await, 200);
    let second = config(&upstream).set("server.listen", format!("unix:{}", path.display()));
    let (status, said) = second.refused();
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("cannot listen on unix:"), "{said}");
    drop(server);
}

#[tokio::test]
async fn answers_are_compressed_where_that_is_asked_for_and_streams_never() {
    let upstream = Upstream::start();
    let compressed = async |on: bool| {
        let server = config(&upstream).set("server.compression", on).start();
        let api = server.tenant("acme").with("accept-encoding", "gzip");
        let document = api.begin(Method::GET, "/openapi.json", None).await.unwrap();
        let encoding = document.headers.get("content-encoding").cloned();
        let bytes = document.bytes().await.unwrap();
        assert_eq!(bytes.starts_with(&[0x1f, 0x8b]), on);
        let mut stream = api.chat_stream(&session(), "[[tokens 400]]").await;
        assert!(stream.headers.get("content-encoding").is_none());
        assert!(!stream.text().await.is_empty());
        let health = api.begin(Method::GET, "/healthz", None).await.unwrap();
        assert!(health.headers.get("content-encoding").is_none(), "too short");
        encoding
    };
    assert_eq!(compressed(true).await.unwrap(), "gzip");
    assert_eq!(compressed(false).await, None);
}

#[tokio::test]
async fn one_address_has_a_limit_of_its_own() {
    let upstream = Upstream::start();
    let server = config(&upstream).set("server.max_connections_per_address", 2).start();
    let address = raw::authority(&server.base_url).to_owned();
    let held = [TcpStream::connect(&address).await.unwrap(), TcpStream::connect(&address).await.unwrap()];
    // They are accepted in the order in which they were made.
    let mut third = TcpStream::connect(&address).await.unwrap();
    let read = timeout(PATIENCE, third.read(&mut [0; 1])).await.expect("it is closed");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    drop(held);
    let end = Instant::now() + PATIENCE;
    while Api::new(&server.base_url).begin(Method::GET, "/healthz", None).await.is_err() {
        assert!(Instant::now() < end, "the places are not free again");
    }
}

#[tokio::test]
async fn a_handshake_has_a_time_limit_and_holds_up_nobody() {
    let (upstream, directory) = (Upstream::start(), directory());
    let (config, certificate) = secured(&upstream, &directory);
    let server = config.set("server.header_read_timeout_seconds", 1).start();
    let address = server.base_url.strip_prefix("https://").unwrap();
    let began = Instant::now();
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..50 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    Api::trusting(&server.base_url, &certificate).get("/healthz").await.ok();
    assert!(began.elapsed() < Duration::from_secs(1), "it waited for them");
    for mut stream in silent {
        let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await.expect("it is closed");
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
}
