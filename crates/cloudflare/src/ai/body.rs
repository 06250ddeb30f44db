//! Exchanges with the outside that end when nobody waits for them any more.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use worker::ByteStream;
use worker::send::SendWrapper;
use worker::wasm_bindgen::JsValue;
use worker::wasm_bindgen::prelude::*;
use worker::wasm_bindgen::{self, JsCast};
use worker::web_sys::{AbortController, AbortSignal, ReadableStream};

#[wasm_bindgen]
extern "C" {
    type Abortable;
    /// As [`AbortController::abort`], whose exceptions nobody could catch.
    #[wasm_bindgen(method, catch)]
    fn abort(this: &Abortable) -> Result<(), JsValue>;
}

/// Aborts what was given its signal when it is dropped. What has ended by then is left as it is.
pub struct AbortOnDrop(AbortController);

impl AbortOnDrop {
    /// A signal that nothing has been given yet.
    ///
    /// # Errors
    /// Whatever the runtime says, which has no reason to refuse.
    pub fn new() -> worker::Result<Self> {
        Ok(Self(AbortController::new()?))
    }

    /// The signal, for the runtime.
    pub fn signal(&self) -> AbortSignal {
        self.0.signal()
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        let controller: &JsValue = self.0.as_ref();
        // An exchange that cannot be aborted ends by itself; there is nobody left to tell.
        drop(controller.unchecked_ref::<Abortable>().abort());
    }
}

impl fmt::Debug for AbortOnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AbortOnDrop")
    }
}

/// The body of a response, as it comes. Nothing is read before it is asked for, and dropping it cancels the reading and aborts
/// the exchange, so that the other side can notice.
pub struct JsBody {
    /// None where a response has no body. Dropped before the exchange is aborted.
    bytes: Option<SendWrapper<ByteStream>>,
    _exchange: SendWrapper<AbortOnDrop>,
}

impl JsBody {
    /// Reads `stream`, which `exchange` brings.
    ///
    /// # Errors
    /// When somebody else reads it.
    pub fn new(stream: Option<ReadableStream>, exchange: AbortOnDrop) -> worker::Result<Self> {
        if stream.as_ref().is_some_and(ReadableStream::locked) {
            return Err("the stream is read by another".into());
        }
        let bytes = stream.map(|stream| SendWrapper::new(ByteStream::from(stream)));
        Ok(Self { bytes, _exchange: SendWrapper::new(exchange) })
    }
}

impl Stream for JsBody {
    type Item = worker::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(bytes) = &mut self.bytes else { return Poll::Ready(None) };
        bytes.poll_next_unpin(cx).map(|item| item.map(|bytes| bytes.map(Bytes::from)))
    }
}

impl fmt::Debug for JsBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JsBody")
    }
}
