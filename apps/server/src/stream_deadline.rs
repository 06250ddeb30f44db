//! How long a client may take nothing of one answer among others. HTTP/2 gives each stream a window of its own: a client can let
//! one stand still while the connection goes on, which the deadline for writing does not see. The HTTP library then waits in the
//! stream's task, and asks the answer for nothing more; so the task itself is given up.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::time::Sleep;

use crate::adapters::TrackedBackground;

tokio::task_local! {
    /// That of the task that serves a stream.
    static PROGRESS: Progress;
}

/// How often a piece of the answer was given out and asked for. Odd while a piece was given out and nothing was asked for since.
#[derive(Clone, Default)]
struct Progress(Arc<AtomicUsize>);

impl Progress {
    fn is_sending(count: usize) -> bool {
        count % 2 == 1
    }
}

/// Runs the tasks that serve the streams of HTTP/2.
#[derive(Clone)]
pub(crate) struct StreamTasks {
    pub(crate) background: TrackedBackground,
    /// How long a client may take nothing of an answer.
    pub(crate) limit: Duration,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for StreamTasks {
    fn execute(&self, stream: F) {
        self.background.track(bounded(stream, self.limit));
    }
}

/// The task, given up when its answer stands still for too long.
async fn bounded(stream: impl Future<Output = ()>, limit: Duration) {
    let progress = Progress::default();
    let mut stream = pin!(PROGRESS.scope(progress.clone(), stream));
    let mut waiting: Option<(usize, Pin<Box<Sleep>>)> = None;
    poll_fn(|context| {
        if stream.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        let count = progress.0.load(Ordering::Relaxed);
        if !Progress::is_sending(count) {
            waiting = None;
            return Poll::Pending;
        }
        if waiting.as_ref().is_none_or(|(since, _)| *since != count) {
            waiting = Some((count, Box::pin(tokio::time::sleep(limit))));
        }
        waiting.as_mut().map_or(Poll::Pending, |(_, deadline)| deadline.as_mut().poll(context))
    })
    .await;
}

/// An answer's body that notes when something of it was taken.
pub(crate) struct NotedBody<B> {
    body: B,
    progress: Option<Progress>,
}

impl<B> NotedBody<B> {
    /// Notes it for the task that this is called in, if that one serves a stream of HTTP/2.
    pub(crate) fn new(body: B) -> Self {
        Self { body, progress: PROGRESS.try_with(Clone::clone).ok() }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for NotedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Some(Progress(count)) = &self.progress {
            let given = matches!(frame, Poll::Ready(Some(Ok(_))));
            let before = count.load(Ordering::Relaxed);
            // To the next number that says what is so now.
            let step = if Progress::is_sending(before) == given { 2 } else { 1 };
            count.store(before.wrapping_add(step), Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use http_body_util::{BodyExt, StreamBody};
    use std::convert::Infallible;
    use tokio::time::{Instant, sleep};

    const LIMIT: Duration = Duration::from_secs(10);

    fn body(pause: Duration) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
        let pieces = stream::unfold((), move |()| async move {
            sleep(pause).await;
            Some((Ok(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        NotedBody::new(StreamBody::new(Box::pin(pieces)))
    }

    /// How long a task lives whose answer has a piece after each `making`, and whose client takes one after each `taking`.
    async fn life(making: Duration, taking: Duration, pieces: usize) -> Duration {
        let began = Instant::now();
        let task = async {
            let mut body = body(making);
            for _ in 0..pieces {
                body.frame().await;
                sleep(taking).await;
            }
        };
        bounded(task, LIMIT).await;
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_takes_is_given_up() {
        assert_eq!(life(Duration::ZERO, LIMIT * 100, 1).await, LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_slow_to_come_or_to_go_is_not() {
        assert!(life(LIMIT * 3, Duration::ZERO, 5).await > LIMIT * 14);
        assert!(life(Duration::ZERO, LIMIT * 9 / 10, 5).await > LIMIT * 4);
    }

    #[tokio::test(start_paused = true)]
    async fn outside_of_such_a_task_nothing_is_noted() {
        assert!(NotedBody::new(axum::body::Body::empty()).progress.is_none());
    }
}
