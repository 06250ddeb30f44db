//! Connections straight to the provider.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{self, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use thread_local::ThreadLocal;
use tokio::net::TcpStream;
use tower_service::Service;

use super::{CONNECTION_WINDOW, PING_TIMEOUT, STREAM_WINDOW, TransportOptions, USER_AGENT};
use crate::transport::{ByteStream, TransportError};

/// A pool of connections for each thread.
#[derive(Clone)]
pub(super) struct Direct {
    pools: Arc<ThreadLocal<Client<Connector, Full<Bytes>>>>,
    options: Arc<TransportOptions>,
    connector: Connector,
}

impl Direct {
    pub(super) fn new(options: &TransportOptions, tls: ClientConfig) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(options.keepalive));
        let mut tls = tls;
        // The connector writes them, and insists on that.
        tls.alpn_protocols.clear();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let connector = if options.http2_prior_knowledge {
            builder.enable_http2().wrap_connector(tcp)
        } else {
            builder.enable_all_versions().wrap_connector(tcp)
        };
        let connector = Connector { connector, limit: options.connect_timeout };
        Self { pools: Arc::default(), options: Arc::new(options.clone()), connector }
    }

    fn pool(&self) -> &Client<Connector, Full<Bytes>> {
        self.pools.get_or(|| {
            Client::builder(TokioExecutor::new())
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(self.options.pool_idle_timeout)
                .pool_max_idle_per_host(self.options.pool_max_idle_per_host)
                .http2_only(self.options.http2_prior_knowledge)
                .http2_keep_alive_interval(self.options.keepalive)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .build(self.connector.clone())
        })
    }

    pub(super) async fn send(&self, request: Request<Bytes>) -> Result<Response<ByteStream>, TransportError> {
        let mut request = request.map(Full::new);
        let agent = request.headers_mut().entry(header::USER_AGENT);
        agent.or_insert(HeaderValue::from_static(USER_AGENT));
        let response = self.pool().request(request).await.map_err(not_answered)?;
        Ok(response.map(|body| body.into_data_stream().map_err(broken).boxed()))
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Direct").field("options", &self.options).finish_non_exhaustive()
    }
}

fn not_answered(error: Error) -> TransportError {
    if is_timeout(&error) {
        TransportError::timeout(error)
    } else if error.is_connect() {
        TransportError::connect(error)
    } else {
        TransportError::broken(error)
    }
}

fn broken(error: hyper::Error) -> TransportError {
    if is_timeout(&error) { TransportError::timeout(error) } else { TransportError::broken(error) }
}

/// Whether the network was silent: while connecting, or when the peer was asked for a sign of life.
fn is_timeout(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (*error).source()).any(|error| {
        error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_timeout)
            || error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
    })
}

/// Connects within a time, TLS included.
#[derive(Clone)]
struct Connector {
    connector: HttpsConnector<HttpConnector>,
    limit: Duration,
}

type Connecting =
    Pin<Box<dyn Future<Output = Result<MaybeHttpsStream<TokioIo<TcpStream>>, Box<dyn StdError + Send + Sync>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = Box<dyn StdError + Send + Sync>;
    type Future = Connecting;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.connector.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let (connecting, limit) = (self.connector.call(uri), self.limit);
        Box::pin(async move {
            let connected = tokio::time::timeout(limit, connecting).await;
            connected.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
        })
    }
}
