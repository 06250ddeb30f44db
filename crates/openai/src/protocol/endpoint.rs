//! A provider, as it is configured and as it is used.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use enigma_core::ModelId;
use enigma_core::model::{CallMetadata, EmbeddingCall, ModelCall, ModelError, ResponseFormat, SpeechCall, Voice};
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use thiserror::Error;

use super::base_url::Routes;
use super::{base_url, body, embeddings, failure, headers, speech};
use crate::secret::{Scrubber, Secret};

/// How answers are asked for. Whatever is asked for, both forms are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerForm {
    /// As a stream of events.
    Stream {
        /// Whether to ask for a last event with the tokens that were used (`stream_options.include_usage`). Some servers refuse
        /// the member; the core then estimates.
        usage: bool,
    },
    /// In one piece, from servers that cannot stream.
    Whole,
}

impl Default for AnswerForm {
    fn default() -> Self {
        Self::Stream { usage: true }
    }
}

/// What the member is called that bounds the answer's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TokenLimitField {
    /// `max_tokens`, which nearly all servers understand.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which OpenAI's reasoning models insist on.
    MaxCompletionTokens,
}

/// Where providers differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialect {
    /// How answers are asked for.
    pub answers: AnswerForm,
    /// What bounds the answer.
    pub token_limit: TokenLimitField,
    /// Whether tools can be offered; a call with tools is refused otherwise.
    pub tools: bool,
    /// Whether JSON can be demanded; a call that does is refused otherwise.
    pub response_format: bool,
}

impl Default for Dialect {
    fn default() -> Self {
        Self {
            answers: AnswerForm::default(),
            token_limit: TokenLimitField::default(),
            tools: true,
            response_format: true,
        }
    }
}

/// A provider, as it is configured. [`Endpoint::new`] checks it.
#[derive(Clone, Default)]
pub struct EndpointOptions {
    /// What comes before `/chat/completions`, `/embeddings` and `/audio/speech`, such as `https://api.openai.com/v1`. A query is kept.
    pub base_url: String,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<Secret>,
    /// Headers of every request, such as `api-key` or `cf-aig-authorization`.
    pub headers: Vec<(String, Secret)>,
    /// What the provider calls a chat model, where that differs from the platform's name.
    pub models: BTreeMap<ModelId, String>,
    /// What the provider calls an embedding model, where that differs from the platform's name.
    pub embeddings: BTreeMap<ModelId, String>,
    /// What the provider calls a model that speaks, where that differs from the platform's name.
    pub speech: BTreeMap<ModelId, String>,
    /// The voices of those models that are told to clients; the first one speaks where none is asked for. Others can be asked for
    /// all the same: the protocol has no list of them.
    pub voices: Vec<String>,
    /// Where the provider differs from others.
    pub dialect: Dialect,
    /// Whether to send the trace id as `x-trace-id`. W3C `traceparent` is always passed on.
    pub send_trace_id: bool,
    /// Whether the endpoint is Cloudflare's AI Gateway, which is then told by `cf-aig-metadata` whose call it is, and by
    /// `cf-aig-gateway-id` which gateway the tenant has, if it has its own.
    pub ai_gateway: bool,
}

impl EndpointOptions {
    /// A provider without a key, that differs in nothing.
    pub fn at(base_url: impl Into<String>) -> Self {
        Self { base_url: base_url.into(), ..Self::default() }
    }
}

impl fmt::Debug for EndpointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointOptions")
            .field("base_url", &base_url::for_display(&self.base_url))
            .field("api_key", &self.api_key)
            .field("headers", &self.headers)
            .field("models", &self.models)
            .field("embeddings", &self.embeddings)
            .field("speech", &self.speech)
            .field("voices", &self.voices)
            .field("dialect", &self.dialect)
            .field("send_trace_id", &self.send_trace_id)
            .field("ai_gateway", &self.ai_gateway)
            .finish()
    }
}

/// What is wrong with a configured provider. It names the place and never shows a value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidEndpoint {
    /// The base URL.
    #[error("the base URL is wrong: {0}")]
    BaseUrl(&'static str),
    /// The key.
    #[error("the API key must be visible ASCII characters")]
    ApiKey,
    /// The name of a header.
    #[error("{0:?} is not the name of a header")]
    HeaderName(String),
    /// The value of a header.
    #[error("the value of header {0} must be visible ASCII characters")]
    HeaderValue(String),
    /// A header that is written by this crate, or by the transport.
    #[error("header {0} cannot be configured")]
    ReservedHeader(String),
    /// A voice without a name.
    #[error("a voice has no name")]
    EmptyVoice,
    /// A model without a name at the provider.
    #[error("the provider's name of model {0} is empty")]
    EmptyModelName(ModelId),
}

