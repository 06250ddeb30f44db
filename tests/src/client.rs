//! A client that records, and judges only what every answer must have.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};
use reqwest::ClientBuilder;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::sse::{Event, Reader};

/// No request of a case takes longer.
const LONGEST: Duration = Duration::from_secs(40);

/// A fresh session's id.
pub fn session() -> String {
    Uuid::new_v4().to_string()
}

/// A word that nothing else contains, to find a call by.
pub fn tag() -> String {
    format!("tag-{}", Uuid::new_v4().simple())
}

/// Asks one host, with the same headers each time.
#[derive(Clone)]
pub struct Api {
    base: String,
    http: reqwest::Client,
    headers: HeaderMap,
}

fn http(
    longest: Duration,
    certificates: &str,
    protocols: &[&str],
    change: impl FnOnce(ClientBuilder) -> ClientBuilder,
) -> reqwest::Client {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(certificates.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    // Without certificates nobody speaks TLS, but reqwest wants to be able to.
    let mut tls = tls.with_root_certificates(roots).with_no_client_auth();
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls).no_proxy().timeout(longest);
    change(builder).build().unwrap()
}

impl Api {
    /// A client of the host at `base`.
    pub fn new(base: &str) -> Self {
        Self::patient(base, LONGEST)
    }

    /// A client that waits up to `longest` for an answer.
    pub fn patient(base: &str, longest: Duration) -> Self {
        Self::by(base, http(longest, "", &[], |http| http))
    }

    /// A client that speaks HTTP/2 without having been told that the host does.
    pub fn http2(base: &str) -> Self {
        Self::by(base, http(LONGEST, "", &[], ClientBuilder::http2_prior_knowledge))
    }

    /// A client that believes these certificates, in PEM, and speaks the version of HTTP that it agrees on with the host.
    pub fn trusting(base: &str, certificates: &str) -> Self {
        Self::by(base, http(LONGEST, certificates, &["h2", "http/1.1"], |http| http))
    }

    /// The same, but it knows no version after 1.1.
    pub fn trusting_http1(base: &str, certificates: &str) -> Self {
        Self::by(base, http(LONGEST, certificates, &["http/1.1"], ClientBuilder::http1_only))
    }

    fn by(base: &str, http: reqwest::Client) -> Self {
        Self { base: base.to_owned(), http, headers: HeaderMap::new() }
    }

    /// The same, with one more header; it replaces one of the same name.
    #[must_use]
    pub fn with(&self, name: &'static str, value: &str) -> Self {
        self.with_bytes(name, value.as_bytes())
    }

    /// The same, with a header of any bytes.
    #[must_use]
    pub fn with_bytes(&self, name: &'static str, value: &[u8]) -> Self {
        let mut more = self.clone();
        more.headers.insert(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        more
    }

    /// The same, without a header.
    #[must_use]
    pub fn without(&self, name: &'static str) -> Self {
        let mut fewer = self.clone();
        fewer.headers.remove(name);
        fewer
    }

    /// Sends a request, and returns when the head of the answer is there.
    ///
    /// # Errors
    /// When none comes.
    pub async fn begin(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Bytes)>,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.http.request(method, format!("{}{path}", self.base)).headers(self.headers.clone());
        if let Some((kind, bytes)) = body {
            if !kind.is_empty() {
                request = request.header(header::CONTENT_TYPE, kind);
            }
            request = request.body(bytes);
        }
        let response = request.send().await?;
        Ok(Reply {
            status: response.status().as_u16(),
            version: response.version(),
            headers: response.headers().clone(),
            body: response.bytes_stream().boxed(),
            reader: Reader::default(),
        })
    }

    /// Sends any request and reads the answer whole.
    pub async fn send(&self, method: Method, path: &str, body: Option<(&str, Bytes)>) -> Answer {
        let what = format!("{method} {path}");
        let reply = self.begin(method, path, body).await.unwrap_or_else(|error| panic!("{what}: {error:?}"));
        reply.whole().await
    }

