//! `POST /ingest`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::UserId;
use enigma_core::ingest::{IngestCommand, IngestDone, IngestEvent, IngestReply};
use enigma_core::retrieval::{ChunkingOptions, Document, DocumentId, Metadata};
use enigma_core::tenant::{Caller, Scope};
use enigma_core::usage::Ending;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::chat::{idempotency, with_windows};
use super::search::write_failure;
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::envelope::success;
use crate::error::{ApiError, ErrorCode};
use crate::event_stream::{Render, event_stream, wants_events, write_event};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/ingest";
/// The longest title, source or address, in characters.
const MAX_NAME_CHARS: usize = 2000;

/// `POST /ingest`
pub(crate) async fn ingest(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut caller = access.caller_without_body();
    let answer = answer(&app, &info, &access, &mut caller, &headers, body).await;
    with_windows(&app, &access, &caller, answer).await
}

async fn answer(
    app: &App,
    info: &RequestInfo,
    access: &Access,
    caller: &mut Caller,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    access.require(Scope::Ingest)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let (bytes, json) = read_json(headers, body, app.settings().max_document_body_bytes).await?;
    let mut issues = Issues::default();
    let asked = parse(&json, &mut issues);
    let known = access.caller(asked.as_ref().and_then(|asked| asked.user.clone()), &mut issues);
    caller.clone_from(&known);
    let idempotency = idempotency(headers, &known.subject, ROUTE, &[&bytes], &mut issues);
    issues.check()?;
    let Some(IngestRequest { document: Some(document), text: Some(text), chunking, .. }) = asked else {
        return Err(ErrorCode::InvalidRequest.into());
    };
    let command = IngestCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        document,
        text: text.to_owned(),
        chunking,
        idempotency,
    };
    drop((bytes, json));
    access.sit(place);
    let reply = app.ports().ingest.ingest(access.context.clone(), command, &*access.background()).await?;
    let headers_out = reply_headers(app, access, &reply);
    if wants_events(headers) {
        let render = IngestRender { info: info.clone() };
        return Ok(event_stream(reply.events, render, &app.ports().clock, app.settings().keep_alive, headers_out));
    }
    whole(info, reply, headers_out).await
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct IngestRequest<'a> {
    document: Option<Document>,
    text: Option<&'a str>,
    chunking: ChunkingOptions,
    user: Option<UserId>,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse<'a>(body: &'a Value, issues: &mut Issues) -> Option<IngestRequest<'a>> {
    let fields = Fields::of_body(body, issues)?;
    let id: Option<DocumentId> = fields.parsed("docId", issues);
    let id = fields.required("docId", id, issues);
    let text = fields.text("text", issues);
    let text = fields.required("text", text, issues);
    if text.is_some_and(|text| enigma_core::retrieval::normalise(text).is_empty()) {
        fields.wrong("text", "must not be blank", issues);
    }
    let source = fields.text_within("source", 1, MAX_NAME_CHARS, issues).map(str::to_owned);
    let title = fields.text_within("title", 1, MAX_NAME_CHARS, issues).map(str::to_owned);
    let url = fields.text_within("url", 1, MAX_NAME_CHARS, issues).map(str::to_owned);
    let metadata = fields.value("metadata").and_then(|value| {
        let Some(object) = value.as_object() else {
            fields.wrong("metadata", "must be an object", issues);
            return None;
        };
        Metadata::new(object.clone()).map_err(|error| fields.wrong("metadata", error.to_string(), issues)).ok()
    });
    let chunking = chunking(&fields, issues);
    let user = fields.parsed("userId", issues);
    let document = id.map(|id| Document { id, source, title, url, metadata: metadata.unwrap_or_default() });
    Some(IngestRequest { document, text, chunking, user })
}

fn chunking(fields: &Fields<'_>, issues: &mut Issues) -> ChunkingOptions {
    let default = ChunkingOptions::default();
    let Some(asked) = fields.object("chunking", issues) else { return default };
    let (least, most) = (ChunkingOptions::MIN_SIZE as u64, ChunkingOptions::MAX_SIZE as u64);
    let size = asked.integer_within("maxChunkSize", least, most, issues);
    let overlap = asked.integer_within("overlap", 0, most, issues);
    let size = size.and_then(|size| usize::try_from(size).ok()).unwrap_or(default.max_size());
    let overlap = match overlap.and_then(|overlap| usize::try_from(overlap).ok()) {
        Some(overlap) => overlap,
        // Whoever wants small chunks and says nothing of their overlap wants what fits.
        None => default.overlap().min(size / 2),
    };
    ChunkingOptions::new(size, overlap).unwrap_or_else(|| {
        asked.wrong("overlap", "must be at most half of maxChunkSize", issues);
        default
    })
}

fn reply_headers(app: &App, access: &Access, reply: &IngestReply) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = |text: &str| HeaderValue::from_str(text).expect("ids are visible ASCII");
    headers.insert("x-tenant-id", text(access.context.id().as_str()));
    headers.insert("x-model-id", text(reply.model.as_str()));
    if reply.replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    rate_headers::write(&mut headers, &reply.rate, app.ports().clock.now());
    headers
}

async fn whole(info: &RequestInfo, reply: IngestReply, headers: HeaderMap) -> Result<Response, ApiError> {
    let (rate, mut events, mut failure) = (reply.rate, reply.events, None);
    let done = loop {
        match events.next().await {
            Some(IngestEvent::Progress { .. }) => {}
            Some(IngestEvent::Failed(error)) => failure = Some(ApiError::from(error)),
            Some(IngestEvent::Done(done)) => break done,
            None => return Err(ErrorCode::Internal.into()),
        }
    };
    if let Some(error) = failure {
        return Err(ApiError { rate: Some(Box::new(rate)), ..error });
    }
    let mut response = success(info, told(&done));
    response.headers_mut().extend(headers);
    Ok(response)
}

fn told(done: &IngestDone) -> Value {
    let status = if done.ending == Ending::Finished { "ingested" } else { "failed" };
    json!({ "status": status, "docId": done.document, "chunks": done.chunks, "embeddingModelId": done.model })
}

struct IngestRender {
    info: RequestInfo,
}

impl Render<IngestEvent> for IngestRender {
    fn render(&mut self, event: IngestEvent, out: &mut String) {
        match event {
            IngestEvent::Progress { done, total } => {
                let data = json!({ "chunksDone": done, "chunksTotal": total, "traceId": self.info.trace });
                write_event(out, "event: progress\n", &data);
            }
            IngestEvent::Failed(error) => write_failure(&self.info, &error.into(), out),
            IngestEvent::Done(done) => {
                let mut data = told(&done);
                data["done"] = true.into();
                data["traceId"] = self.info.trace.as_str().into();
                write_event(out, "event: done\n", &data);
            }
        }
    }
}
