//! Whether the client is still there. The runtime tells by the request's signal; what is made for a client that has gone is
//! dropped then, so that the model's work ends.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use futures_util::task::AtomicWaker;
use http_body::Frame;
use worker::AbortSignal;
use worker::send::SendWrapper;
use worker::wasm_bindgen::JsCast;
use worker::wasm_bindgen::closure::Closure;

/// The client of one request.
pub(crate) struct Presence {
    seen: Arc<Seen>,
    /// Kept as long as somebody wants to know.
    _listener: SendWrapper<Option<Listener>>,
}

#[derive(Default)]
struct Seen {
    gone: AtomicBool,
    waiting: AtomicWaker,
}

struct Listener {
    signal: AbortSignal,
    _tell: Closure<dyn FnMut()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.signal.set_onabort(None);
    }
}

impl Presence {
    /// Watches the client whose request has `signal`. Without one, nobody ever goes.
    pub(crate) fn of(signal: Option<AbortSignal>) -> Self {
        let seen = Arc::new(Seen::default());
        let listener = signal.map(|signal| {
            if signal.aborted() {
                seen.gone.store(true, Ordering::Relaxed);
            }
            let told = Arc::clone(&seen);
            let tell: Closure<dyn FnMut()> = Closure::wrap_assert_unwind_safe(Box::new(move || {
                told.gone.store(true, Ordering::Relaxed);
                told.waiting.wake();
            }));
            signal.set_onabort(Some(tell.as_ref().unchecked_ref()));
            Listener { signal, _tell: tell }
        });
        Self { seen, _listener: SendWrapper::new(listener) }
    }

    fn poll_gone(&self, context: &Context<'_>) -> bool {
        self.seen.waiting.register(context.waker());
        self.seen.gone.load(Ordering::Relaxed)
    }

    /// Does `work` as long as the client is there; `None` when it has gone before the end.
    pub(crate) async fn race<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        poll_fn(
            |context| {
                if self.poll_gone(context) { Poll::Ready(None) } else { work.as_mut().poll(context).map(Some) }
            },
        )
        .await
    }

    /// A body that is dropped when the client has gone, even when nobody reads it any more.
    pub(crate) fn watch(self, body: Body) -> Body {
        Body::new(Watched { body: Some(body), presence: self })
    }
}

struct Watched {
    body: Option<Body>,
    presence: Presence,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.presence.poll_gone(context) {
            this.body = None;
        }
        match &mut this.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map_or_else(http_body::SizeHint::default, HttpBody::size_hint)
    }
}
