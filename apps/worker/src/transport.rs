//! The transport of OpenAI-compatible providers: the runtime's `fetch`.

use async_trait::async_trait;
use bytes::Bytes;
use enigma_cloudflare::{AbortOnDrop, JsBody};
use enigma_openai::{ByteStream, Transport, TransportError};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use worker::js_sys::futures::JsFuture;
use worker::js_sys::{Array, Promise, Reflect, Uint8Array};
use worker::send::SendFuture;
use worker::wasm_bindgen::prelude::*;
use worker::wasm_bindgen::{self, JsCast, JsValue};
use worker::web_sys;

#[wasm_bindgen]
extern "C" {
    /// The runtime's own, whose exceptions nobody could catch otherwise.
    #[wasm_bindgen(catch, js_name = fetch)]
    fn fetch(request: &web_sys::Request) -> Result<Promise, JsValue>;
}

/// The longest message of the runtime that is kept.
const LONGEST_MESSAGE: usize = 200;

/// A [`Transport`] over the runtime's `fetch`.
///
/// Redirects are responses. Dropping the future or the body aborts the exchange. There is no timeout: the core watches how long
/// a first byte and the next one take.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FetchTransport;

#[async_trait]
impl Transport for FetchTransport {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<ByteStream>, TransportError> {
        // JavaScript's values live and die in here.
        SendFuture::new(async move {
            let uri = request.uri().clone();
            let not_sent = |error| TransportError::connect(said(&error, &uri));
            let exchange = AbortOnDrop::new().map_err(|error| not_sent(error.into()))?;
            let promise = begin(&request, &exchange).map_err(not_sent)?;
            // Whether the request had arrived is unknown: the runtime does not tell a refused connection from a broken one.
            let broken = |error: &JsValue| TransportError::broken(said(error, &uri));
            let response = JsFuture::from(promise).await.map_err(|error| broken(&error))?;
            let response: web_sys::Response = response.dyn_into().map_err(|error| broken(&error))?;
            let mut answer = Response::new(body(response.body(), exchange, uri.clone())?);
            *answer.status_mut() = StatusCode::from_u16(response.status()).map_err(TransportError::broken)?;
            *answer.headers_mut() = headers(&response.headers());
            Ok(answer)
        })
        .await
    }
}

/// Hands `request` to the runtime.
fn begin(request: &Request<Bytes>, exchange: &AbortOnDrop) -> Result<Promise, JsValue> {
    let headers = web_sys::Headers::new()?;
    for (name, value) in request.headers() {
        // What is not ASCII would be written as UTF-8 text, and so as the bytes that it is made of.
        headers.append(name.as_str(), &String::from_utf8_lossy(value.as_bytes()))?;
    }
    let init = web_sys::RequestInit::new();
    init.set_method(request.method().as_str());
    init.set_headers(&headers);
    init.set_redirect(web_sys::RequestRedirect::Manual);
    init.set_signal(Some(&exchange.signal()));
    if !request.body().is_empty() {
        init.set_body(&Uint8Array::from(&request.body()[..]));
    }
    fetch(&web_sys::Request::new_with_str_and_init(&request.uri().to_string(), &init)?)
}

/// What the peer says of its answer. A header that is none is left out.
fn headers(said: &web_sys::Headers) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for entry in said.entries().into_iter().flatten() {
        let entry: Array = entry.unchecked_into();
        let (Some(name), Some(value)) = (entry.get(0).as_string(), entry.get(1).as_string()) else { continue };
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}

fn body(
    stream: Option<web_sys::ReadableStream>,
    exchange: AbortOnDrop,
    uri: Uri,
) -> Result<ByteStream, TransportError> {
    let broken = move |error: worker::Error| TransportError::broken(said(&error.into(), &uri));
    match JsBody::new(stream, exchange) {
        Ok(body) => Ok(body.map(move |item| item.map_err(&broken)).boxed()),
        Err(error) => Err(broken(error)),
    }
}

/// What the runtime says of an error.
fn said(error: &JsValue, uri: &Uri) -> String {
    let property = |name: &str| Reflect::get(error, &name.into()).ok()?.as_string();
    let name = property("name").unwrap_or_else(|| "unnamed error".to_owned());
    let message = error.as_string().or_else(|| property("message")).unwrap_or_default();
    without_url(name, &message, uri)
}

/// The name of an error, with its message unless that may name the URL, whose query may hold a key.
fn without_url(name: String, message: &str, uri: &Uri) -> String {
    let names = |part: &str| part.len() > 1 && message.contains(part);
    let query = uri.query().into_iter().flat_map(|query| query.split(['&', '=']));
    let names_url =
        message.contains("://") || uri.host().is_some_and(names) || names(uri.path()) || query.into_iter().any(names);
    if names_url || message.is_empty() || message.len() > LONGEST_MESSAGE { name } else { format!("{name}: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_words_are_kept_and_the_url_is_not() {
        let uri = Uri::from_static("https://h.example:8443/v1/chat/completions?key=sk-1&a=b");
        let said = |message| without_url("TypeError".to_owned(), message, &uri);
        assert_eq!(said("Network connection lost."), "TypeError: Network connection lost.");
        for message in [
            "",
            "Fetch API cannot load: https://h.example:8443/v1/chat/completions?key=sk-1",
            "Invalid URL: https%3A//x?sk-1",
            "could not resolve h.example",
            "POST /v1/chat/completions failed",
            "wrong sk-1",
            &"x".repeat(LONGEST_MESSAGE + 1),
        ] {
            assert_eq!(said(message), "TypeError", "{message}");
        }
    }
}