    /// `GET`
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None).await
    }

    /// `DELETE`
    pub async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, None).await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(("application/json", body.to_string().into()))).await
    }

    /// `POST` of JSON that is answered with an event stream.
    pub async fn open(&self, path: &str, body: &Value) -> Reply {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        let reply = self.begin(Method::POST, path, body).await.unwrap();
        if reply.status == 200 && reply.is_stream() {
            return reply;
        }
        panic!("{path} was not answered with a stream: {:?}", reply.whole().await)
    }

    /// `POST` of JSON, whatever it is answered with.
    pub async fn post_begin(&self, path: &str, body: &Value) -> Reply {
        let body = Some(("application/json", Bytes::from(body.to_string())));
        self.begin(Method::POST, path, body).await.unwrap_or_else(|error| panic!("{path}: {error:?}"))
    }

    /// A chat in one piece.
    pub async fn chat(&self, session: &str, message: &str) -> Answer {
        self.post("/chat", &json!({ "sessionId": session, "message": message, "stream": false })).await
    }

    /// A streamed chat.
    pub async fn chat_stream(&self, session: &str, message: &str) -> Reply {
        self.open("/chat", &json!({ "sessionId": session, "message": message })).await
    }

    /// A chat on OpenAI's face.
    pub async fn complete(&self, message: &str, more: &Value) -> Answer {
        self.post("/v1/chat/completions", &completion(message, more)).await
    }

    /// A streamed chat on OpenAI's face.
    pub async fn complete_stream(&self, message: &str, more: &Value) -> Reply {
        let mut body = completion(message, more);
        body["stream"] = true.into();
        self.open("/v1/chat/completions", &body).await
    }

    /// A session's history.
    pub async fn history(&self, session: &str) -> Answer {
        self.get(&format!("/chat/{session}/history?limit=200")).await
    }

    /// The contents of a session's messages, with their roles.
    pub async fn said(&self, session: &str) -> Vec<(String, String)> {
        let data = self.history(session).await.ok();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let messages = data["messages"].as_array().unwrap();
        messages.iter().map(|message| (text(&message["role"]), text(&message["content"]))).collect()
    }

    /// Asserts that a session has never been heard of.
    pub async fn assert_unknown(&self, session: &str) {
        self.history(session).await.error(404, "not_found");
    }

    /// How many requests the caller's windows still allow. Asking takes no slot: the request is invalid.
    pub async fn remaining(&self) -> u64 {
        let refused = self.post("/chat", &json!({})).await;
        refused.error(400, "invalid_request");
        refused.number("x-ratelimit-remaining")
    }

    /// Waits until the caller's windows allow no more than `most` requests.
    pub async fn remaining_falls_to(&self, most: u64) {
        let end = Instant::now() + crate::upstream::PATIENCE;
        while self.remaining().await > most {
            assert!(Instant::now() < end, "the request did not take its slot");
        }
    }
}

/// A request on OpenAI's face.
pub fn completion(message: &str, more: &Value) -> Value {
    let mut body = json!({ "model": "scripted", "messages": [{ "role": "user", "content": message }] });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    body
}

/// An answer whose head is there.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The version of HTTP that it came in.
    pub version: Version,
    /// The headers.
    pub headers: HeaderMap,
    body: BoxStream<'static, Result<Bytes, reqwest::Error>>,
    reader: Reader,
}

impl Reply {
    fn is_stream(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        kind.is_some_and(|kind| kind.starts_with("text/event-stream"))
    }

    /// Reads the rest.
    pub async fn whole(self) -> Answer {
        self.try_whole().await.unwrap()
    }

    /// Reads the rest, unless the connection breaks off.
    ///
    /// # Errors
    /// When it does.
    pub async fn try_whole(self) -> Result<Answer, reqwest::Error> {
        let (status, headers) = (self.status, self.headers.clone());
        Ok(Answer { status, headers, text: String::from_utf8(self.bytes().await?).unwrap() })
    }

    /// Reads the rest, whatever it is.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn bytes(mut self) -> Result<Vec<u8>, reqwest::Error> {
        let mut bytes = Vec::new();
        while let Some(part) = self.body.next().await {
            bytes.extend_from_slice(&part?);
        }
        Ok(bytes)
    }

    /// The next bytes, whatever they are; `None` when the body has ended as it should.
    ///
    /// # Errors
    /// When the connection breaks off.
    pub async fn bytes_next(&mut self) -> Result<Option<Bytes>, reqwest::Error> {
        self.body.next().await.transpose()
    }

    /// The next event or comment; `None` when the stream has ended as it should.
    ///
    /// # Errors
    /// When it was cut.
    pub async fn try_next(&mut self) -> Result<Option<Event>, reqwest::Error> {
        loop {
            if let Some(event) = self.reader.pop() {
                return Ok(Some(event));
            }
            let Some(bytes) = self.body.next().await else {
                let rest = self.reader.rest();
                assert!(rest.is_empty(), "a stream ended in the middle of an event: {rest:?}");
                return Ok(None);
            };
            self.reader.push(&bytes?);
        }
    }

    /// The next event or comment of a stream that is not cut.
    pub async fn next(&mut self) -> Option<Event> {
        self.try_next().await.unwrap()
    }

    /// The text of the next piece of the answer.
    pub async fn text(&mut self) -> String {
        loop {
            let event = self.next().await.expect("the stream ended before the next piece");
            if let Some(text) = event.text() {
                return text;
            }
            assert!(event.comment.is_some(), "not a piece of an answer: {event:?}");
        }
    }

    /// All events that are left, comments among them.
    pub async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }

    /// Reads to the end, and asserts that it is a native stream as it should be: pieces numbered from 1, at most one error,
    /// `done` once and last.
    pub async fn finish(self) -> Finished {
        let events = self.rest().await;
        judge(&events)
    }
}

