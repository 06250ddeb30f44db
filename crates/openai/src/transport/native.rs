//! The transport of native programs.

mod direct;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::{Request, Response};
use reqwest::{NoProxy, Proxy, redirect};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

use self::direct::Direct;
use super::{ByteStream, Transport, TransportError};
use crate::secret::Secret;

/// What one answer may have in flight. Answers come at the speed of a model: the default of 2 MiB would only let a provider run
/// far ahead of a slow reader.
const STREAM_WINDOW: u32 = 64 * 1024;
/// What all answers of a connection may have in flight, so that a few slow readers do not hold up the others.
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;
const PING_TIMEOUT: Duration = Duration::from_secs(10);
const USER_AGENT: &str = concat!("crispy-enigma/", env!("CARGO_PKG_VERSION"));

/// How connections are made and kept.
#[derive(Clone)]
pub struct TransportOptions {
    /// The longest time that connecting may take, TLS included.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept.
    pub pool_idle_timeout: Duration,
    /// How many unused connections to one host are kept. HTTP/2 needs one.
    pub pool_max_idle_per_host: usize,
    /// How long a connection may be silent before the peer is asked for a sign of life, by TCP and, while an answer is awaited,
    /// by HTTP/2.
    pub keepalive: Duration,
    /// Whether to speak HTTP/2 without asking: the only way to have it without TLS. With TLS the peer is asked by ALPN.
    pub http2_prior_knowledge: bool,
    /// The URL of a proxy for all but this machine. It may hold credentials. The environment is not looked at: a proxy is
    /// what was configured, or none.
    pub proxy: Option<Secret>,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            pool_idle_timeout: Duration::from_secs(60),
            pool_max_idle_per_host: 64,
            keepalive: Duration::from_secs(20),
            http2_prior_knowledge: false,
            proxy: None,
        }
    }
}

impl fmt::Debug for TransportOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportOptions")
            .field("connect_timeout", &self.connect_timeout)
            .field("http2_prior_knowledge", &self.http2_prior_knowledge)
            .field("proxy", &self.proxy)
            .finish_non_exhaustive()
    }
}

/// What is wrong with a configured transport.
#[derive(Debug, Error)]
pub enum InvalidTransport {
    /// The proxy. Its URL is not shown: it may hold credentials.
    #[error("the proxy is not a URL")]
    Proxy,
    /// TLS cannot be set up.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// A [`Transport`] over hyper: HTTP/1.1 and HTTP/2, TLS by rustls with ring, connections kept for the next request. It needs
/// a Tokio runtime. Clones, and all endpoints that are given it, share the connections; each thread has its own, so that a
/// request on a runtime of one thread never waits for another one. Through a proxy it goes by way of reqwest.
///
/// There is no timeout for an answer as a whole, and none for its first byte: the core watches those. The platform's
/// certificate authorities are trusted, which on Linux can be replaced by `SSL_CERT_FILE`.
#[derive(Debug, Clone)]
pub struct NativeTransport {
    way: Way,
}

#[derive(Debug, Clone)]
enum Way {
    Direct(Direct),
    Proxied(reqwest::Client),
}

impl NativeTransport {
    /// A transport without connections.
    ///
    /// # Errors
    /// [`InvalidTransport`].
    pub fn new(options: &TransportOptions) -> Result<Self, InvalidTransport> {
        let tls = tls(options.http2_prior_knowledge).map_err(InvalidTransport::Tls)?;
        let way = match &options.proxy {
            None => Way::Direct(Direct::new(options, tls)),
            Some(proxy) => Way::Proxied(proxied(options, tls, proxy)?),
        };
        Ok(Self { way })
    }
}

fn proxied(options: &TransportOptions, tls: ClientConfig, proxy: &Secret) -> Result<reqwest::Client, InvalidTransport> {
    let proxy = Proxy::all(proxy.expose()).map_err(|_| InvalidTransport::Proxy)?;
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(USER_AGENT)
        .redirect(redirect::Policy::none())
        .referer(false)
        .proxy(proxy.no_proxy(NoProxy::from_string("localhost,127.0.0.0/8,::1")))
        .connect_timeout(options.connect_timeout)
        .pool_idle_timeout(options.pool_idle_timeout)
        .pool_max_idle_per_host(options.pool_max_idle_per_host)
        .tcp_keepalive(options.keepalive)
        .http2_keep_alive_interval(options.keepalive)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW);
    if options.http2_prior_knowledge {
        builder = builder.http2_prior_knowledge();
    }
    // The builder's errors are about TLS and resolvers; no URL is known to it.
    builder.build().map_err(InvalidTransport::Client)
}

/// The configuration is given to the clients whole, so that no process-wide default provider has to be installed: it belongs to the
/// program, and this is a library.
fn tls(http2_only: bool) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut config = match Verifier::new(provider) {
        Ok(verifier) => builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth(),
        Err(error) => {
            // A container with nothing but this program in it can still reach a model by plain HTTP.
            tracing::warn!(%error, "no certificate authorities: endpoints with https will be refused");
            builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
        }
    };
    config.alpn_protocols = if http2_only { vec![b"h2".to_vec()] } else { vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
    Ok(config)
}

#[async_trait]
impl Transport for NativeTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<ByteStream>, TransportError> {
        let client = match &self.way {
            Way::Direct(direct) => return direct.send(request).await,
            Way::Proxied(client) => client,
        };
        let request = reqwest::Request::try_from(request).map_err(error)?;
        let mut response = client.execute(request).await.map_err(error)?;
        let (status, version) = (response.status(), response.version());
        let headers = std::mem::take(response.headers_mut());
        let mut answer = Response::new(response.bytes_stream().map_err(error).boxed());
        *answer.status_mut() = status;
        *answer.version_mut() = version;
        *answer.headers_mut() = headers;
        Ok(answer)
    }
}

fn error(error: reqwest::Error) -> TransportError {
    let error = error.without_url();
    if error.is_timeout() {
        TransportError::timeout(error)
    } else if error.is_connect() || error.is_builder() {
        TransportError::connect(error)
    } else {
        TransportError::broken(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_asks_for_http_2_first_and_needs_no_default_provider() {
        let config = tls(false).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        assert!(rustls::crypto::CryptoProvider::get_default().is_none());
    }

    #[test]
    fn a_wrong_proxy_is_refused_and_never_shown() {
        let proxy = Some(Secret::new("http://user:hunter22@[::g]"));
        let options = TransportOptions { proxy, ..TransportOptions::default() };
        let error = NativeTransport::new(&options).unwrap_err();
        assert!(matches!(error, InvalidTransport::Proxy));
        assert!(!format!("{options:?} {error:?} {error}").contains("hunter22"));
    }
}
