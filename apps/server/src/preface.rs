//! Which version of HTTP a client speaks, where nothing has been agreed on before: HTTP/2 begins with bytes that are no request
//! of HTTP/1 (RFC 9113, section 3.4).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is read at first: most often a request's whole head, so that looking costs no read more.
const FIRST_BYTES: usize = 1024;

/// A stream some of which was read already.
pub(crate) struct Begun<S> {
    start: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> Begun<S> {
    /// A stream of which nothing was read.
    pub(crate) fn untouched(stream: S) -> Self {
        Self { start: Bytes::new(), stream }
    }

    /// Reads until it is clear whether the client speaks HTTP/2.
    ///
    /// # Errors
    /// When nothing can be read.
    pub(crate) async fn look(mut stream: S) -> io::Result<(Self, bool)> {
        let mut start = Vec::with_capacity(FIRST_BYTES);
        loop {
            let read = stream.read_buf(&mut start).await?;
            let is_preface = PREFACE.iter().zip(&start).all(|(expected, byte)| expected == byte);
            if !is_preface || read == 0 || start.len() >= PREFACE.len() {
                let is_http2 = is_preface && start.len() >= PREFACE.len();
                return Ok((Self { start: start.into(), stream }, is_http2));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.start.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let length = buffer.remaining().min(self.start.len());
        buffer.put_slice(&self.start.split_to(length));
        if self.start.is_empty() {
            // An empty rest would keep the whole of what was read for as long as the connection lasts.
            self.start = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
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
    use tokio::io::{AsyncWriteExt, duplex};

    /// What a client turns out to speak, and what is read of it, when its bytes come in pieces.
    async fn look(bytes: &[u8], piece: usize) -> (bool, Vec<u8>) {
        let (mut client, server) = duplex(piece);
        let sending = async move { client.write_all(bytes).await.unwrap() };
        let reading = async {
            let (mut begun, is_http2) = Begun::look(server).await.unwrap();
            let mut read = Vec::new();
            begun.read_to_end(&mut read).await.unwrap();
            (is_http2, read)
        };
        tokio::join!(sending, reading).1
    }

    #[tokio::test]
    async fn only_the_whole_preface_is_http_2_and_nothing_is_lost() {
        let http2 = [PREFACE, b"frames"].concat();
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".as_slice();
        for size in [1, 7, 100] {
            assert_eq!(look(&http2, size).await, (true, http2.clone()));
            for http1 in [request, b"", b"P", b"POST / HTTP/1.1\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"] {
                assert_eq!(look(http1, size).await, (false, http1.to_vec()));
            }
        }
    }
}
