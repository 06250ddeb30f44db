//! From what a call brought back to an answer.

use std::future::Future;

use bytes::Bytes;
use enigma_core::model::{
    AnswerStream, AudioStream, Delta, DeltaStream, Embeddings, ModelError, WHOLE_ANSWER_LIMIT, parse_embeddings,
    parse_whole_answer, read_embeddings, read_failure, read_whole, read_whole_answer, retry_after,
};
use futures_util::{Stream, StreamExt, stream};
use worker::js_sys::{JSON, Reflect};
use worker::send::SendFuture;
use worker::wasm_bindgen::{JsCast, JsValue};
use worker::web_sys::{ReadableStream, Response};

use super::body::{AbortOnDrop, JsBody};
use super::failure::{failure, refusal};
use super::speech::parse_audio;

/// What the binding may hand over. A response is asked for, and comes from the real class; a stand-in behind a service binding
/// may know nothing of that.
enum Returned {
    Response(Response),
    Stream(ReadableStream),
    Value(JsValue),
}

impl From<JsValue> for Returned {
    fn from(value: JsValue) -> Self {
        value
            .dyn_into()
            .map(Self::Response)
            .or_else(|value| value.dyn_into().map(Self::Stream))
            .unwrap_or_else(Self::Value)
    }
}

/// What a call brought back that did not fail.
enum Answer {
    /// What it holds may be known.
    Body(JsBody, Option<Form>),
    /// As text.
    Json(String),
}

/// The answer in `returned`. The `exchange` lasts as long as it.
pub(super) fn read(
    returned: JsValue,
    exchange: AbortOnDrop,
) -> SendFuture<impl Future<Output = Result<DeltaStream, ModelError>>> {
    SendFuture::new(async move {
        match open(returned, exchange).await? {
            Answer::Body(body, form) => read_body(body, form).await,
            Answer::Json(json) => parse_whole_answer(json.as_bytes()).map(whole),
        }
    })
}

/// The vectors in `returned`.
pub(super) fn read_vectors(
    returned: JsValue,
    exchange: AbortOnDrop,
) -> SendFuture<impl Future<Output = Result<Embeddings, ModelError>>> {
    SendFuture::new(async move {
        match open(returned, exchange).await? {
            Answer::Body(_, Some(Form::Page)) => Err(page()),
            Answer::Body(body, _) => read_embeddings(body.map(|item| item.map_err(|error| broken_off(&error)))).await,
            Answer::Json(json) => parse_embeddings(json.as_bytes()),
        }
    })
}

/// The audio in `returned`. The `exchange` lasts as long as it.
pub(super) fn read_audio(
    returned: JsValue,
    exchange: AbortOnDrop,
) -> SendFuture<impl Future<Output = Result<AudioStream, ModelError>>> {
    SendFuture::new(async move {
        match open(returned, exchange).await? {
            Answer::Body(body, form) => audio_body(body, form).await,
            Answer::Json(json) => parse_audio(json.as_bytes()).map(|audio| stream::iter([Ok(audio)]).boxed()),
        }
    })
}

fn open(returned: JsValue, exchange: AbortOnDrop) -> SendFuture<impl Future<Output = Result<Answer, ModelError>>> {
    SendFuture::new(async move {
        match Returned::from(returned) {
            Returned::Response(response) => {
                let status = response.status();
                let headers = response.headers();
                let header = |name: &str| headers.get(name).ok().flatten();
                tracing::debug!(status, gateway_log_id = header("cf-aig-log-id"), "the gateway answered");
                let body = JsBody::new(response.body(), exchange).map_err(|error| broken_off(&error))?;
                if !response.ok() {
                    return Err(refusal(status, retry_after(header), &read_failure(body).await));
                }
                let form = header("content-type").and_then(|media_type| Form::of_media_type(&media_type));
                Ok(Answer::Body(body, form))
            }
            Returned::Stream(stream) => {
                let body = JsBody::new(Some(stream), exchange).map_err(|error| broken_off(&error))?;
                Ok(Answer::Body(body, None))
            }
            Returned::Value(value) => Ok(Answer::Json(json(&value)?)),
        }
    })
}

/// The error that was thrown, by its name and message; there may be anything in their place.
pub(super) fn thrown(error: &JsValue) -> ModelError {
    let property = |name: &str| Reflect::get(error, &name.into()).ok()?.as_string();
    let text = match (error.as_string(), property("name"), property("message")) {
        (Some(text), ..) => text,
        (None, Some(name), Some(message)) => format!("{name}: {message}"),
        (None, name, message) => name.or(message).unwrap_or_default(),
    };
    failure(&text)
}

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Events,
    Whole,
    /// A page for people, of a proxy or of what is not a provider at all.
    Page,
}

