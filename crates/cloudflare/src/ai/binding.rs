//! The binding, by its call shape alone.
//!
//! The SDK's own `Ai` takes no options, so no gateway; it refuses every stand-in; and it makes ES maps of JSON objects, which
//! reach the model as `{}`.

use std::fmt;
use std::future::Future;

use serde_json::Value;
use thiserror::Error;
use worker::js_sys::futures::{JsFuture, spawn_local};
use worker::js_sys::{JSON, Object, Promise, Reflect};
use worker::send::{SendFuture, SendWrapper};
use worker::wasm_bindgen::prelude::*;
use worker::wasm_bindgen::{self, JsCast, JsValue};
use worker::{Env, web_sys};

use super::body::AbortOnDrop;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(extends = Object)]
    #[derive(Clone)]
    type RawAi;
    /// By name on whatever the environment holds: the real class, or a stand-in behind a service binding.
    #[wasm_bindgen(method, catch)]
    fn run(this: &RawAi, model: &str, inputs: &JsValue, options: &JsValue) -> Result<JsValue, JsValue>;
}

/// The environment has no such binding.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no binding {name}")]
pub struct MissingBinding {
    /// The name that was asked for.
    pub name: String,
}

/// The AI binding of a Worker.
///
/// It may be kept from one request to the next.
#[derive(Clone)]
pub struct AiBinding(SendWrapper<RawAi>);

impl AiBinding {
    /// The binding `name` of `env`. What it can do is seen when it is called.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub fn from_env(env: &Env, name: &str) -> Result<Self, MissingBinding> {
        let missing = || MissingBinding { name: name.to_owned() };
        let binding = Reflect::get(env, &JsValue::from_str(name)).map_err(|_| missing())?;
        if binding.is_null() || binding.is_undefined() {
            return Err(missing());
        }
        Ok(Self(SendWrapper::new(binding.unchecked_into())))
    }

    /// A binding that cannot be called.
    #[cfg(test)]
    pub(super) fn none() -> Self {
        Self(SendWrapper::new(JsValue::UNDEFINED.unchecked_into()))
    }

    /// Runs `model`, and waits until the binding hands something over: a response, whatever its status, from the real class; an
    /// answer, or the stream that it comes by, from what cannot hand one over. The call is aborted when the future is dropped
    /// before, or what comes with the answer after it.
    ///
    /// # Errors
    /// What the binding threw. The real class has no reason to, unless there is no response.
    pub(super) fn run(
        &self,
        model: &str,
        inputs: &Value,
        options: &Value,
    ) -> SendFuture<impl Future<Output = Result<(JsValue, AbortOnDrop), JsValue>>> {
        SendFuture::new(async move {
            let exchange = AbortOnDrop::new()?;
            let options = parse(options)?;
            ask_for_response(&options)?;
            hide_signal(&options, &exchange)?;
            let promise = Promise::resolve(&self.0.run(model, &parse(inputs)?, &options)?);
            let mut unread = CancelUnread(Some(promise.clone()));
            let answer = JsFuture::from(promise).await;
            unread.0 = None;
            Ok((answer?, exchange))
        })
    }
}

impl fmt::Debug for AiBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AiBinding")
    }
}

/// Plain objects, as from any JSON. By way of its text, which is one crossing into JavaScript instead of one for each member,
/// and takes every number and every key (`__proto__` too) as it is.
fn parse(json: &Value) -> Result<JsValue, JsValue> {
    JSON::parse(&json.to_string())
}

/// Asks for the response as it is, with its headers: of an error that is thrown instead, the class keeps `Retry-After` to itself.
/// In here, so that every call asks: the class keeps the options of its latest call in one place, and looks at them when an
/// answer comes, to whichever call.
fn ask_for_response(options: &JsValue) -> Result<(), JsValue> {
    Reflect::set(options, &"returnRawResponse".into(), &JsValue::TRUE).map(drop)
}

/// Adds the signal to the options without showing it. The class of newer runtimes reads it by its name; that of older ones would
/// write it into the request as a member, and a stand-in behind a service binding would refuse what it cannot be sent.
fn hide_signal(options: &JsValue, exchange: &AbortOnDrop) -> Result<(), JsValue> {
    let descriptor = Object::new();
    Reflect::set(&descriptor, &"value".into(), &exchange.signal())?;
    let options: &Object = options.unchecked_ref();
    Reflect::define_property(options, &"signal".into(), &descriptor)?;
    Ok(())
}

/// Cancels the answer to a call that nobody waits for any more: where the signal was not heard, it still comes.
struct CancelUnread(Option<Promise>);

impl Drop for CancelUnread {
    fn drop(&mut self) {
        let Some(promise) = self.0.take() else { return };
        spawn_local(async move {
            let Ok(answer) = JsFuture::from(promise).await else { return };
            let stream = match answer.dyn_into::<web_sys::Response>() {
                Ok(response) => response.body(),
                Err(answer) => answer.dyn_into().ok(),
            };
            if let Some(stream) = stream {
                drop(JsFuture::from(stream.cancel()).await);
            }
        });
    }
}