/// A provider, checked.
#[derive(Clone)]
pub struct Endpoint {
    routes: Routes,
    headers: HeaderMap,
    models: BTreeMap<ModelId, String>,
    embeddings: BTreeMap<ModelId, String>,
    speech: BTreeMap<ModelId, String>,
    voices: Arc<[Voice]>,
    dialect: Dialect,
    send_trace_id: bool,
    ai_gateway: bool,
    scrubber: Scrubber,
}

impl Endpoint {
    /// Checks what was configured.
    ///
    /// # Errors
    /// [`InvalidEndpoint`], for the first thing that is wrong.
    pub fn new(options: EndpointOptions) -> Result<Self, InvalidEndpoint> {
        let routes = base_url::routes(&options.base_url)?;
        let headers = headers::fixed(&options)?;
        let mut names = options.models.iter().chain(&options.embeddings).chain(&options.speech);
        if let Some((model, _)) = names.find(|(_, name)| name.trim().is_empty()) {
            return Err(InvalidEndpoint::EmptyModelName(model.clone()));
        }
        if options.voices.iter().any(|voice| voice.trim().is_empty()) {
            return Err(InvalidEndpoint::EmptyVoice);
        }
        let voice = |id: String| Voice { name: id.clone(), id, language: None };
        let values = options.headers.into_iter().map(|(_, value)| value);
        let scrubber = Scrubber::new(options.api_key.into_iter().chain(values));
        Ok(Self {
            routes,
            headers,
            models: options.models,
            embeddings: options.embeddings,
            speech: options.speech,
            voices: options.voices.into_iter().map(voice).collect(),
            dialect: options.dialect,
            send_trace_id: options.send_trace_id,
            ai_gateway: options.ai_gateway,
            scrubber,
        })
    }

    /// The HTTP request that asks for the answer to `call`.
    ///
    /// # Errors
    /// [`ModelError::Unsupported`] for what the provider cannot do.
    pub fn request(&self, call: &ModelCall) -> Result<Request<Bytes>, ModelError> {
        if !self.dialect.tools && !call.tools.is_empty() {
            return Err(ModelError::Unsupported { feature: "tools" });
        }
        if !self.dialect.response_format && call.response_format != ResponseFormat::Text {
            return Err(ModelError::Unsupported { feature: "response_format" });
        }
        let name = self.models.get(&call.model).map_or(call.model.as_str(), String::as_str);
        Ok(self.post(&self.routes.chat_completions, body::encode(call, name, &self.dialect), &call.metadata))
    }

    /// The HTTP request that asks for the vectors of `call`.
    pub fn embedding_request(&self, call: &EmbeddingCall) -> Request<Bytes> {
        let name = self.embeddings.get(&call.model).map_or(call.model.as_str(), String::as_str);
        let mut request = self.post(&self.routes.embeddings, embeddings::encode(call, name), &call.metadata);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request
    }

    /// The HTTP request that asks for the audio of `call`.
    pub fn speech_request(&self, call: &SpeechCall) -> Request<Bytes> {
        let name = self.speech.get(&call.model).map_or(call.model.as_str(), String::as_str);
        let first = self.voices.first().map_or(speech::DEFAULT_VOICE, |voice| &voice.id);
        let voice = call.voice.as_deref().unwrap_or(first);
        let mut request = self.post(&self.routes.speech, speech::encode(call, name, voice), &call.metadata);
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("audio/*, application/json"));
        request
    }

    /// The voices that are told to clients.
    pub(crate) fn voices(&self) -> &Arc<[Voice]> {
        &self.voices
    }

    fn post(&self, uri: &Uri, body: Bytes, metadata: &CallMetadata) -> Request<Bytes> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.clone();
        *request.headers_mut() = self.headers.clone();
        headers::add_metadata(request.headers_mut(), metadata, self.send_trace_id, self.ai_gateway);
        request
    }

    /// What a response that is no answer means.
    pub(crate) fn failure(&self, head: &http::response::Parts, body: &[u8]) -> ModelError {
        self.scrubber.error(failure::read(head.status, &head.headers, body))
    }

    /// Whether a stream was asked for.
    pub(crate) fn streams(&self) -> bool {
        matches!(self.dialect.answers, AnswerForm::Stream { .. })
    }

    pub(crate) fn scrubber(&self) -> &Scrubber {
        &self.scrubber
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &base_url::for_display(&self.routes.chat_completions.to_string()))
            .field("headers", &self.headers.keys().collect::<Vec<_>>())
            .field("models", &self.models)
            .field("embeddings", &self.embeddings)
            .field("speech", &self.speech)
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}