impl Form {
    /// By what the provider says of it, where that is not said of everything.
    fn of_media_type(media_type: &str) -> Option<Self> {
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/event-stream" => Some(Self::Events),
            "application/json" => Some(Self::Whole),
            "text/html" => Some(Self::Page),
            _ => None,
        }
    }

    /// By how it starts, once there is more than white space. A bare stream has lost its media type on the way: the binding
    /// gives one for all but exactly `application/json`, so for JSON with a charset and for pages too.
    fn of_start(bytes: &[u8]) -> Option<Self> {
        match bytes.trim_ascii_start().first()? {
            b'{' | b'[' | b'"' => Some(Self::Whole),
            b'<' => Some(Self::Page),
            _ => Some(Self::Events),
        }
    }
}

/// The answer in a body whose form may be known.
fn read_body<S>(body: S, form: Option<Form>) -> impl Future<Output = Result<DeltaStream, ModelError>> + Send
where
    S: Stream<Item = worker::Result<Bytes>> + Send + Unpin + 'static,
{
    let mut body = body.map(|item| item.map_err(|error| broken_off(&error))).fuse();
    async move {
        let mut start = None;
        let form = match form {
            Some(form) => form,
            None => loop {
                let Some(bytes) = body.next().await.transpose()? else { break Form::Events };
                if let Some(form) = Form::of_start(&bytes) {
                    start = Some(Ok(bytes));
                    break form;
                }
            },
        };
        let body = stream::iter(start).chain(body);
        match form {
            Form::Events => Ok(AnswerStream::new(body).boxed()),
            Form::Whole => read_whole_answer(body).await.map(whole),
            Form::Page => Err(page()),
        }
    }
}

/// The audio in a body whose form may be known: as it is, or in JSON.
fn audio_body<S>(body: S, form: Option<Form>) -> impl Future<Output = Result<AudioStream, ModelError>> + Send
where
    S: Stream<Item = worker::Result<Bytes>> + Send + Unpin + 'static,
{
    let mut body = body.map(|item| item.map_err(|error| broken_off(&error))).fuse();
    async move {
        let (mut start, mut is_json) = (None, form == Some(Form::Whole));
        if form.is_none() {
            while let Some(bytes) = body.next().await.transpose()? {
                if !bytes.is_empty() {
                    // No audio begins so.
                    is_json = bytes.trim_ascii_start().starts_with(b"{");
                    start = Some(Ok(bytes));
                    break;
                }
            }
        }
        let body = stream::iter(start).chain(body);
        match form {
            Some(Form::Page) => Err(page()),
            _ if is_json => parse_audio(&read_whole(body).await?).map(|audio| stream::iter([Ok(audio)]).boxed()),
            _ => Ok(body.boxed()),
        }
    }
}

fn page() -> ModelError {
    ModelError::Malformed { message: "the provider answered with a web page".to_owned() }
}

fn whole(deltas: Vec<Delta>) -> DeltaStream {
    stream::iter(deltas.into_iter().map(Ok)).boxed()
}

/// The JSON of an object, or of a text.
fn json(value: &JsValue) -> Result<String, ModelError> {
    let malformed = |message: String| ModelError::Malformed { message };
    let json = JSON::stringify(value).map_err(|_| malformed("the answer has no JSON form".to_owned()))?;
    // Of `undefined` there is no JSON, and not even a text of it.
    if !json.is_string() {
        return Err(malformed("there is no answer".to_owned()));
    }
    // Before it is copied.
    if json.length() as usize > WHOLE_ANSWER_LIMIT {
        return Err(malformed(format!("the answer is longer than {WHOLE_ANSWER_LIMIT} characters")));
    }
    Ok(String::from(json))
}

