//! How long the head of a request may take, apart from how long a connection may be idle before it. The HTTP library knows
//! one limit for both, and for HTTP/2 none; but a head that trickles is an attack, and a connection that waits is a proxy's
//! pool, which must not find it closed at the moment it is used.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Nothing of the next request has come.
const IDLE: usize = 0;
/// Something has come, and not yet its whole head. Any other number is how many requests are being answered.
const HEAD: usize = usize::MAX;

/// Into how many parts the time is cut that a connection of HTTP/2 may be idle. It is closed at most one of them late.
const IDLE_PARTS: u32 = 4;

/// Where a connection is. It begins as if a head had begun: whoever connects has something to ask.
#[derive(Debug, Clone)]
pub(crate) struct Phase(Arc<State>);

#[derive(Debug)]
struct State {
    now: AtomicUsize,
    /// Whether requests come in frames among others. Then bytes that come while nothing is answered need not be a head.
    is_http2: AtomicBool,
    /// Requests so far, of HTTP/2.
    begun: AtomicUsize,
    /// Bytes so far, to the client.
    written: AtomicU64,
    /// Whether the connection is closed when what is being answered has been.
    closing: AtomicBool,
}

impl Phase {
    pub(crate) fn new() -> Self {
        let state = State {
            now: AtomicUsize::new(HEAD),
            is_http2: AtomicBool::new(false),
            begun: AtomicUsize::new(0),
            written: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        };
        Self(Arc::new(state))
    }

    /// The client speaks HTTP/2.
    pub(crate) fn speaks_http2(&self) {
        self.0.is_http2.store(true, Ordering::Relaxed);
    }

    /// A head was read whole. Until the guard is dropped nothing is expected of the client.
    pub(crate) fn answering(&self) -> Answering {
        if self.is_http2() {
            self.0.begun.fetch_add(1, Ordering::Relaxed);
        }
        let next = |now| Some(if now == HEAD { 1 } else { now + 1 });
        let _ = self.0.now.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        Answering(self.clone())
    }

    /// The connection is closed when what is being answered has been.
    pub(crate) fn last_answers(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
    }

    /// Waits until no head is being read, for at most `limit`. It has to be waited for in the task that reads, after the reading.
    pub(crate) async fn past_head(&self, limit: Duration) {
        let mut deadline = pin!(tokio::time::sleep(limit));
        poll_fn(|context| if self.is_head() { deadline.as_mut().poll(context) } else { Poll::Ready(()) }).await;
    }

    /// Waits until a connection of HTTP/2 has been idle for `limit`. With HTTP/1 the HTTP library sees to that.
    pub(crate) async fn idle_for(&self, limit: Duration) {
        if !self.is_http2() {
            std::future::pending::<()>().await;
        }
        let (mut idle, mut before) = (0, self.0.begun.load(Ordering::Relaxed));
        // Found idle once, it may have become so just before.
        while idle <= IDLE_PARTS {
            tokio::time::sleep(limit / IDLE_PARTS).await;
            let begun = self.0.begun.load(Ordering::Relaxed);
            idle = if begun == before && self.0.now.load(Ordering::Relaxed) == IDLE { idle + 1 } else { 0 };
            before = begun;
        }
    }

    /// Whether nothing is being answered.
    pub(crate) fn is_quiet(&self) -> bool {
        matches!(self.0.now.load(Ordering::Relaxed), IDLE | HEAD)
    }

    /// How many bytes the client was sent.
    pub(crate) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    fn is_http2(&self) -> bool {
        self.0.is_http2.load(Ordering::Relaxed)
    }

    fn is_head(&self) -> bool {
        self.0.now.load(Ordering::Relaxed) == HEAD
    }