/// What a native stream said.
#[derive(Debug)]
pub struct Finished {
    /// The pieces, joined.
    pub text: String,
    /// How many there were.
    pub pieces: u64,
    /// The number of the first piece.
    pub first_id: Option<u64>,
    /// The error, if there was one.
    pub error: Option<Value>,
    /// The last event.
    pub done: Value,
    /// Comments in between.
    pub comments: usize,
}

fn judge(events: &[Event]) -> Finished {
    let (mut text, mut pieces, mut first_id, mut error, mut comments) = (String::new(), 0, None, None, 0);
    let (last, before) = events.split_last().expect("an empty stream");
    for event in before {
        match event.name.as_deref() {
            None if event.comment.is_some() => comments += 1,
            None => {
                assert!(error.is_none(), "a piece after the error: {event:?}");
                let id: u64 = event.id.as_deref().expect("a piece without an id").parse().unwrap();
                pieces += 1;
                assert_eq!(id, *first_id.get_or_insert(id) + pieces - 1, "ids count up: {events:?}");
                text.push_str(event.json()["content"].as_str().unwrap());
            }
            Some("error") => {
                assert!(error.is_none(), "two errors: {events:?}");
                error = Some(event.json());
            }
            Some(other) => panic!("{other} before the end: {events:?}"),
        }
    }
    assert_eq!(last.name.as_deref(), Some("done"), "done comes last: {events:?}");
    assert_eq!(last.json()["done"], true);
    Finished { text, pieces, first_id, error, done: last.json(), comments }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub text: String,
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    keys.sort_unstable();
    keys
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// A header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A header as a number.
    pub fn number(&self, name: &str) -> u64 {
        let text = self.header(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}"))
    }

    /// Asserts a native success, and returns its `data`.
    pub fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        assert_eq!(body["ok"], true, "{self:?}");
        assert_eq!(body["traceId"].as_str(), self.header("x-trace-id"), "{self:?}");
        body["data"].clone()
    }

    /// Asserts a success on OpenAI's face, and returns the body.
    pub fn object(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Asserts a native error in its exact shape, and returns its `details`.
    pub fn error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(keys(&body), ["error", "ok", "traceId"], "{self:?}");
        assert_eq!(body["ok"], false);
        assert_eq!(body["traceId"].as_str(), self.header("x-trace-id"), "{self:?}");
        let error = &body["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        let known = keys(error);
        assert!(known == ["code", "message"] || known == ["code", "details", "message"], "{self:?}");
        self.common(status);
        error["details"].clone()
    }

    /// Asserts an error in OpenAI's exact shape, and returns it.
    pub fn openai_error(&self, status: u16, code: &str, kind: &str) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        assert_eq!(keys(&body), ["error"], "{self:?}");
        let error = &body["error"];
        assert_eq!(keys(error), ["code", "message", "param", "type"], "{self:?}");
        assert_eq!(error["code"], code, "{self:?}");
        assert_eq!(error["type"], kind, "{self:?}");
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        self.common(status);
        error.clone()
    }

    fn common(&self, status: u16) {
        assert_eq!(self.headers.contains_key("www-authenticate"), status == 401, "{self:?}");
        if matches!(status, 429 | 503) {
            assert!(self.number("retry-after") >= 1, "{self:?}");
        }
        self.secured();
    }

    /// Asserts what every response carries.
    pub fn secured(&self) {
        assert_secured(&self.headers);
    }
}

/// Asserts what every response carries: its names, and the headers that keep browsers from doing anything with it.
pub fn assert_secured(headers: &HeaderMap) {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default();
    assert!(!text("x-trace-id").is_empty(), "{headers:?}");
    assert!(Uuid::parse_str(text("x-request-id")).is_ok(), "{headers:?}");
    assert_eq!(text("x-content-type-options"), "nosniff");
    assert_eq!(text("x-frame-options"), "DENY");
    assert_eq!(text("referrer-policy"), "no-referrer");
    assert!(text("content-security-policy").contains("default-src 'none'"), "{headers:?}");
    assert!(text("strict-transport-security").contains("max-age="), "{headers:?}");
    assert!(!text("cache-control").is_empty(), "{headers:?}");
    assert!(!headers.contains_key("server"), "the software is nobody's business: {headers:?}");
}
