//! Event streams: a reply's events as server-sent events, with a sign of life in silence.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use enigma_core::ports::Clock;
use enigma_core::{Events, Timestamp};
use futures_util::Stream;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, header};
use serde::Serialize;

/// With how many bytes a chunk is long enough, in which events go out together.
const MOST_AT_ONCE: usize = 4096;

/// Turns the events of a reply into the text of a stream.
pub(crate) trait Render<E>: Send + 'static {
    /// Writes what `event` looks like on the wire; nothing, if clients of this route are not told of it.
    fn render(&mut self, event: E, out: &mut String);
}

/// A response that streams `events` as they come, and adds a comment after each `keep_alive` of silence.
pub(crate) fn event_stream<E: Send + 'static>(
    events: Events<E>,
    render: impl Render<E>,
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

/// Writes one event.
pub(crate) fn write_event<T: Serialize>(out: &mut String, head: &str, data: &T) {
    out.push_str(head);
    out.push_str("data: ");
    out.push_str(&serde_json::to_string(data).expect("wire types have text keys only, so they are JSON"));
    out.push_str("\n\n");
}

/// Whether a client asks for an event stream.
pub(crate) fn wants_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let essences =
        values.flat_map(|value| value.split(',')).map(|part| part.split(';').next().unwrap_or_default().trim());
    essences.into_iter().any(|essence| essence.eq_ignore_ascii_case("text/event-stream"))
}

struct EventStream<E> {
    events: Events<E>,
    render: Box<dyn Render<E>>,
    /// Rings once in `keep_alive` and is then set anew for what is left since the last event: a timer per event would cost more
    /// than the event.
    alarm: BoxFuture<'static, ()>,
    spoke_at: Timestamp,
    clock: Arc<dyn Clock>,
    keep_alive: Duration,
}

// Nothing in it is pinned in place.
impl<E> Unpin for EventStream<E> {}

impl<E: 'static> Stream for EventStream<E> {
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
