//! What is left of a request's body that nobody wants to read. A refused request is answered before its body has come; if the
//! connection were then closed, a client that still sends would see it break, and perhaps never the answer.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use crate::adapters::TrackedBackground;

/// The most bytes that are taken in for nothing. A longer body ends its connection.
pub(crate) const LEFTOVER_BYTES: u64 = 8 << 20;

/// How long they may take to come.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body whose rest is taken in when it is dropped, so that the connection can go on.
pub(crate) struct LeftoverBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    body: Option<B>,
    background: TrackedBackground,
}

impl<B> LeftoverBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    pub(crate) fn new(body: B, background: TrackedBackground) -> Self {
        Self { body: Some(body), background }
    }
}

impl<B> Body for LeftoverBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            // It has ended, well or not; nothing is left.
            self.body = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for LeftoverBody<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !body.is_end_stream()) {
            self.background.track(async move {
                // Whether or not it comes to its end, the connection then knows what to do.
                let _ = tokio::time::timeout(PATIENCE, discard(body)).await;
            });
        }
    }
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut taken = 0;
    while let Some(Ok(frame)) = body.frame().await {
        taken += frame.data_ref().map_or(0, |data| data.len() as u64);
        if taken > LEFTOVER_BYTES {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::StreamBody;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Endless pieces of 1 MiB or, given a pause, one in each of them; and how many were taken.
    fn endless(
        pause: Option<Duration>,
    ) -> (impl Body<Data = Bytes, Error = Infallible> + Send + Unpin, Arc<AtomicUsize>) {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let pieces = futures_util::stream::unfold(counter, move |counter| async move {
            if let Some(pause) = pause {
                tokio::time::sleep(pause).await;
            }
            counter.fetch_add(1, Ordering::SeqCst);
            Some((Ok(Frame::data(Bytes::from(vec![0; 1 << 20]))), counter))
        });
        (StreamBody::new(Box::pin(pieces)), taken)
    }

    #[tokio::test]
    async fn the_rest_is_taken_in_up_to_a_bound() {
        let background = TrackedBackground::default();
        let (body, taken) = endless(None);
        let mut body = LeftoverBody::new(body, background.clone());
        assert!(body.frame().await.is_some());
        drop(body);
        background.wait().await;
        assert_eq!(taken.load(Ordering::SeqCst), 1 + 9, "what was read, eight more, and the one that is too many");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rest_that_does_not_come_is_given_up() {
        let background = TrackedBackground::default();
        let (body, taken) = endless(Some(Duration::from_secs(2)));
        drop(LeftoverBody::new(body, background.clone()));
        background.wait().await;
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_body_that_was_read_leaves_nothing_to_do() {
        let background = TrackedBackground::default();
        let mut body = LeftoverBody::new(http_body_util::Full::new(Bytes::from_static(b"x")), background.clone());
        while body.frame().await.is_some() {}
        drop(body);
        assert_eq!(background.running(), 0);
    }
}