    fn bytes_came(&self) {
        // Those that come while a request is answered are its body, or wait until the answer is out.
        if !self.is_http2() {
            let _ = self.0.now.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn bytes_went(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.0.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering(Phase);

impl Answering {
    /// Whether the connection is closed afterwards.
    pub(crate) fn is_last(&self) -> bool {
        self.0.0.closing.load(Ordering::Relaxed)
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body, with the guard that ends with it.
pub(crate) struct GuardedBody<B> {
    body: B,
    _guard: Answering,
}

impl<B> GuardedBody<B> {
    pub(crate) fn new(body: B, guard: Answering) -> Self {
        Self { body, _guard: guard }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for GuardedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream whose reads fail when a head takes too long.
pub(crate) struct HeadDeadline<S> {
    stream: S,
    phase: Phase,
    limit: Duration,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> HeadDeadline<S> {
    pub(crate) fn new(stream: S, phase: Phase, limit: Duration) -> Self {
        Self { stream, phase, limit, deadline: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.phase.is_head() {
            let limit = self.limit;
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            if deadline.as_mut().poll(context).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        } else {
            self.deadline = None;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.phase.bytes_came();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.phase.bytes_went(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.phase.bytes_went(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(10);
    const LONG: Duration = Duration::from_secs(1000);

    fn connection() -> (DuplexStream, HeadDeadline<DuplexStream>, Phase) {
        let (client, server) = duplex(64);
        let phase = Phase::new();
        (client, HeadDeadline::new(server, phase.clone(), LIMIT), phase)
    }

    async fn read(stream: &mut HeadDeadline<DuplexStream>) -> Result<usize, io::ErrorKind> {
        let read = tokio::time::timeout(LONG, stream.read(&mut [0; 64])).await;
        read.unwrap_or(Ok(0)).map_err(|error| error.kind())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_is_given_up() {
        let (_client, mut server, _) = connection();
        let before = Instant::now();
        assert_eq!(read(&mut server).await, Err(io::ErrorKind::TimedOut));
        assert_eq!(before.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_trickle_do_not_begin_the_time_anew() {
        let (mut client, mut server, _) = connection();
        let before = Instant::now();
        let trickle = async {
            loop {
                client.write_all(b"x").await.unwrap();
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
        };
        let reading = async { while read(&mut server).await.is_ok() {} };
        tokio::select! { () = trickle => {}, () = reading => {} }
        assert_eq!(before.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_request_is_answered_and_between_two_there_is_no_hurry() {
        let (mut client, mut server, phase) = connection();
        client.write_all(b"head").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(4));
        let answering = phase.answering();
        client.write_all(b"body").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(4));
        assert_eq!(read(&mut server).await, Ok(0), "nothing came, and no time was up");
        drop(answering);
        assert_eq!(read(&mut server).await, Ok(0), "nothing came, and no time was up");

        client.write_all(b"next").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(4));
        assert_eq!(read(&mut server).await, Err(io::ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_requests_the_last_one_ends_the_hurry_and_frames_begin_no_head() {
        let (mut client, mut server, phase) = connection();
        phase.speaks_http2();
        let answering = [phase.answering(), phase.answering()];
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(4));
        assert!(!phase.is_quiet());
        drop(answering);
        assert!(phase.is_quiet());
        client.write_all(b"ping").await.unwrap();
        assert_eq!(read(&mut server).await, Ok(4));
        assert_eq!(read(&mut server).await, Ok(0), "no time was up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_of_http_2_is_idle_once_nothing_was_asked_for_that_long() {
        let phase = Phase::new();
        phase.speaks_http2();
        let before = Instant::now();
        let asking = async {
            for _ in 0..3 {
                let answering = phase.answering();
                tokio::time::sleep(LIMIT * 2).await;
                drop(answering);
                tokio::time::sleep(LIMIT / 2).await;
            }
        };
        tokio::join!(asking, phase.idle_for(LIMIT));
        let asked = LIMIT * 7;
        let took = before.elapsed();
        assert!(took >= asked + LIMIT && took <= asked + LIMIT * 5 / 4, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_under_way_is_waited_for_a_while() {
        let (mut client, mut server, phase) = connection();
        let before = Instant::now();
        phase.past_head(LIMIT).await;
        assert_eq!(before.elapsed(), LIMIT);
        client.write_all(b"head").await.unwrap();
        read(&mut server).await.unwrap();
        let _answering = phase.answering();
        phase.past_head(LIMIT).await;
        assert_eq!(before.elapsed(), LIMIT);
    }
}
