//! From the socket to the router: accepts connections, bounds them, and lets them end well.
//!
//! HTTP/1.1 only, as nothing here ends TLS: a proxy that does speaks HTTP/1.1 to what is behind it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use enigma_core::ports::Background;
use futures_util::TryFutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::adapters::TrackedBackground;
use crate::client_address::{Network, client_address};
use crate::head_deadline::{GuardedBody, HeadDeadline, Phase};
use crate::leftover::{LEFTOVER_BYTES, LeftoverBody};
use crate::slow_body::TimedBody;
use crate::workers::Workers;
use crate::write_deadline::WriteDeadline;

/// Connections that the system holds until they are accepted.
const BACKLOG: u32 = 1024;
/// The longest head of a request.
const HEAD_BYTES: usize = 32 * 1024;
/// What of a request or a response is in memory at a time, whatever the client does.
const BUFFER_BYTES: usize = 64 * 1024;
/// How long nothing is accepted after the system could not give a connection, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// An address that is taken, but does not listen yet.
pub(crate) fn reserve(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has just ended must not keep the next one from its port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Begins to listen.
pub(crate) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) router: Router,
    pub(crate) workers: Workers,
    pub(crate) background: TrackedBackground,
    pub(crate) trusted_proxies: Arc<[Network]>,
    /// How many at a time.
    pub(crate) limit: usize,
    pub(crate) header_read_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub(crate) send_timeout: Duration,
}

impl Connections {
    /// Accepts connections until `draining`. From then on the idle ones are closed, and the others after their response.
    pub(crate) async fn accept(self, listener: TcpListener, draining: CancellationToken) {
        let room = Arc::new(Semaphore::new(self.limit));
        let accepting = async {
            loop {
                // Before the accept, so that whoever is too many waits in the backlog and costs nothing here.
                let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
                match listener.accept().await {
                    Ok((stream, peer)) => {
                        let stream = stream.into_std().expect("it was registered");
                        let serving = self.clone().serve(stream, peer.ip(), permit, draining.clone());
                        self.background.track_on(serving, self.workers.next());
                    }
                    Err(error) if belongs_to_one_connection(&error) => {}
                    Err(error) => {
                        tracing::error!(%error, "cannot accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        draining.run_until_cancelled(accepting).await;
    }

    async fn serve(
        self,
        stream: std::net::TcpStream,
        peer: IpAddr,
        _permit: OwnedSemaphorePermit,
        draining: CancellationToken,
    ) {
        let stream = TcpStream::from_std(stream).expect("it can be registered");
        // Tokens are small, and each should leave at once.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let phase = Phase::new();
        let stream = WriteDeadline::new(stream, self.send_timeout);
        let stream = HeadDeadline::new(stream, phase.clone(), self.header_read_timeout);
        let tasks = self.background.clone();
        let background: Arc<dyn Background> = Arc::new(tasks.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let answering = phase.answering();
            let address = client_address(peer, request.headers(), &self.trusted_proxies);
            let is_too_long = request.body().size_hint().lower() > LEFTOVER_BYTES;
            let mut request = request.map(|body| {
                let body = TimedBody::new(body, self.body_read_timeout);
                Body::new(LeftoverBody::new(body, tasks.clone()))
            });
            request.extensions_mut().insert(address);
            request.extensions_mut().insert(Arc::clone(&background));
            let response = self.router.clone().oneshot(request);
            response.map_ok(move |mut response| {
                if is_too_long && response.status().is_client_error() {
                    // The rest will not be taken in; so the client is told, and does not use the connection again.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| GuardedBody::new(body, answering))
            })
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // The shorter limit, once a head has begun, is the stream's own.
            .header_read_timeout(self.idle_timeout.max(self.header_read_timeout))
            .max_header_size(HEAD_BYTES)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = draining.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

/// Whether only the connection that was to be accepted is lost.
fn belongs_to_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
