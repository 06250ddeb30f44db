//! How long a peer may take nothing of what it is sent. One that asks and does not read would keep its connection, and its
//! place among them, for ever otherwise: once its buffers are full nothing more is read from it either, so that no deadline
//! for what it sends can reach it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// A stream whose writes fail when none of them gets on for too long. A peer that reads slowly, but reads, is left alone.
pub(crate) struct WriteDeadline<S> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits for the peer.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    /// The stream, of which the peer must take something within `limit` whenever there is something for it.
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None }
    }

    /// The outcome of a write, unless it has waited for too long. The write is tried first, so that whoever has read at the
    /// last moment, or while this process slept, has read in time.
    fn bound<T>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.deadline = None;
            return outcome;
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bound(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bound(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bound(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufWriter, DuplexStream, duplex};
    use tokio::time::{Instant, sleep};

    const LIMIT: Duration = Duration::from_secs(10);
    const ROOM: usize = 64;

    /// The peer, and a stream to it that has no room left.
    async fn full() -> (DuplexStream, WriteDeadline<DuplexStream>) {
        let (peer, server) = duplex(ROOM);
        let mut server = WriteDeadline::new(server, LIMIT);
        server.write_all(&[0; ROOM]).await.unwrap();
        (peer, server)
    }

    /// The same with bytes that wait for a flush.
    async fn unflushed() -> (DuplexStream, WriteDeadline<BufWriter<DuplexStream>>) {
        let (peer, mut server) = duplex(ROOM);
        server.write_all(&[0; ROOM]).await.unwrap();
        let mut server = WriteDeadline::new(BufWriter::new(server), LIMIT);
        server.write_all(b"x").await.unwrap();
        (peer, server)
    }

    /// Expects that a write is given up when the limit is over.
    async fn times_out<T>(write: impl Future<Output = io::Result<T>>) {
        let began = Instant::now();
        let error = tokio::time::timeout(LIMIT * 10, write).await.expect("it ends").err().expect("it fails");
        assert_eq!((error.kind(), began.elapsed()), (io::ErrorKind::TimedOut, LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn every_kind_of_write_to_a_peer_that_does_not_read_is_given_up() {
        let (_peer, mut server) = full().await;
        times_out(server.write(b"x")).await;
        let (_peer, mut server) = full().await;
        times_out(server.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")])).await;
        let (_peer, mut server) = unflushed().await;
        times_out(server.flush()).await;
        let (_peer, mut server) = unflushed().await;
        times_out(server.shutdown()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn whatever_the_peer_reads_begins_the_time_anew() {
        let (mut peer, mut server) = full().await;
        let began = Instant::now();
        let reading = async {
            for _ in 0..5 {
                sleep(LIMIT * 9 / 10).await;
                peer.read_u8().await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(server.write_all(b"12345"), reading);
        written.unwrap();
        assert!(began.elapsed() > LIMIT * 4);
        times_out(server.write(b"6")).await;
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_is_written_no_time_runs() {
        let (mut peer, mut server) = full().await;
        sleep(LIMIT * 10).await;
        times_out(server.write(b"x")).await;
        peer.read_u8().await.unwrap();
        server.write_all(b"x").await.unwrap();
    }
}
