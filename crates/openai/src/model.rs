//! The model itself.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::model::{ChatModel, DeltaStream, ModelCall, ModelError, Phase, read_failure};
use futures_util::StreamExt;
use http::HeaderMap;
use http::header::CONTENT_TYPE;

use crate::answer::{read_events, read_whole};
use crate::protocol::Endpoint;
use crate::transport::{Transport, TransportError};

/// The chat models of one endpoint.
#[derive(Clone)]
pub struct OpenAiModel {
    endpoint: Endpoint,
    transport: Arc<dyn Transport>,
}

impl OpenAiModel {
    /// The models of `endpoint`, asked through `transport`.
    pub fn new(endpoint: Endpoint, transport: Arc<dyn Transport>) -> Self {
        Self { endpoint, transport }
    }
}

impl fmt::Debug for OpenAiModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiModel").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

#[async_trait]
impl ChatModel for OpenAiModel {
    async fn stream(&self, _tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        let request = self.endpoint.request(call)?;
        let (head, body) = self.transport.send(request).await.map_err(not_sent)?.into_parts();
        if !head.status.is_success() {
            let body = read_failure(body).await;
            return Err(self.endpoint.failure(&head, &body));
        }
        let scrubber = self.endpoint.scrubber();
        match Form::of(&head.headers, self.endpoint.streams()) {
            Form::Events => Ok(read_events(body, scrubber.clone())),
            Form::Whole => {
                let deltas = read_whole(body).await.map_err(|error| scrubber.error(error))?;
                Ok(futures_util::stream::iter(deltas.into_iter().map(Ok)).boxed())
            }
            Form::Page => Err(ModelError::Malformed { message: "the provider answered with a web page".to_owned() }),
        }
    }
}

/// What a body holds, by what the provider says of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Events,
    Whole,
    /// A page for people, of a proxy or of what is not a provider at all.
    Page,
}

impl Form {
    pub(crate) fn of(headers: &HeaderMap, asked_for_events: bool) -> Self {
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/event-stream" => Self::Events,
            "application/json" => Self::Whole,
            "text/html" => Self::Page,
            _ if asked_for_events => Self::Events,
            _ => Self::Whole,
        }
    }
}

pub(crate) fn not_sent(error: TransportError) -> ModelError {
    let message = match error {
        TransportError::Timeout(_) => return ModelError::Timeout(Phase::Connect),
        TransportError::Connect(_) => "no connection",
        TransportError::Broken(_) => "the connection broke before an answer",
    };
    ModelError::Unavailable { message: message.to_owned(), source: Some(Box::new(error)), retry_after: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_media_type_decides_and_what_was_asked_for_where_there_is_none() {
        for (media_type, asked_for_events, form) in [
            ("text/event-stream; charset=utf-8", false, Form::Events),
            ("Application/JSON", true, Form::Whole),
            ("text/html", true, Form::Page),
            ("text/plain", true, Form::Events),
            ("text/plain", false, Form::Whole),
        ] {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
            assert_eq!(Form::of(&headers, asked_for_events), form, "{media_type}");
        }
        assert_eq!(Form::of(&HeaderMap::new(), true), Form::Events);
    }
}
