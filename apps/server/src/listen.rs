//! From the socket to the router: accepts connections, bounds them, and lets them end well.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use enigma_core::ports::Background;
use futures_util::TryFutureExt;
use http::header::CONNECTION;
use http::{HeaderMap, HeaderValue, Request};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::adapters::TrackedBackground;
use crate::address_limit::{AddressLimit, Place};
use crate::client_address::{TrustedProxies, client_address};
use crate::head_deadline::{GuardedBody, HeadDeadline, Phase};
use crate::leftover::{LEFTOVER_BYTES, LeftoverBody};
use crate::preface::Begun;
use crate::slow_body::TimedBody;
use crate::sockets::Listener;
use crate::stream::{Detached, Stream};
use crate::stream_deadline::{NotedBody, StreamTasks};
use crate::workers::Workers;
use crate::write_deadline::WriteDeadline;

/// The longest head of a request.
const HEAD_BYTES: u32 = 32 * 1024;
/// What of a request or a response is in memory at a time, whatever the client does. With HTTP/2 for each stream.
const BUFFER_BYTES: u32 = 64 * 1024;
/// The same for all requests of a connection of HTTP/2 together.
const CONNECTION_BYTES: u32 = 4 * BUFFER_BYTES;
/// Requests at a time on a connection of HTTP/2.
const STREAMS: u32 = 200;
/// Streams that a client has reset before they were looked at, after which it loses its connection (CVE-2023-44487).
const RESET_STREAMS: usize = 20;
/// Streams that a client has made this end reset, after which it loses its connection (CVE-2025-8671).
const WRONGED_STREAMS: usize = 256;
/// How often a client of HTTP/2 is asked whether it is there, and how long it may take to say so.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long nothing is accepted after the system could not give a connection, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long, at the end, connections are still accepted: the system has let them in already.
const LAST_ACCEPT: Duration = Duration::from_millis(100);
/// How long, at the end, a connection that has asked nothing yet may take to do so: it may have been made just before.
const LAST_HEAD: Duration = Duration::from_secs(1);
/// What a client that takes nothing of its answers is sent at most while it is waited for: pings, and little else.
const NO_PROGRESS_BYTES: u64 = 512;

/// What every connection is served with.
#[derive(Clone)]
pub(crate) struct Connections {
    pub(crate) router: Router,
    pub(crate) workers: Workers,
    pub(crate) background: TrackedBackground,
    pub(crate) trusted_proxies: Arc<TrustedProxies>,
    /// Ends the TLS of connections from the network.
    pub(crate) tls: Option<TlsAcceptor>,
    /// How many at a time.
    pub(crate) limit: usize,
    /// How many of one client, less those of trusted proxies.
    pub(crate) limit_per_address: Option<AddressLimit>,
    pub(crate) header_read_timeout: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) body_read_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub(crate) send_timeout: Duration,
}

impl Connections {
    /// Accepts connections until `draining`. From then on the idle ones are closed, and the others after their response.
    pub(crate) async fn accept(self, listeners: Vec<Listener>, draining: CancellationToken) {
        let room = Arc::new(Semaphore::new(self.limit));
        draining.run_until_cancelled(self.accept_from(&listeners, &room, &draining)).await;
        // What waits in the system's backlog would be lost with the socket, unless somebody else has that too.
        let own: Vec<_> = listeners.into_iter().filter(|listener| !listener.is_inherited()).collect();
        if !own.is_empty() {
            let _ = timeout(LAST_ACCEPT, self.accept_from(&own, &room, &draining)).await;
        }
    }

