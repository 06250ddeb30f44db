//! How long the head of a request may take, apart from how long a connection may be idle before it. The HTTP library knows
//! one limit for both; but a head that trickles is an attack, and a connection that waits is a proxy's pool, which must not
//! find it closed at the moment it is used.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Nothing of the next request has come.
const IDLE: u8 = 0;
/// Something has come, and not yet its whole head.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;

/// Where a connection is. It begins as if a head had begun: whoever connects has something to ask.
#[derive(Debug, Clone)]
pub(crate) struct Phase(Arc<AtomicU8>);

impl Phase {
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicU8::new(HEAD)))
    }

    /// A head was read whole. Until the guard is dropped nothing is expected of the client.
    pub(crate) fn answering(&self) -> Answering {
        self.0.store(BUSY, Ordering::Relaxed);
        Answering(self.clone())
    }

    fn is_head(&self) -> bool {
        self.0.load(Ordering::Relaxed) == HEAD
    }

    fn bytes_came(&self) {
        // Those that come while a request is answered are its body, or wait until the answer is out.
        let _ = self.0.compare_exchange(IDLE, HEAD, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(crate) struct Answering(Phase);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.0.store(IDLE, Ordering::Relaxed);
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
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
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
}
