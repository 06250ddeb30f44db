mod http2;
mod tls;

use super::*;
use crate::sockets::{Place, Reserved};
use axum::Extension;
use axum::body::Bytes;
use axum::routing::{get, post};
use enigma_core::tenant::ClientAddress;
use futures_util::{FutureExt, stream};
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;
use tokio::time::Instant;

struct Host {
    address: SocketAddr,
    path: std::path::PathBuf,
    _directory: tempfile::TempDir,
    background: TrackedBackground,
    draining: CancellationToken,
    release: Arc<Notify>,
}

const SOON: Duration = Duration::from_secs(5);
const LARGE: usize = 1024 * 1024;

fn start(change: impl FnOnce(&mut Connections)) -> Host {
    let release = Arc::new(Notify::new());
    let wait = Arc::clone(&release);
    let router = Router::new()
        .route("/who", get(|Extension(address): Extension<ClientAddress>| async move { address.as_str().to_owned() }))
        .route("/echo", post(|body: String| async move { body }))
        .route("/slow", get(|| async move { wait.notified().map(|()| "slow").await }))
        .route("/large", get(|| async { "x".repeat(LARGE) }))
        .route(
            "/endless",
            get(|| async {
                let pieces = std::iter::repeat_with(|| Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 1024])));
                Body::from_stream(stream::iter(pieces))
            }),
        )
        .route(
            "/background",
            get(|Extension(background): Extension<Arc<dyn Background>>| async move {
                background.spawn(Box::pin(async {}));
            }),
        );
    let background = TrackedBackground::default();
    let mut connections = Connections {
        workers: Workers::here(),
        router,
        background: background.clone(),
        trusted_proxies: Arc::default(),
        tls: None,
        limit: 10,
        limit_per_address: None,
        header_read_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_secs(60),
        body_read_timeout: Duration::from_millis(200),
        send_timeout: SOON,
    };
    change(&mut connections);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s.sock");
    let places = [Place::Tcp("127.0.0.1:0".parse().unwrap()), Place::Unix(path.clone())];
    let listeners: Vec<_> = places.iter().map(|place| Reserved::new(place, 0o600).unwrap().listen().unwrap()).collect();
    let address = listeners[0].address().unwrap();
    let draining = CancellationToken::new();
    background.track(connections.accept(listeners, draining.clone()));
    Host { address, path, background, draining, release, _directory: directory }
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn rest(mut stream: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut text)).await.expect("the connection ends");
    String::from_utf8(text).unwrap()
}

fn proxies(network: &str) -> TrustedProxies {
    TrustedProxies { networks: vec![network.parse().unwrap()], unix: false }
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n{headers}connection: close\r\n\r\n")
}

#[tokio::test]
async fn the_client_is_the_peer_and_spoofed_headers_are_ignored() {
    let host = start(|_| {});
    let answer = rest(send(host.address, &request("/who", "x-forwarded-for: 203.0.113.9\r\n")).await).await;
    assert!(answer.ends_with("127.0.0.1"), "{answer}");

    let behind_proxy = start(|c| c.trusted_proxies = Arc::new(proxies("127.0.0.1")));
    let headers = "x-forwarded-for: 1.1.1.1, 203.0.113.9\r\n";
    let answer = rest(send(behind_proxy.address, &request("/who", headers)).await).await;
    assert!(answer.ends_with("203.0.113.9"), "{answer}");
}

