//! `GET /schema/tools`, `POST /tools/execute`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use enigma_core::tenant::{Caller, Scope};
use enigma_core::tools::{ToolCall, ToolCommand, ToolDefinition, ToolReply};
use enigma_core::{ToolName, UserId};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::chat::{idempotency, with_windows};
use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::envelope::success;
use crate::error::{ApiError, ErrorCode};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/tools/execute";

/// `GET /schema/tools`
pub(crate) async fn schema(State(app): State<App>, info: RequestInfo, access: Access) -> Result<Response, ApiError> {
    access.require(Scope::Tools)?;
    let tools: Vec<Value> = app.ports().tools.definitions(&access.context).map(told).collect();
    Ok(success(&info, json!({ "tools": tools })))
}

fn told(tool: &ToolDefinition) -> Value {
    let permissions: Vec<String> = tool.permissions.iter().map(ToString::to_string).collect();
    json!({
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "output": tool.output,
        "timeout": millis(tool.timeout),
        "permissions": permissions,
    })
}

/// `POST /tools/execute`
pub(crate) async fn execute(
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
    access.require(Scope::Tools)?;
    // Before the body is read, so that a refusal costs nothing.
    let place = access.stream(app)?;
    let (bytes, json) = read_json(headers, body, app.settings().max_document_body_bytes).await?;
    let mut issues = Issues::default();
    let asked = parse(&json, &mut issues);
    let known = access.caller(asked.as_ref().and_then(|asked| asked.user.clone()), &mut issues);
    caller.clone_from(&known);
    let idempotency = idempotency(headers, &known.subject, ROUTE, &[&bytes], &mut issues);
    issues.check()?;
    let Some(ToolRequest { call: Some(call), .. }) = asked else { return Err(ErrorCode::InvalidRequest.into()) };
    let tools = &app.ports().tools;
    // Which tool it is for, and so how large it may be, is known only when it has been read.
    let takes_documents = tools.registry().definition(&call.name).is_some_and(|tool| tool.takes_documents);
    if !takes_documents && bytes.len() > app.settings().max_body_bytes {
        return Err(ErrorCode::PayloadTooLarge.into());
    }
    let command = ToolCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        call,
        idempotency,
    };
    drop((bytes, json));
    access.sit(place);
    let reply = tools.execute(access.context.clone(), command, &*access.background()).await?;
    Ok(replied(app, info, access, reply))
}

/// A body, parsed and validated as far as it goes. What the parameters must be only the tool's schema says.
struct ToolRequest {
    call: Option<ToolCall>,
    user: Option<UserId>,
}

fn parse(body: &Value, issues: &mut Issues) -> Option<ToolRequest> {
    let fields = Fields::of_body(body, issues)?;
    let name: Option<ToolName> = fields.parsed("tool_name", issues);
    let name = fields.required("tool_name", name, issues);
    fields.object("params", issues);
    let params = params(fields.value("params"));
    let user: Option<UserId> = fields.parsed("user_id", issues);
    // As on the other routes.
    let user = user.or(fields.parsed("userId", issues));
    Some(ToolRequest { call: name.map(|name| ToolCall { name, params }), user })
}

/// The parameters of a tool; none is as good as an empty object.
pub(super) fn params(value: Option<&Value>) -> Value {
    value.cloned().unwrap_or_else(|| json!({}))
}

fn replied(app: &App, info: &RequestInfo, access: &Access, reply: ToolReply) -> Response {
    let ToolReply { data, duration, tokens, rate, replayed } = reply;
    let mut metadata = json!({ "durationMs": millis(duration) });
    if tokens > 0 {
        metadata["tokensUsed"] = tokens.into();
    }
    let mut response = success(info, json!({ "success": true, "data": data, "metadata": metadata }));
    let headers = response.headers_mut();
    let tenant = HeaderValue::from_str(access.context.id().as_str()).expect("ids are visible ASCII");
    headers.insert("x-tenant-id", tenant);
    if replayed {
        headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    rate_headers::write(headers, &rate, app.ports().clock.now());
    response
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
