//! `POST /search`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::retrieval::{MAX_QUERY_CHARS, MetadataFilter, SearchMode};
use enigma_core::search::{SearchCommand, SearchDone, SearchEvent, SearchReply, Source};
use enigma_core::tenant::{Caller, Scope};
use enigma_core::{TenantId, UserId};
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::chat::with_windows;
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::envelope::{error_body, json_response};
use crate::error::{ApiError, ErrorCode, stream_failure};
use crate::event_stream::{Render, event_stream, wants_events, write_event};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/search";
/// Sources where the request does not say how many.
const DEFAULT_TOP_K: u64 = 5;
/// The most sources.
const MAX_TOP_K: u64 = 20;

/// `POST /search`
pub(crate) async fn search(
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
    access.require(Scope::Search)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let (_, json) = read_json(headers, body, app.settings().max_body_bytes).await?;
    let mut issues = Issues::default();
    let asked = parse(&json, &mut issues);
    let known = access.caller(asked.as_ref().and_then(|asked| asked.user.clone()), &mut issues);
    caller.clone_from(&known);
    issues.check()?;
    let Some(SearchRequest { query: Some(query), top_k, filter, mode, .. }) = asked else {
        return Err(ErrorCode::InvalidRequest.into());
    };
    let command = SearchCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        query: query.to_owned(),
        top_k,
        filter,
        mode,
    };
    access.sit(place);
    let reply = app.ports().search.search(access.context.clone(), command, &*access.background()).await?;
    let tenant = access.context.id();
    let headers_out = reply_headers(app, tenant, &reply);
    if wants_events(headers) {
        let render = SearchRender { tenant: tenant.to_string(), info: info.clone(), number: 0, failed: false };
        return Ok(event_stream(reply.events, render, &app.ports().clock, app.settings().keep_alive, headers_out));
    }
    whole(info, reply, headers_out).await
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct SearchRequest<'a> {
    query: Option<&'a str>,
    top_k: u32,
    filter: MetadataFilter,
    mode: SearchMode,
    user: Option<UserId>,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse<'a>(body: &'a Value, issues: &mut Issues) -> Option<SearchRequest<'a>> {
    let fields = Fields::of_body(body, issues)?;
    let query = fields.text_within("query", 1, MAX_QUERY_CHARS, issues);
    let query = fields.required("query", query, issues);
    if query.is_some_and(|query| query.trim().is_empty()) {
        fields.wrong("query", "must not be blank", issues);
    }
    let top_k = fields.integer_within("topK", 1, MAX_TOP_K, issues).unwrap_or(DEFAULT_TOP_K);
    let filter = fields.value("filter").map(MetadataFilter::from_json).transpose().unwrap_or_else(|error| {
        let place = error.path.iter().fold(String::new(), |place, step| place + "[" + step + "] ");
        fields.wrong("filter", format!("{place}{}", error.reason), issues);
        None
    });
    let mode = fields.text("mode", issues).and_then(|text| {
        let mode = SearchMode::parse(text);
        if mode.is_none() {
            fields.wrong("mode", "must be hybrid, vector or keyword", issues);
        }
        mode
    });
    let user = fields.parsed("userId", issues);
    let top_k = u32::try_from(top_k).unwrap_or_default();
    Some(SearchRequest { query, top_k, filter: filter.unwrap_or_default(), mode: mode.unwrap_or_default(), user })
}

/// The headers that a reply has, whatever its form.
fn reply_headers(app: &App, tenant: &TenantId, reply: &SearchReply) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let text = |text: &str| HeaderValue::from_str(text).expect("ids are visible ASCII");
    headers.insert("x-tenant-id", text(tenant.as_str()));
    headers.insert("x-model-id", text(reply.model.as_str()));
    headers.insert("x-cache", HeaderValue::from_static(reply.cache.as_str()));
    rate_headers::write(&mut headers, &reply.rate, app.ports().clock.now());
    headers
}

async fn whole(info: &RequestInfo, reply: SearchReply, headers: HeaderMap) -> Result<Response, ApiError> {
    let (rate, mut events) = (reply.rate, reply.events);
    let (mut sources, mut answer, mut failure) = (Vec::new(), String::new(), None);
    let done = loop {
        match events.next().await {
            Some(SearchEvent::Sources(found)) => sources = found,
            Some(SearchEvent::Content(text)) => answer.push_str(&text),
            Some(SearchEvent::Failed(kind)) => failure = Some(stream_failure(kind)),
            Some(SearchEvent::Done(done)) => break done,
            None => return Err(ErrorCode::Internal.into()),
        }
    };
    if let Some(code) = failure {
        return Err(ApiError { rate: Some(Box::new(rate)), ..code.into() });
    }
    let data = json!({
        "status": "ok",
        "traceId": info.trace.as_str(),
        "answer": answer,
        "sources": sources,
        "confidence": done.confidence,
        "followUps": done.follow_ups,
    });
    let body = json!({ "ok": true, "data": data, "usage": usage(&done), "traceId": info.trace.as_str() });
    let mut response = json_response(StatusCode::OK, &body);
    response.headers_mut().extend(headers);
    Ok(response)
}

fn usage(done: &SearchDone) -> Value {
    json!({
        "modelId": done.model,
        "tokensIn": done.tokens_in,
        "tokensOut": done.tokens_out,
        "totalTokens": done.tokens_in + done.tokens_out,
        "latencyMs": u64::try_from(done.latency.as_millis()).unwrap_or(u64::MAX),
    })
}

struct SearchRender {
    tenant: String,
    info: RequestInfo,
    number: u64,
    failed: bool,
}

impl SearchRender {
    fn sources(&self, sources: &[Source], out: &mut String) {
        let data = json!({ "sources": sources, "tenantId": self.tenant, "traceId": self.info.trace });
        write_event(out, "event: sources\n", &data);
    }
}

impl Render<SearchEvent> for SearchRender {
    fn render(&mut self, event: SearchEvent, out: &mut String) {
        match event {
            SearchEvent::Sources(sources) => self.sources(&sources, out),
            SearchEvent::Content(content) => {
                self.number += 1;
                let data = json!({ "content": content, "tenantId": self.tenant, "traceId": self.info.trace });
                write_event(out, &format!("id: {}\n", self.number), &data);
            }
            SearchEvent::Failed(failure) => {
                self.failed = true;
                write_failure(&self.info, &stream_failure(failure).into(), out);
            }
            SearchEvent::Done(done) => {
                let data = json!({
                    "done": true,
                    "status": if self.failed { "error" } else { "ok" },
                    "confidence": done.confidence,
                    "followUps": done.follow_ups,
                    "usage": usage(&done),
                });
                write_event(out, "event: done\n", &data);
            }
        }
    }
}

/// Tells in a stream that something failed.
pub(crate) fn write_failure(info: &RequestInfo, error: &ApiError, out: &mut String) {
    let body = error_body(info, error);
    let mut data = json!({ "code": body["error"]["code"], "message": body["error"]["message"], "traceId": info.trace });
    if let Some(details) = &error.details {
        data["details"] = Value::clone(details);
    }
    write_event(out, "event: error\n", &data);
}
