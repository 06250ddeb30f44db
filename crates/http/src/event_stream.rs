//! Event streams: a reply's events as server-sent events, with a sign of life in silence.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use enigma_core::Timestamp;
use enigma_core::chat::{ChatEvent, ChatEvents};
use enigma_core::ports::Clock;
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};

/// With how many bytes a chunk is long enough, in which events go out together.
const MOST_AT_ONCE: usize = 4096;

/// Turns the events of a reply into the text of a stream.
pub(crate) trait Render: Send + 'static {
    /// Writes what `event` looks like on the wire; nothing, if clients of this route are not told of it.
    fn render(&mut self, event: ChatEvent, out: &mut String);
}

/// A response that streams `events` as they come, and adds a comment after each `keep_alive` of silence.
pub(crate) fn event_stream(
    events: ChatEvents,
    render: impl Render,
    clock: &Arc<dyn Clock>,
    keep_alive: Duration,
    mut headers: HeaderMap,
) -> Response {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    let stream = EventStream {
        events,
        render: Box::new(render),
        alarm: clock.sleep(keep_alive),
        spoke_at: clock.now(),
        clock: Arc::clone(clock),
        keep_alive,
    };
    let mut response = Response::new(Body::from_stream(stream));
    *response.headers_mut() = headers;
    response
}

struct EventStream {
    events: ChatEvents,
    render: Box<dyn Render>,
    /// Rings once in `keep_alive` and is then set anew for what is left since the last event: a timer per event would cost more
    /// than the event.
    alarm: BoxFuture<'static, ()>,
    spoke_at: Timestamp,
    clock: Arc<dyn Clock>,
    keep_alive: Duration,
}

// Nothing in it is pinned in place.
impl Unpin for EventStream {}

impl Stream for EventStream {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut text = String::new();
        // All that is there goes out together: each chunk costs more than its events.
        while text.len() < MOST_AT_ONCE
            && let Poll::Ready(event) = Pin::new(&mut self.events).poll_next(context)
        {
            match event {
                Some(event) => self.render.render(event, &mut text),
                None if text.is_empty() => return Poll::Ready(None),
                None => break,
            }
        }
        if !text.is_empty() {
            self.spoke_at = self.clock.now();
            return Poll::Ready(Some(Ok(text.into())));
        }
        loop {
            ready!(self.alarm.as_mut().poll(context));
            let now = self.clock.now();
            let silence = now.since(self.spoke_at);
            let due = silence >= self.keep_alive;
            let pause = if due { self.keep_alive } else { self.keep_alive.saturating_sub(silence) };
            self.alarm = self.clock.sleep(pause);
            if due {
                self.spoke_at = now;
                // The new alarm must be polled before the next one is awaited; the reader asks again after this chunk.
                return Poll::Ready(Some(Ok(Bytes::from_static(b": keep-alive\n\n"))));
            }
        }
    }
}
