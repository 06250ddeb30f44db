//! Audio as the body of a response.

use std::fmt;

use axum::body::Body;
use axum::response::Response;
use enigma_core::speech::{SpeechDone, SpeechEvent, SpeechReply, whole};
use enigma_core::usage::Ending;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, header};

use crate::access::Access;
use crate::app::App;
use crate::error::ApiError;
use crate::rate_headers;

/// Audio that broke off. A body has no other way to say so than to break off too.
#[derive(Debug)]
struct BrokeOff;

impl fmt::Display for BrokeOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the audio broke off")
    }
}

impl std::error::Error for BrokeOff {}

/// The response that `reply` is: as it comes, or in one piece.
pub(crate) async fn audio(
    app: &App,
    access: &Access,
    reply: SpeechReply,
    streaming: bool,
) -> Result<Response, ApiError> {
    let headers = headers(app, access, &reply);
    let rate = reply.rate;
    let mut response = if streaming {
        Response::new(Body::from_stream(reply.events.filter_map(async |event| match event {
            SpeechEvent::Audio(piece) => Some(Ok(piece)),
            SpeechEvent::Failed(_) => Some(Err(BrokeOff)),
            SpeechEvent::Done(SpeechDone { ending, .. }) => (ending != Ending::Finished).then_some(Err(BrokeOff)),
        })))
    } else {
        let audio = whole(reply).await.map_err(|error| ApiError { rate: Some(Box::new(rate)), ..error.into() })?;
        Response::new(Body::from(audio))
    };
    *response.headers_mut() = headers;
    Ok(response)
}

fn headers(app: &App, access: &Access, reply: &SpeechReply) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = |text: &str| HeaderValue::from_str(text).expect("ids are visible ASCII");
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(reply.format.media_type()));
    headers.insert("x-tenant-id", text(access.context.id().as_str()));
    headers.insert("x-model-id", text(reply.model.as_str()));
    headers.insert("x-tokens-in", reply.tokens.into());
    headers.insert("x-characters", reply.characters.into());
    rate_headers::write(&mut headers, &reply.rate, app.ports().clock.now());
    headers
}