    /// Accepts connections without end.
    async fn accept_from(&self, listeners: &[Listener], room: &Arc<Semaphore>, draining: &CancellationToken) {
        let mut turn = 0_usize;
        loop {
            // Before the accept, so that whoever is too many waits in the backlog and costs nothing here.
            let permit = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
            // Each time another one is asked first, so that none waits for ever.
            turn = turn.wrapping_add(1) % listeners.len();
            let accepted = poll_fn(|context| {
                let mut each = listeners[turn..].iter().chain(&listeners[..turn]);
                each.find_map(|listener| match listener.poll_accept(context) {
                    Poll::Ready(accepted) => Some(Poll::Ready(accepted)),
                    Poll::Pending => None,
                })
                .unwrap_or(Poll::Pending)
            });
            match accepted.await {
                Ok((stream, peer)) => self.admit(stream, peer, permit, draining),
                Err(error) if belongs_to_one_connection(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves a connection, unless its client has too many.
    fn admit(&self, stream: Stream, peer: Option<IpAddr>, permit: OwnedSemaphorePermit, draining: &CancellationToken) {
        let counted = peer.filter(|peer| !self.trusted_proxies.contain(Some(*peer)));
        let place = self.limit_per_address.as_ref().zip(counted).map(|(limit, peer)| limit.take(peer));
        if let Some(None) = place {
            tracing::debug!(?peer, "too many connections from one client");
            return;
        }
        let place = place.flatten();
        match stream.detach() {
            Ok(stream) => {
                let serving = self.clone().serve(stream, peer, (permit, place), draining.clone());
                self.background.track_on(serving, self.workers.next());
            }
            Err(error) => tracing::debug!(%error, "connection was lost"),
        }
    }

    async fn serve(
        self,
        stream: Detached,
        peer: Option<IpAddr>,
        _places: (OwnedSemaphorePermit, Option<Place>),
        draining: CancellationToken,
    ) {
        let phase = Phase::new();
        let begun = tokio::select! {
            begun = async { self.begin(stream.attach()?, &phase).await } => begun,
            () = async {
                draining.cancelled().await;
                sleep(LAST_HEAD).await;
            } => return,
        };
        let (stream, is_http2) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                tracing::debug!(%error, "connection did not begin");
                return;
            }
        };
        let tasks = StreamTasks { background: self.background.clone(), limit: self.send_timeout };
        let closing = Closing {
            phase: phase.clone(),
            draining,
            idle_timeout: self.idle_timeout,
            send_timeout: self.send_timeout,
        };
        let header_read_timeout = self.idle_timeout.max(self.header_read_timeout);
        let background: Arc<dyn Background> = Arc::new(self.background.clone());
        // Whoever is no proxy speaks for itself alone, and has the same address in every request.
        let is_proxy = self.trusted_proxies.contain(peer);
        let own_address = client_address(peer, &HeaderMap::new(), &self.trusted_proxies);
        let service = service_fn(move |request: Request<Incoming>| {
            let answering = phase.answering();
            let address = if is_proxy {
                client_address(peer, request.headers(), &self.trusted_proxies)
            } else {
                own_address.clone()
            };
            // A stream of HTTP/2 ends without its connection.
            let is_too_long = !is_http2 && request.body().size_hint().lower() > LEFTOVER_BYTES;
            let mut request = request.map(|body| {
                let body = TimedBody::new(body, self.body_read_timeout);
                Body::new(LeftoverBody::new(body, self.background.clone()))
            });
            request.extensions_mut().insert(address);
            request.extensions_mut().insert(Arc::clone(&background));
            let response = self.router.clone().oneshot(request);
            response.map_ok(move |mut response| {
                let is_last = !is_http2 && answering.is_last();
                // What a refused client still sends will not be taken in.
                if is_last || (is_too_long && response.status().is_client_error()) {
                    // So the client is told, and does not use the connection again.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
                response.map(|body| NotedBody::new(GuardedBody::new(body, answering)))
            })
        });
        let stream = TokioIo::new(stream);
        if is_http2 {
            let connection = http2::Builder::new(tasks)
                .timer(TokioTimer::new())
                .max_header_list_size(HEAD_BYTES)
                .max_concurrent_streams(STREAMS)
                .max_pending_accept_reset_streams(RESET_STREAMS)
                .max_local_error_reset_streams(WRONGED_STREAMS)
                .initial_stream_window_size(BUFFER_BYTES)
                .initial_connection_window_size(CONNECTION_BYTES)
                .max_send_buf_size(BUFFER_BYTES as usize)
                .keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_EVERY)
                .serve_connection(stream, service);
            closing.serve(connection).await;
        } else {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                // The shorter limit, once a head has begun, is the stream's own.
                .header_read_timeout(header_read_timeout)
                .max_header_size(HEAD_BYTES as usize)
                .max_buf_size(BUFFER_BYTES as usize)
                .serve_connection(stream, service);
            closing.serve(connection).await;
        }
    }

    /// Whatever comes before the first request: TLS, and finding out whether HTTP/2 is spoken.
    async fn begin(&self, stream: Stream, phase: &Phase) -> io::Result<(Begun<Guarded>, bool)> {
        let guarded = |stream| {
            let stream = WriteDeadline::new(stream, self.send_timeout);
            HeadDeadline::new(stream, phase.clone(), self.header_read_timeout)
        };
        let (stream, is_http2) = match stream {
            Stream::Tcp(stream) => {
                // Tokens are small, and each should leave at once.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
                match &self.tls {
                    Some(tls) => {
                        let stream = timeout(self.header_read_timeout, tls.accept(stream)).await??;
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        (Begun::untouched(guarded(Stream::Tls(Box::new(stream)))), is_http2)
                    }
                    None => Begun::look(guarded(Stream::Tcp(stream))).await?,
                }
            }
            other => Begun::look(guarded(other)).await?,
        };
        if is_http2 {
            phase.speaks_http2();
        }
        Ok((stream, is_http2))
    }
}

/// A connection with its deadlines.
type Guarded = HeadDeadline<WriteDeadline<Stream>>;

/// When and how a connection is closed.
struct Closing {
    phase: Phase,
    draining: CancellationToken,
    idle_timeout: Duration,
    send_timeout: Duration,
}

impl Closing {
    async fn serve(self, connection: impl GracefulConnection<Error = hyper::Error>) {
        let mut connection = pin!(connection);
        if self.draining.is_cancelled() {
            self.phase.last_answers();
        }
        // The connection first, each time: what has come is read before it is decided that nothing comes.
        tokio::select! {
            biased;
            ended = connection.as_mut() => return report(ended),
            () = self.draining.cancelled() => self.phase.last_answers(),
            () = self.phase.idle_for(self.idle_timeout) => {}
        }
        tokio::select! {
            biased;
            ended = connection.as_mut() => return report(ended),
            () = self.phase.past_head(LAST_HEAD) => {}
        }
        // Says so in the answer that is under way, or in a frame of its own.
        connection.as_mut().graceful_shutdown();
        loop {
            let before = self.phase.written();
            tokio::select! {
                biased;
                ended = connection.as_mut() => return report(ended),
                () = sleep(self.send_timeout) => {}
            }
            if self.phase.is_quiet() && self.phase.written() - before < NO_PROGRESS_BYTES {
                tracing::debug!("connection did not close in time");
                return;
            }
        }
    }
}

fn report(ended: Result<(), hyper::Error>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Whether only the connection that was to be accepted is lost.
fn belongs_to_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests;