/// A body that broke off. Of what the runtime, or a stand-in, says of it, the name is kept alone.
fn broken_off(error: &worker::Error) -> ModelError {
    let name = match error {
        worker::Error::UnknownJsError { name: Some(name), .. } => enigma_core::model::error_name(name),
        _ => None,
    };
    ModelError::Interrupted { message: format!("the stream broke ({})", name.unwrap_or("unnamed error")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::model::FinishReason;
    use futures_util::FutureExt;

    const EVENTS: &str = "data: {\"response\":\"a\"}\n\ndata: [DONE]\n\n";

    fn body(pieces: &[&'static str]) -> impl Stream<Item = worker::Result<Bytes>> + Send + Unpin + use<> {
        stream::iter(pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect::<Vec<_>>())
    }

    fn answer(pieces: &[&'static str], form: Option<Form>) -> Result<Vec<Result<Delta, ModelError>>, ModelError> {
        let deltas = read_body(body(pieces), form).now_or_never().unwrap()?;
        Ok(deltas.collect().now_or_never().unwrap())
    }

    fn assert_is_a(answer: &Result<Vec<Result<Delta, ModelError>>, ModelError>) {
        assert!(
            matches!(
                answer.as_deref(),
                Ok([Ok(Delta::Content(text)), Ok(Delta::Finish(FinishReason::Stop))]) if text == "a"
            ),
            "{answer:?}"
        );
    }

    #[test]
    fn the_media_type_decides_where_it_says_something() {
        for (media_type, form) in [
            ("text/event-stream; charset=utf-8", Some(Form::Events)),
            ("Application/JSON;charset=utf-8", Some(Form::Whole)),
            ("text/html", Some(Form::Page)),
            ("text/plain", None),
            ("application/octet-stream", None),
            ("", None),
        ] {
            assert_eq!(Form::of_media_type(media_type), form, "{media_type}");
        }
    }

    #[test]
    fn a_bare_stream_is_told_by_its_start() {
        for pieces in [
            &[EVENTS][..],
            &["\n", ": ping\n\n", EVENTS],
            &["event: message\n", EVENTS],
            &[" ", "\r\n", "{\"response\":", "\"a\"}"],
            &["{\"choices\":[{\"message\":{\"content\":\"a\"}}]}"],
            &["\"a\""],
            &["{\"result\":{\"response\":\"a\"},\"success\":true}"],
        ] {
            assert_is_a(&answer(pieces, None));
        }
    }

    #[test]
    fn what_is_said_of_a_body_counts_more_than_its_start() {
        let error = answer(&["<b>"], Some(Form::Events)).unwrap().pop().unwrap().unwrap_err();
        assert!(matches!(error, ModelError::Interrupted { .. }), "{error}");
        assert!(matches!(answer(&[EVENTS], Some(Form::Page)), Err(ModelError::Malformed { .. })));
        assert!(matches!(answer(&[EVENTS], Some(Form::Whole)), Err(ModelError::Malformed { .. })));
    }

    #[test]
    fn a_page_is_no_answer() {
        for pieces in [&["<!doctype html>"][..], &[" \n", " <html>"]] {
            let error = answer(pieces, None).unwrap_err();
            assert_eq!(error.to_string(), "malformed answer: the provider answered with a web page");
        }
    }

    #[test]
    fn a_body_that_holds_nothing_was_cut() {
        for pieces in [&[][..], &[" ", "\n"]] {
            let items = answer(pieces, None).unwrap();
            assert!(matches!(&items[..], [Err(ModelError::Interrupted { .. })]), "{items:?}");
        }
    }

    #[test]
    fn audio_is_read_as_it_is_and_out_of_json_whatever_is_said_of_it() {
        let read = |pieces: &[&'static str], form| -> Result<Vec<u8>, ModelError> {
            let audio = audio_body(body(pieces), form).now_or_never().unwrap()?;
            let pieces: Vec<_> = audio.collect().now_or_never().unwrap();
            Ok(pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat())
        };
        for (pieces, form) in [
            (&["ID3", "", "abc"][..], None),
            (&["", "{\"audio\":\"", "SUQzYWJj\"}"], None),
            (&["{\"audio\":\"SUQz", "YWJj\"}"], Some(Form::Whole)),
        ] {
            assert_eq!(read(pieces, form).unwrap(), b"ID3abc", "{pieces:?}");
        }
        assert!(matches!(read(&["<html>"], Some(Form::Page)), Err(ModelError::Malformed { .. })));
        assert!(matches!(read(&["{\"error\":7}"], None), Err(ModelError::Malformed { .. })));
        // There is nothing, and the gateway says so.
        assert_eq!(read(&[""], None).unwrap(), b"");
    }

    #[test]
    fn a_body_that_breaks_fails_the_answer_and_its_message_is_not_kept() {
        let broken = || stream::iter([Err(worker::Error::from("secret"))]);
        for pieces in [&[][..], &["{\"response\":"]] {
            let error = read_body(body(pieces).chain(broken()), None).now_or_never().unwrap().err().unwrap();
            assert_eq!(error.to_string(), "answer broke off: the stream broke (unnamed error)");
        }
        let cut = read_body(body(&["data: {\"response\":\"a\"}\n\n"]).chain(broken()), None);
        let items: Vec<_> = cut.now_or_never().unwrap().unwrap().collect().now_or_never().unwrap();
        assert!(matches!(&items[..], [Ok(_), Err(ModelError::Interrupted { .. })]), "{items:?}");
    }
}
