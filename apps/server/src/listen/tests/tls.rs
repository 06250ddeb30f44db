//! What is the same with TLS, and what comes before it.

use super::*;
use crate::tls::{Certificates, TlsFiles};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A host that speaks TLS, and what its clients believe.
fn secured(change: impl FnOnce(&mut Connections)) -> (Host, CertificateDer<'static>) {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsFiles { certificate: directory.path().join("c"), key: directory.path().join("k") };
    let made = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap();
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let tls = Certificates::load(files).unwrap().acceptor().unwrap();
    let host = start(|c| {
        c.tls = Some(tls);
        change(c);
    });
    (host, made.cert.der().clone())
}

async fn connect(host: &Host, root: &CertificateDer<'static>, protocols: &[&[u8]]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(host.address).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("x").unwrap(), stream).await.unwrap()
}

#[tokio::test]
async fn the_protocol_is_the_one_that_was_agreed_on() {
    let (host, root) = secured(|_| {});
    for protocols in [&[][..], &[b"http/1.1".as_slice()][..]] {
        let mut stream = connect(&host, &root, protocols).await;
        stream.write_all(request("/who", "").as_bytes()).await.unwrap();
        assert!(rest(stream).await.ends_with("127.0.0.1"));
    }
    let mut stream = connect(&host, &root, &[b"h2", b"http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    http2::hello(&mut stream).await;
    http2::ask(&mut stream, 1, "/who").await;
    assert_eq!(http2::body(&mut stream, 1).await, "127.0.0.1");
}

#[tokio::test]
async fn a_handshake_that_does_not_come_costs_its_connection_and_holds_up_nobody() {
    let (host, root) = secured(|_| {});
    for start in [&[][..], &[22, 3, 1, 2, 0, 1][..]] {
        let began = Instant::now();
        let mut silent = send(host.address, "").await;
        silent.write_all(start).await.unwrap();
        let mut stream = connect(&host, &root, &[]).await;
        stream.write_all(request("/who", "").as_bytes()).await.unwrap();
        assert!(rest(stream).await.ends_with("127.0.0.1"));
        rest(silent).await;
        assert!(began.elapsed() >= Duration::from_millis(150));
    }
}

#[tokio::test]
async fn time_limits_hold_inside_tls_too() {
    let (host, root) = secured(|_| {});
    let mut slow = connect(&host, &root, &[]).await;
    slow.write_all(b"GET /who HT").await.unwrap();
    let began = Instant::now();
    assert_eq!(rest(slow).await, "");
    assert!(began.elapsed() < SOON);

    let (host, root) = secured(|c| {
        c.limit = 1;
        c.send_timeout = Duration::from_millis(300);
    });
    let mut deaf = connect(&host, &root, &[]).await;
    deaf.write_all(request("/endless", "").as_bytes()).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut stream = connect(&host, &root, &[]).await;
    stream.write_all(request("/who", "").as_bytes()).await.unwrap();
    assert!(rest(stream).await.ends_with("127.0.0.1"));
}

#[tokio::test]
async fn who_does_not_speak_tls_is_not_answered() {
    let (host, _) = secured(|_| {});
    let answer = rest_bytes(send(host.address, &request("/who", "")).await).await;
    assert!(!String::from_utf8_lossy(&answer).contains("HTTP/"), "{answer:?}");
}

async fn rest_bytes(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = timeout(SOON, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
    bytes
}