#[tokio::test]
async fn work_of_a_request_can_outlive_it() {
    let host = start(|_| {});
    let answer = rest(send(host.address, &request("/background", "")).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_come_costs_the_connection() {
    let host = start(|_| {});
    for start in ["", "GET /who HT"] {
        let began = Instant::now();
        rest(send(host.address, start).await).await;
        assert!(began.elapsed() >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn between_two_requests_a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let host = start(|_| {});
    let mut stream = send(host.address, "GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    sleep(Duration::from_millis(400)).await;
    stream.write_all(request("/who", "").as_bytes()).await.unwrap();
    let answers = rest(stream).await;
    assert_eq!(answers.matches("127.0.0.1").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_connection_that_stays_idle_is_closed() {
    let host = start(|c| c.idle_timeout = Duration::from_millis(300));
    let began = Instant::now();
    let answer = rest(send(host.address, "GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await).await;
    assert!(answer.ends_with("127.0.0.1") && began.elapsed() >= Duration::from_millis(250), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_costs_the_connection() {
    let host = start(|_| {});
    let answer = rest(send(host.address, "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx").await).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let host = start(|_| {});
    let answer =
        rest(send(host.address, &request("/who", &format!("x: {}\r\n", "x".repeat(HEAD_BYTES as usize)))).await).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn further_connections_wait_until_one_ends() {
    let host = start(|c| c.limit = 1);
    let first = send(host.address, &request("/slow", "")).await;
    sleep(Duration::from_millis(50)).await;
    let second = tokio::task::LocalSet::new();
    let waiting = second.run_until(async {
        let answer = rest(send(host.address, &request("/who", "")).await).boxed_local();
        let mut answer = pin!(answer);
        assert!(timeout(Duration::from_millis(300), answer.as_mut()).await.is_err(), "it waits");
        host.release.notify_one();
        answer.await
    });
    assert!(waiting.await.ends_with("127.0.0.1"));
    assert!(rest(first).await.ends_with("slow"));
}

#[tokio::test]
async fn a_client_that_reads_nothing_loses_its_place() {
    // More than the system's buffers take, so that a write has to wait for the client.
    let pipelined = "GET /large HTTP/1.1\r\nhost: x\r\n\r\n".repeat(64);
    for asked in [pipelined, request("/endless", "")] {
        let host = start(|c| {
            c.limit = 1;
            // Only the deadline for writing can end it.
            c.header_read_timeout = Duration::from_secs(60);
            c.send_timeout = Duration::from_millis(300);
        });
        let began = Instant::now();
        let deaf = send(host.address, &asked).await;
        let answer = rest(send(host.address, &request("/who", "")).await).await;
        assert!(answer.ends_with("127.0.0.1") && began.elapsed() >= Duration::from_millis(250), "{answer}");
        assert!(rest(deaf).await.len() < 64 * LARGE, "what is left is not sent");
    }
}

#[tokio::test]
async fn draining_closes_idle_connections_and_lets_the_others_finish() {
    let host = start(|c| c.header_read_timeout = SOON);
    let mut idle = send(host.address, "GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let busy = send(host.address, "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(idle.read(&mut [0; 1024]).await.unwrap() > 0);
    sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    host.draining.cancel();
    assert_eq!(rest(idle).await, "");
    assert!(began.elapsed() < LAST_HEAD);
    sleep(Duration::from_millis(100)).await;
    let late = TcpStream::connect(host.address).await;
    assert!(late.is_err(), "nothing is accepted any more");
    assert!(host.background.wait().now_or_never().is_none());
    host.release.notify_one();
    let answer = rest(busy).await;
    assert!(answer.contains("\r\nconnection: close\r\n") && answer.ends_with("slow"), "{answer}");
    timeout(SOON, host.background.wait()).await.unwrap();
}

#[tokio::test]
async fn who_connected_just_before_the_end_is_answered() {
    let host = start(|c| c.header_read_timeout = SOON);
    let (mut late, silent) = (send(host.address, "").await, send(host.address, "GET /who HT").await);
    sleep(Duration::from_millis(100)).await;
    host.draining.cancel();
    sleep(Duration::from_millis(300)).await;
    late.write_all(b"GET /who HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let answer = rest(late).await;
    assert!(answer.contains("connection: close") && answer.ends_with("127.0.0.1"), "{answer}");
    assert_eq!(rest(silent).await, "");
    timeout(SOON, host.background.wait()).await.unwrap();
}

#[tokio::test]
async fn who_waits_in_the_backlog_at_the_end_is_answered() {
    let host = start(|_| {});
    // Nothing else runs between these, so that the system has accepted them and the server has not.
    let waiting: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(host.address).unwrap()).collect();
    host.draining.cancel();
    for stream in waiting {
        stream.set_nonblocking(true).unwrap();
        let mut stream = TcpStream::from_std(stream).unwrap();
        stream.write_all(request("/who", "").as_bytes()).await.unwrap();
        assert!(rest(stream).await.ends_with("127.0.0.1"));
    }
}

#[tokio::test]
async fn a_socket_in_the_file_system_is_served_alike() {
    let host = start(|_| {});
    let ask = async |path: &std::path::Path, text: &str| {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        rest(stream).await
    };
    let forwarded = request("/who", "x-forwarded-for: 203.0.113.9\r\n");
    assert!(ask(&host.path, &forwarded).await.ends_with("\r\n\r\nunix"));
    let began = Instant::now();
    assert_eq!(ask(&host.path, "GET /who HT").await, "");
    assert!(began.elapsed() >= Duration::from_millis(150));

    let trusting = start(|c| c.trusted_proxies = Arc::new(TrustedProxies { networks: vec![], unix: true }));
    assert!(ask(&trusting.path, &forwarded).await.ends_with("203.0.113.9"));
}

#[tokio::test]
async fn one_address_cannot_take_every_connection() {
    let full = |c: &mut Connections| c.limit_per_address = Some(AddressLimit::new(2));
    let host = start(full);
    let busy = [send(host.address, &request("/slow", "")).await, send(host.address, &request("/slow", "")).await];
    sleep(Duration::from_millis(100)).await;
    assert_eq!(rest(send(host.address, "").await).await, "", "closed without an answer");
    // Not by their address, and so not by anybody's.
    let mut unix = UnixStream::connect(&host.path).await.unwrap();
    unix.write_all(request("/who", "").as_bytes()).await.unwrap();
    assert!(rest(unix).await.ends_with("unix"));
    for stream in busy {
        host.release.notify_one();
        assert!(rest(stream).await.ends_with("slow"));
    }
    sleep(Duration::from_millis(100)).await;
    assert!(rest(send(host.address, &request("/who", "")).await).await.ends_with("127.0.0.1"));

    let host = start(|c| {
        full(c);
        c.trusted_proxies = Arc::new(proxies("127.0.0.0/8"));
    });
    let _busy = [send(host.address, "").await, send(host.address, "").await];
    assert!(
        rest(send(host.address, &request("/who", "")).await).await.ends_with("127.0.0.1"),
        "a proxy is many clients"
    );
}

#[tokio::test]
async fn a_request_with_too_many_headers_is_refused() {
    let host = start(|_| {});
    let headers = "x: y\r\n".repeat(200);
    let answer = rest(send(host.address, &request("/who", &headers)).await).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}
