//! `POST /v1/embeddings`

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use enigma_core::embeddings::{EmbedCommand, EmbedReply};
use enigma_core::tenant::{Caller, Scope};
use enigma_core::{ModelId, UserId};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::access::Access;
use crate::app::App;
use crate::body::read_json;
use crate::envelope::json_response;
use crate::error::{ApiError, ErrorCode};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::routes::chat::with_windows;
use crate::validation::{Fields, Issues};

const ROUTE: &str = "/v1/embeddings";
/// The most texts of a request, as with OpenAI.
const MAX_INPUTS: usize = 2048;
/// The most dimensions that may be asked for.
const MAX_DIMENSIONS: u64 = 8192;

/// `POST /v1/embeddings`
pub(crate) async fn create(
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
    let asked = asked.ok_or(ErrorCode::InvalidRequest)?;
    let command = EmbedCommand {
        request: info.request,
        trace: info.trace.clone(),
        traceparent: info.traceparent.clone(),
        route: ROUTE,
        caller: known,
        model: asked.model,
        inputs: asked.inputs,
        dimensions: asked.dimensions,
    };
    access.sit(place);
    let reply = app.ports().embeddings.embed(access.context.clone(), command, &*access.background()).await?;
    Ok(response(app, access, &reply, asked.base64))
}

/// A body, parsed and validated as far as it goes.
pub(crate) struct EmbeddingsRequest {
    model: Option<ModelId>,
    inputs: Vec<String>,
    dimensions: Option<u32>,
    base64: bool,
    user: Option<UserId>,
}

/// Reads a body. What is wrong is added to `issues`.
pub(crate) fn parse(body: &Value, issues: &mut Issues) -> Option<EmbeddingsRequest> {
    let fields = Fields::of_body(body, issues)?;
    let model = fields.parsed("model", issues);
    let model = fields.required("model", model, issues);
    let inputs = match fields.value("input") {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(texts)) => {
            let inputs: Vec<String> = texts.iter().filter_map(|text| text.as_str().map(str::to_owned)).collect();
            if inputs.len() != texts.len() {
                fields.wrong("input", "must be texts: tokens belong to a model's own alphabet", issues);
            }
            inputs
        }
        Some(_) => {
            fields.wrong("input", "must be a text or a list of texts", issues);
            Vec::new()
        }
        None => fields.required("input", Some(Vec::new()), issues).unwrap_or_default(),
    };
    if fields.value("input").is_some() && (inputs.is_empty() || inputs.len() > MAX_INPUTS) {
        fields.wrong("input", format!("must be 1 to {MAX_INPUTS} texts"), issues);
    }
    if inputs.iter().any(|text| text.trim().is_empty()) {
        fields.wrong("input", "must have no blank texts", issues);
    }
    let format = fields.text("encoding_format", issues);
    if format.is_some_and(|format| format != "float" && format != "base64") {
        fields.wrong("encoding_format", "must be float or base64", issues);
    }
    let dimensions = fields.integer_within("dimensions", 1, MAX_DIMENSIONS, issues);
    let user = fields.parsed("user", issues);
    let dimensions = dimensions.and_then(|dimensions| u32::try_from(dimensions).ok());
    Some(EmbeddingsRequest { model, inputs, dimensions, base64: format == Some("base64"), user })
}

fn response(app: &App, access: &Access, reply: &EmbedReply, base64: bool) -> Response {
    let EmbedReply { embedded, rate } = reply;
    let encoded = |vector: &[f32]| -> Value {
        if base64 {
            // Little-endian, as OpenAI's SDKs read it.
            let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            vector.into()
        }
    };
    let data: Vec<Value> = (embedded.vectors.iter().enumerate())
        .map(|(index, vector)| json!({ "object": "embedding", "index": index, "embedding": encoded(vector) }))
        .collect();
    let body = json!({
        "object": "list",
        "data": data,
        "model": embedded.space.model,
        "usage": { "prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens },
    });
    let mut response = json_response(StatusCode::OK, &body);
    let headers = response.headers_mut();
    let text = |text: &str| HeaderValue::from_str(text).expect("ids are visible ASCII");
    headers.insert("x-tenant-id", text(access.context.id().as_str()));
    headers.insert("x-model-id", text(embedded.space.model.as_str()));
    headers.insert("x-tokens-in", embedded.tokens.into());
    rate_headers::write(headers, rate, app.ports().clock.now());
    response
}
