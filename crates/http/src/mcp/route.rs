//! `POST /mcp`

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use enigma_core::ToolName;
use enigma_core::ingest::ReadError;
use enigma_core::limit::RateStatus;
use enigma_core::tenant::{Caller, Scope};
use enigma_core::tools::{ToolCall, ToolCommand, ToolDefinition, ToolError, ToolRejected};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};

use super::json_rpc::{METHOD_NOT_FOUND, Malformed, Message, Request, RpcError, answered, parse};
use super::version::{Era, Lifetime, VERSIONS, agreed, server_info};
use super::{resources, tools};
use crate::access::Access;
use crate::app::App;
use crate::body::read_body;
use crate::envelope::json_response;
use crate::error::{ApiError, ErrorCode};
use crate::rate_headers;
use crate::request_info::RequestInfo;
use crate::routes::chat::with_windows;
use crate::validation::Issues;

const ROUTE: &str = "/mcp";
/// The tool that is no tool of the registry.
const SEARCH: &str = "search";
/// What a deployment speaks and offers changes with its next version only; the tools of a tenant, with its file.
const LIFETIME_OF_DISCOVERY: Lifetime = Lifetime(300_000);
const LIFETIME_OF_TOOLS: Lifetime = Lifetime(60_000);
/// Documents come and go at any time.
const NONE: Lifetime = Lifetime(0);
const INSTRUCTIONS: &str = "The tools and documents of one tenant. The tool `search` answers questions from the documents and cites \
                            them; each document is a resource, document:///{docId}.";

/// `POST /mcp`
pub(crate) async fn post(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let mut caller = access.caller_without_body();
    let answer = Conversation { app: &app, info: &info, access: &access }.answer(&mut caller, &headers, body).await;
    let mut response = with_windows(&app, &access, &caller, answer).await?;
    if !response.headers().contains_key("x-ratelimit-limit") {
        // What took no slot tells the windows too.
        let (admission, now) = (app.ports().chat.admission(), app.ports().clock.now());
        if let Ok(rate) = admission.peek(&access.context, &caller, now).await {
            rate_headers::write(response.headers_mut(), &rate, now);
        }
    }
    Ok(response)
}

/// Why a request has no result: by the rules of the protocol, or by those of the platform.
enum Refusal {
    Rpc(RpcError),
    Api(ApiError),
}

impl From<RpcError> for Refusal {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Api(code.into())
    }
}

struct Conversation<'a> {
    app: &'a App,
    info: &'a RequestInfo,
    access: &'a Access,
}

impl Conversation<'_> {
    async fn answer(&self, caller: &mut Caller, headers: &HeaderMap, body: Body) -> Result<Response, ApiError> {
        let settings = self.app.settings();
        self.check_origin(headers)?;
        if !accepts_both(headers) {
            return Err(ErrorCode::NotAcceptable.into());
        }
        let is_for_tools = self.access.require(Scope::Tools).is_ok();
        if !is_for_tools {
            self.access.require(Scope::Search)?;
        }
        let mut issues = Issues::default();
        let known = self.access.caller(None, &mut issues);
        caller.clone_from(&known);
        issues.check()?;
        // Documents come with calls of tools only.
        let most = if is_for_tools { settings.max_document_body_bytes } else { settings.max_body_bytes };
        let bytes = read_body(headers, body, most).await?;
        let request = match parse(&bytes) {
            Ok(Message::Request(request)) => request,
            // Nothing is kept between requests, so there is nothing that one could change.
            Ok(Message::Notification) => return Ok(StatusCode::ACCEPTED.into_response()),
            Err(malformed) => {
                let Malformed { id, error } = *malformed;
                return Ok(json_response(StatusCode::BAD_REQUEST, &answered(id.as_ref(), Err(&error))));
            }
        };
        // From now on errors are told under its id, whoever tells them.
        let _ = self.info.rpc.set(request.id.clone());
        if bytes.len() > settings.max_body_bytes && !self.takes_documents(&request) {
            return Err(ErrorCode::PayloadTooLarge.into());
        }
        drop(bytes);
        let era = match Era::of(headers, &request) {
            Ok(era) => era,
            Err(error) => {
                let status = Era::Modern.status(&error);
                return Ok(json_response(status, &answered(Some(&request.id), Err(&error))));
            }
        };
        self.carry_out(request, era, known).await
    }

    /// Pages of other sites must not speak for the user whose browser shows them, nor with a host that only that browser can reach.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let cors = self.access.context.tenant().cors();
        let is_allowed = |origin: &http::HeaderValue| origin.to_str().is_ok_and(|origin| cors.allows(origin));
        if headers.get_all(header::ORIGIN).iter().all(is_allowed) {
            Ok(())
        } else {
            Err(ErrorCode::OriginNotAllowed.into())
        }
    }

    fn takes_documents(&self, request: &Request) -> bool {
        let name = request.params.get("name").and_then(Value::as_str).and_then(|name| ToolName::new(name).ok());
        let tool = name.filter(|_| request.method == "tools/call");
        tool.and_then(|name| self.app.ports().tools.registry().definition(&name))
            .is_some_and(|tool| tool.takes_documents)
    }

    async fn carry_out(&self, request: Request, era: Era, caller: Caller) -> Result<Response, ApiError> {
        let Request { id, method, params } = request;
        let (rate, outcome) = if method == "tools/call" {
            self.call(params, era, caller).await?
        } else {
            if method.starts_with("resources/") {
                self.access.require(Scope::Search)?;
            } else if method.starts_with("tools/") {
                self.access.require(Scope::Tools)?;
            }
            let rate = self.take_slot(&caller).await?;
            (Some(rate), self.tell(&method, &params, era).await)
        };
        let (status, body) = match outcome {
            Ok(result) => (StatusCode::OK, answered(Some(&id), Ok(result))),
            Err(Refusal::Rpc(error)) => (era.status(&error), answered(Some(&id), Err(&error))),
            Err(Refusal::Api(error)) => return Err(ApiError { rate: rate.map(Box::new).or(error.rate), ..error }),
        };
        let mut response = json_response(status, &body);
        if let Some(rate) = rate {
            rate_headers::write(response.headers_mut(), &rate, self.app.ports().clock.now());
        }
        Ok(response)
    }

    /// What costs little takes its slot all the same: otherwise it would be without any limit.
    async fn take_slot(&self, caller: &Caller) -> Result<RateStatus, ApiError> {
        let (admission, clock) = (self.app.ports().chat.admission(), &self.app.ports().clock);
        admission.pass(&self.access.context, caller, self.info.request, clock.now()).await.map_err(ApiError::from)
    }

    /// Everything that is told and not done.
    async fn tell(&self, method: &str, params: &Map<String, Value>, era: Era) -> Result<Value, Refusal> {
        let (result, lifetime) = match (method, era) {
            ("initialize", _) => (self.initialized(params)?, None),
            ("server/discover", Era::Modern) => (self.discovered(), Some(LIFETIME_OF_DISCOVERY)),
            ("ping", Era::Handshake) => (json!({}), None),
            ("tools/list", _) => {
                resources::no_further_page(params)?;
                (tools::listed(self.tools(), era), Some(LIFETIME_OF_TOOLS))
            }
            ("resources/list", _) => {
                let after = resources::cursor(params)?;
                let documents = &self.app.ports().documents;
                let page = documents.list(&self.access.context, after.as_ref(), resources::PAGE).await;
                (resources::listed(&page.map_err(ApiError::from)?), Some(NONE))
            }
            ("resources/templates/list", _) => {
                resources::no_further_page(params)?;
                (resources::templates(), Some(LIFETIME_OF_DISCOVERY))
            }
            ("resources/read", _) => (self.read(params, era).await?, Some(NONE)),
            _ => return Err(RpcError::new(METHOD_NOT_FOUND, "There is no such method").into()),
        };
        Ok(era.dressed(result, lifetime))
    }

    fn capabilities(&self) -> Value {
        let mut capabilities = json!({});
        for (scope, name) in [(Scope::Tools, "tools"), (Scope::Search, "resources")] {
            if self.access.require(scope).is_ok() {
                capabilities[name] = json!({});
            }
        }
        capabilities
    }

    fn initialized(&self, params: &Map<String, Value>) -> Result<Value, RpcError> {
        Ok(json!({
            "protocolVersion": agreed(params)?,
            "capabilities": self.capabilities(),
            "serverInfo": server_info(),
            "instructions": INSTRUCTIONS,
        }))
    }

    fn discovered(&self) -> Value {
        json!({
            "supportedVersions": VERSIONS,
            "capabilities": self.capabilities(),
            "instructions": INSTRUCTIONS,
        })
    }

    /// The tools that the caller may use.
    fn tools(&self) -> impl Iterator<Item = &ToolDefinition> {
        let (context, search) = (&self.access.context, self.app.search_tool());
        let search = (self.is_search(SEARCH) && search.is_allowed(context)).then(|| search.definition());
        self.app.ports().tools.definitions(context).chain(search)
    }

    /// Whether that name is the one of search. A deployment may have registered a tool of its own under it.
    fn is_search(&self, name: &str) -> bool {
        let registry = self.app.ports().tools.registry();
        name == SEARCH && registry.definition(&self.app.search_tool().definition().name).is_none()
    }

    async fn read(&self, params: &Map<String, Value>, era: Era) -> Result<Value, Refusal> {
        let uri = resources::asked(params)?;
        let Some(document) = resources::document(uri) else { return Err(era.resource_not_found(uri).into()) };
        // What was taken in has come in a body of that size at most; normalised it may be somewhat longer.
        let most = self.app.settings().max_document_body_bytes.saturating_mul(2);
        match self.app.ports().documents.read(&self.access.context, &document, most).await {
            Ok(Some((_, text))) => Ok(resources::read(uri, &text)),
            Ok(None) => Err(era.resource_not_found(uri).into()),
            Err(ReadError::TooLarge(_)) => {
                let message = "The document is too large to be read".into();
                Err(ApiError { message, ..ApiError::new(ErrorCode::PayloadTooLarge) }.into())
            }
            Err(ReadError::Port(error)) => Err(ApiError::from(error).into()),
        }
    }

    async fn call(
        &self,
        mut params: Map<String, Value>,
        era: Era,
        caller: Caller,
    ) -> Result<(Option<RateStatus>, Result<Value, Refusal>), ApiError> {
        self.access.require(Scope::Tools)?;
        let tool = match tools::called(&mut params) {
            Ok(tool) => tool,
            Err(error) => return Ok((None, Err(error.into()))),
        };
        // What can be the name of no tool is not put on record as one.
        let Ok(name) = ToolName::new(tool.name) else { return Ok((None, Err(tools::unknown().into()))) };
        let is_search = self.is_search(tool.name);
        let command = ToolCommand {
            request: self.info.request,
            trace: self.info.trace.clone(),
            traceparent: self.info.traceparent.clone(),
            route: ROUTE,
            caller,
            call: ToolCall { name, params: tool.arguments },
            idempotency: None,
        };
        drop(params);
        self.access.sit(self.access.stream(self.app)?);
        let (context, background) = (self.access.context.clone(), self.access.background());
        let reply = if is_search {
            self.app.search_tool().execute(context, command, background).await
        } else {
            self.app.ports().tools.execute(context, command, &*background).await
        };
        Ok(match reply {
            Ok(reply) => (Some(reply.rate), Ok(era.dressed(tools::succeeded(reply.data, era), None))),
            Err(ToolRejected { error, rate }) => (rate, refused(error, era)),
        })
    }
}

/// Of what a tool can do better about, its caller is told in a result; of everything else in an error.
fn refused(error: ToolError, era: Era) -> Result<Value, Refusal> {
    match error {
        ToolError::Invalid(_) | ToolError::TimedOut(_) | ToolError::Failed(_) => {
            Ok(era.dressed(tools::failed(&ApiError::from(error)), None))
        }
        ToolError::NotFound(_) => Err(tools::unknown().into()),
        ToolError::Denied(_) | ToolError::Common(_) => Err(ApiError::from(error).into()),
    }
}

/// Whether a client can read both forms of an answer, as the protocol demands of it.
fn accepts_both(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let types: Vec<&str> = values
        .flat_map(|value| value.split(','))
        .map(|part| part.split(';').next().unwrap_or_default().trim())
        .collect();
    let accepts = |name: &str| types.iter().any(|it| *it == "*/*" || it.eq_ignore_ascii_case(name));
    accepts("application/json") && accepts("text/event-stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn both_forms_must_be_accepted() {
        let accepts = |all: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in all {
                headers.append(header::ACCEPT, HeaderValue::from_static(value));
            }
            accepts_both(&headers)
        };
        assert!(accepts(&["application/json, text/event-stream"]));
        assert!(accepts(&["text/event-stream;q=0.9", "Application/JSON; charset=utf-8"]));
        assert!(accepts(&["*/*"]));
        for bad in ["application/json", "text/event-stream", "", "text/html", "application/jsonp, text/event-streams"] {
            assert!(!accepts(&[bad]), "{bad}");
        }
        assert!(!accepts(&[]));
    }
}
