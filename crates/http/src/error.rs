//! Every error that a client can see: code, status, message, and the one place where outcomes of the core become codes.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use enigma_core::admission::AdmissionError;
use enigma_core::chat::{ChatError, ChatRejected, SessionError, StreamFailure};
use enigma_core::limit::RateStatus;
use enigma_core::model::{GatewayError, ModelError};
use enigma_core::search::{RetrievalError, RetrievalRejected};
use enigma_core::speech::{SpeechError, SpeechRejected};
use enigma_core::tenant::{AccessError, ScopeRequired};
use enigma_core::tools::{ToolError, ToolFailure, ToolRejected, Violation};
use enigma_core::{PortError, Timestamp};
use http::StatusCode;
use serde_json::{Value, json};

use crate::validation::Issue;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $status:ident, $message:literal;)*) => {
        /// The public codes of errors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
        }

        impl ErrorCode {
            /// Every code, in the order of the contract's table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Its HTTP status.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What clients are told when there is nothing more precise to say.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

codes! {
    /// Nothing names a tenant.
    TenantRequired = "tenant_required", BAD_REQUEST, "Name a tenant by x-tenant-id, host or API key";
    /// The body is not JSON.
    InvalidJson = "invalid_json", BAD_REQUEST, "The body is not valid JSON";
    /// A field is missing or wrong.
    InvalidRequest = "invalid_request", BAD_REQUEST, "Invalid request";
    /// The tool that a chat named has no result.
    ToolError = "tool_error", BAD_REQUEST, "The tool has no result";
    /// The parameters of a tool break its schema.
    ValidationFailed = "VALIDATION_FAILED", BAD_REQUEST, "The parameters do not keep to the tool's schema";
    /// Credentials are missing or wrong.
    Unauthorized = "unauthorized", UNAUTHORIZED, "Credentials are missing or wrong";
    /// The credentials are another tenant's.
    TenantMismatch = "tenant_mismatch", FORBIDDEN, "The credentials do not belong to this tenant";
    /// The credentials are not meant for this.
    ScopeRequired = "scope_required", FORBIDDEN, "The credentials lack the scope for this";
    /// The model is not on the allow-list.
    ModelNotAllowed = "model_not_allowed", FORBIDDEN, "The model is not allowed for this tenant";
    /// Speech is switched off.
    TtsNotEnabled = "tts_not_enabled", FORBIDDEN, "Speech is not enabled for this tenant";
    /// The feature is switched off.
    FeatureDisabled = "feature_disabled", FORBIDDEN, "The feature is not enabled for this tenant";
    /// The caller may not use the tool.
    PermissionDenied = "PERMISSION_DENIED", FORBIDDEN, "The tool is not allowed here";
    /// The page that asks is none of the tenant's.
    OriginNotAllowed = "origin_not_allowed", FORBIDDEN, "The origin is not allowed for this tenant";
    /// No such tenant.
    TenantUnknown = "tenant_unknown", NOT_FOUND, "No such tenant";
    /// No such thing.
    NotFound = "not_found", NOT_FOUND, "Not found";
    /// No such tool.
    ToolNotFound = "TOOL_NOT_FOUND", NOT_FOUND, "There is no such tool";
    /// The route exists, for other methods.
    MethodNotAllowed = "method_not_allowed", METHOD_NOT_ALLOWED, "The route does not answer this method";
    /// The client cannot read what it would be answered with.
    NotAcceptable = "not_acceptable", NOT_ACCEPTABLE, "Accept application/json and text/event-stream";
    /// The first request with this key still runs.
    IdempotencyInProgress = "idempotency_in_progress", CONFLICT, "The first request with this Idempotency-Key still runs";
    /// The body is too large.
    PayloadTooLarge = "payload_too_large", PAYLOAD_TOO_LARGE, "The body is too large";
    /// The body is not of a type that is understood.
    UnsupportedMediaType = "unsupported_media_type", UNSUPPORTED_MEDIA_TYPE, "Send the body as application/json";
    /// The key was used for something else.
    IdempotencyMismatch = "idempotency_mismatch", UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another request";
    /// Too many requests.
    RateLimited = "rate_limited", TOO_MANY_REQUESTS, "Too many requests";
    /// The token budget is used up.
    BudgetExceeded = "budget_exceeded", TOO_MANY_REQUESTS, "The token budget is used up";
    /// Too many answers under way.
    TooManyStreams = "too_many_streams", TOO_MANY_REQUESTS, "Too many answers are under way";
    /// A fault of ours.
    Internal = "internal_error", INTERNAL_SERVER_ERROR, "Internal error";
    /// The tool failed.
    ExecutionError = "EXECUTION_ERROR", INTERNAL_SERVER_ERROR, "The tool failed";
    /// The tool took too long.
    ExecutionTimeout = "EXECUTION_TIMEOUT", INTERNAL_SERVER_ERROR, "The tool took too long";
    /// There is no audio, or not in this format.
    TtsError = "tts_error", INTERNAL_SERVER_ERROR, "The text could not be spoken";
    /// The model failed.
    AiError = "ai_error", BAD_GATEWAY, "AI provider unavailable";
    /// Something we depend on cannot be reached, or is full.
    Unavailable = "unavailable", SERVICE_UNAVAILABLE, "The service is temporarily unavailable";
    /// The model took too long.
    AiTimeout = "ai_timeout", GATEWAY_TIMEOUT, "The AI provider took too long";
}

impl ErrorCode {
    /// The `type` of an error in OpenAI's shape.
    pub(crate) const fn openai_type(self) -> &'static str {
        match self {
            Self::Unauthorized => "authentication_error",
            Self::TenantMismatch
            | Self::ScopeRequired
            | Self::ModelNotAllowed
            | Self::FeatureDisabled
            | Self::TtsNotEnabled
            | Self::PermissionDenied
            | Self::OriginNotAllowed => "permission_error",
            Self::RateLimited | Self::TooManyStreams => "rate_limit_error",
            Self::BudgetExceeded => "insufficient_quota",
            Self::Internal
            | Self::ExecutionError
            | Self::ExecutionTimeout
            | Self::TtsError
            | Self::AiError
            | Self::Unavailable
            | Self::AiTimeout => "server_error",
            Self::TenantRequired
            | Self::InvalidJson
            | Self::InvalidRequest
            | Self::ToolError
            | Self::ValidationFailed
            | Self::TenantUnknown
            | Self::NotFound
            | Self::ToolNotFound
            | Self::MethodNotAllowed
            | Self::NotAcceptable
            | Self::IdempotencyInProgress
            | Self::PayloadTooLarge
            | Self::UnsupportedMediaType
            | Self::IdempotencyMismatch => "invalid_request_error",
        }
    }
}

/// When a refused request may be tried again; the edge, which knows the time, makes `Retry-After` of it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Retry {
    /// In a second.
    Soon,
    /// At this time.
    At(Timestamp),
}

/// An error on its way to a client. The cause stays behind, for the log.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    pub(crate) code: ErrorCode,
    pub(crate) message: Cow<'static, str>,
    pub(crate) details: Option<Box<Value>>,
    pub(crate) param: Option<String>,
    pub(crate) rate: Option<Box<RateStatus>>,
    pub(crate) retry: Option<Retry>,
    /// Whether credentials were shown that open nothing, which RFC 6750 wants told apart from none.
    pub(crate) bad_credentials: bool,
    pub(crate) cause: Option<Arc<dyn StdError + Send + Sync>>,
    /// Whether the log knows already: refusals of an overloaded host are told together.
    pub(crate) told: bool,
}

impl ApiError {
    pub(crate) fn new(code: ErrorCode) -> Self {
        let message = Cow::Borrowed(code.message());
        let retry = (code == ErrorCode::Unavailable).then_some(Retry::Soon);
        Self {
            code,
            message,
            details: None,
            param: None,
            rate: None,
            retry,
            bad_credentials: false,
            cause: None,
            told: false,
        }
    }

    pub(crate) fn invalid(issues: &[Issue]) -> Self {
        let param = issues.first().map(Issue::path_text);
        let message = match issues {
            [only] if !only.path_text().is_empty() => {
                format!("Invalid request: {} {}", only.path_text(), only.message).into()
            }
            _ => Cow::Borrowed(ErrorCode::InvalidRequest.message()),
        };
        Self {
            message,
            param,
            details: Some(Box::new(json!({ "issues": issues }))),
            ..Self::new(ErrorCode::InvalidRequest)
        }
    }

    fn caused_by(mut self, cause: impl StdError + Send + Sync + 'static) -> Self {
        self.cause = Some(Arc::new(cause));
        self
    }

    fn retry_soon(self) -> Self {
        Self { retry: Some(Retry::Soon), ..self }
    }
}

impl From<ErrorCode> for ApiError {
    fn from(code: ErrorCode) -> Self {
        Self::new(code)
    }
}

impl IntoResponse for ApiError {
    /// The body is written at the edge, which knows the trace and the shape that the route's clients expect.
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<PortError> for ApiError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Unavailable { .. } | PortError::Timeout { .. } => Self::new(ErrorCode::Unavailable),
            PortError::Corrupt { .. } => Self::new(ErrorCode::Internal),
        }
        .caused_by(error)
    }
}

impl From<AccessError> for ApiError {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::TenantRequired => Self::new(ErrorCode::TenantRequired),
            AccessError::TenantUnknown => Self::new(ErrorCode::TenantUnknown),
            AccessError::Unauthorized => Self::new(ErrorCode::Unauthorized),
            AccessError::BadCredentials => Self { bad_credentials: true, ..Self::new(ErrorCode::Unauthorized) },
            AccessError::TenantMismatch => Self::new(ErrorCode::TenantMismatch),
            AccessError::Port(error) => error.into(),
        }
    }
}

impl From<ScopeRequired> for ApiError {
    fn from(ScopeRequired(scope): ScopeRequired) -> Self {
        Self { details: Some(Box::new(json!({ "scope": scope }))), ..Self::new(ErrorCode::ScopeRequired) }
    }
}

impl From<SessionError> for ApiError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::NotFound => Self::new(ErrorCode::NotFound),
            SessionError::Busy => Self::new(ErrorCode::Unavailable).caused_by(error),
            SessionError::Port(error) => error.into(),
        }
    }
}

impl From<ChatRejected> for ApiError {
    fn from(rejected: ChatRejected) -> Self {
        Self { rate: rejected.rate.map(Box::new), ..rejected.error.into() }
    }
}

impl From<ChatError> for ApiError {
    fn from(error: ChatError) -> Self {
        match error {
            ChatError::ModelNotAllowed(_) => Self::new(ErrorCode::ModelNotAllowed),
            ChatError::Admission(error) => error.into(),
            ChatError::Gateway(GatewayError::UnknownModel(_)) => {
                let issue = Issue::new("modelId", "names a model that is not served here");
                // The field has another name on each face.
                let message = "The model is not served here".into();
                Self { param: Some("model".to_owned()), message, ..Self::invalid(&[issue]) }
            }
            ChatError::Gateway(GatewayError::Failed { ref source, .. }) => from_model(source).caused_by(error),
            ChatError::Port(error) => error.into(),
            ChatError::IdempotencyInProgress => Self::new(ErrorCode::IdempotencyInProgress).retry_soon(),
            ChatError::IdempotencyMismatch => Self::new(ErrorCode::IdempotencyMismatch),
            // As little as is said of it by the routes that show sessions.
            ChatError::SessionOfAnother => Self::new(ErrorCode::NotFound),
            ChatError::SessionWithTools => Self::invalid(&[Issue::new(
                "x-session-id",
                "cannot be combined with tools: a session keeps plain text",
            )]),
            ChatError::SessionWithoutQuestion => {
                Self::invalid(&[Issue::new("messages", "must end with the user's where a session is kept")])
            }
            ChatError::Tool(error) => {
                let inner = Self::from(*error);
                let mut details = json!({ "code": inner.code.as_str() });
                if let (Some(all), Some(more)) =
                    (details.as_object_mut(), inner.details.as_deref().and_then(Value::as_object))
                {
                    all.extend(more.clone());
                }
                let message = inner.message.clone();
                Self { message, details: Some(Box::new(details)), ..Self { code: ErrorCode::ToolError, ..inner } }
            }
            ChatError::TimedOut => Self::new(ErrorCode::AiTimeout).caused_by(error),
            // Nobody reads the answer to a client that has gone.
            ChatError::ClientGone | ChatError::ShuttingDown => Self::new(ErrorCode::Unavailable),
            ChatError::Died => Self::new(ErrorCode::Internal).caused_by(error),
        }
    }
}

impl From<RetrievalRejected> for ApiError {
    fn from(rejected: RetrievalRejected) -> Self {
        Self { rate: rejected.rate.map(Box::new), ..rejected.error.into() }
    }
}

impl From<RetrievalError> for ApiError {
    fn from(error: RetrievalError) -> Self {
        match error {
            RetrievalError::Common(error) => error.into(),
            RetrievalError::NoEmbeddingModel => {
                Self { message: "The tenant has no embedding model".into(), ..Self::new(ErrorCode::FeatureDisabled) }
            }
            RetrievalError::OtherSpace { ref has, ref model, dimensions } => {
                let index = json!({ "model": has.model, "dimensions": has.dimensions });
                let details = json!({ "index": index, "model": { "model": model, "dimensions": dimensions } });
                let message = "The tenant's documents have vectors of another embedding model. Set that model again, or \
                               delete the documents first.";
                Self {
                    message: message.into(),
                    details: Some(Box::new(details)),
                    ..Self::new(ErrorCode::InvalidRequest)
                }
                .caused_by(error)
            }
            RetrievalError::TooManyChunks { chunks, most } => {
                let message = format!("makes {chunks} chunks, and a document may have {most}");
                Self::invalid(&[Issue::new("text", message)])
            }
            RetrievalError::NoText => Self::invalid(&[Issue::new("text", "must not be blank")]),
            RetrievalError::Lost => Self::new(ErrorCode::Unavailable).caused_by(error),
        }
    }
}

impl From<ToolRejected> for ApiError {
    fn from(rejected: ToolRejected) -> Self {
        let rate = rejected.rate.map(Box::new);
        let error = Self::from(rejected.error);
        Self { rate: rate.or_else(|| error.rate.clone()), ..error }
    }
}

impl From<ToolError> for ApiError {
    fn from(error: ToolError) -> Self {
        let with = |code, details| Self { details: Some(Box::new(details)), ..Self::new(code) };
        match error {
            ToolError::Common(error) => error.into(),
            ToolError::NotFound(_) => Self::new(ErrorCode::ToolNotFound),
            ToolError::Denied(permission) => {
                with(ErrorCode::PermissionDenied, json!({ "permission": permission.to_string() }))
            }
            ToolError::Invalid(violations) => {
                let issues: Vec<Value> = violations.iter().map(violation).collect();
                with(ErrorCode::ValidationFailed, json!({ "issues": issues }))
            }
            ToolError::TimedOut(after) => {
                let limit = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                with(ErrorCode::ExecutionTimeout, json!({ "timeoutMs": limit })).caused_by(error)
            }
            ToolError::Failed(failure) => from_failure(failure),
        }
    }
}

/// A place in the parameters of a tool, in both of the forms that clients use.
fn violation(violation: &Violation) -> Value {
    let steps = violation.pointer.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~"));
    let path: Vec<String> = std::iter::once("params".to_owned()).chain(steps).collect();
    json!({ "path": path, "pointer": violation.pointer, "message": violation.message })
}

/// What clients are told of a tool that failed: why, as far as that is theirs to know.
fn from_failure(failure: ToolFailure) -> ApiError {
    let told = |reason: &str| ApiError {
        details: Some(Box::new(json!({ "reason": reason }))),
        ..ApiError::new(ErrorCode::ExecutionError)
    };
    match failure {
        ToolFailure::Told(message) => ApiError { message: message.into(), ..ApiError::new(ErrorCode::ExecutionError) },
        ToolFailure::Unusable(_) => told("unusable_answer").caused_by(failure),
        ToolFailure::Common(error) => {
            let inner = ApiError::from(error);
            ApiError { cause: inner.cause.clone(), ..told(inner.code.as_str()) }
        }
        ToolFailure::Retrieval(error) => {
            let inner = ApiError::from(error);
            let message = inner.message.clone();
            ApiError { message, cause: inner.cause.clone(), ..told(inner.code.as_str()) }
        }
        ToolFailure::Invalid(_) | ToolFailure::Other(_) => ApiError::new(ErrorCode::ExecutionError).caused_by(failure),
    }
}

impl From<SpeechRejected> for ApiError {
    fn from(rejected: SpeechRejected) -> Self {
        Self { rate: rejected.rate.map(Box::new), ..rejected.error.into() }
    }
}

impl From<SpeechError> for ApiError {
    fn from(error: SpeechError) -> Self {
        match error {
            SpeechError::Common(ChatError::Gateway(GatewayError::Failed { ref source, .. })) => {
                from_speaker(source).caused_by(error)
            }
            SpeechError::Common(error) => error.into(),
            SpeechError::SwitchedOff => Self::new(ErrorCode::TtsNotEnabled),
            SpeechError::NoModel => {
                Self { message: "The tenant has no model that speaks".into(), ..Self::new(ErrorCode::TtsNotEnabled) }
            }
            SpeechError::NoEncoder { format, ref formats } => {
                let details = json!({ "format": format, "formats": formats });
                let message = format!("Nothing here writes {format} for this model").into();
                Self { message, details: Some(Box::new(details)), ..Self::new(ErrorCode::TtsError) }
            }
            SpeechError::UnknownVoice => Self::invalid(&[Issue::new("voice", "is none of the model's")]),
        }
    }
}

impl From<AdmissionError> for ApiError {
    fn from(error: AdmissionError) -> Self {
        match error {
            AdmissionError::RateLimited(rate) => {
                let retry = Some(Retry::At(rate.reset_at));
                Self { rate: Some(Box::new(rate)), retry, ..Self::new(ErrorCode::RateLimited) }
            }
            AdmissionError::TooManyStreams { full, rate } => {
                let details = Some(Box::new(json!({ "limit": full.limit })));
                Self { rate: Some(Box::new(rate)), details, ..Self::new(ErrorCode::TooManyStreams).retry_soon() }
            }
            AdmissionError::BudgetExceeded(exceeded) => {
                let details = json!({ "period": exceeded.period, "resetsAt": exceeded.resets_at.to_rfc3339() });
                let retry = Some(Retry::At(exceeded.resets_at));
                Self { details: Some(Box::new(details)), retry, ..Self::new(ErrorCode::BudgetExceeded) }
            }
            AdmissionError::Port(error) => error.into(),
        }
    }
}

fn from_model(error: &ModelError) -> ApiError {
    match error {
        ModelError::Unavailable { .. }
        | ModelError::RateLimited { .. }
        | ModelError::Interrupted { .. }
        | ModelError::Malformed { .. }
        | ModelError::Rejected { .. }
        | ModelError::Unauthorized { .. }
        | ModelError::BreakerOpen => ApiError::new(ErrorCode::AiError),
        ModelError::Busy => ApiError::new(ErrorCode::Unavailable),
        ModelError::Timeout(_) => ApiError::new(ErrorCode::AiTimeout),
        ModelError::Unsupported { feature } => {
            ApiError::invalid(&[Issue::new(feature, "is not supported by the model")])
        }
        ModelError::PromptTooLong => ApiError::invalid(&[Issue::new("messages", "are too long for the model")]),
        ModelError::ContextLength { tokens, limit } => {
            let message = format!("make {tokens} tokens and the model takes {limit}");
            ApiError::invalid(&[Issue::new("messages", message)])
        }
    }
}

fn from_speaker(error: &ModelError) -> ApiError {
    match error {
        ModelError::Unavailable { .. }
        | ModelError::RateLimited { .. }
        | ModelError::Interrupted { .. }
        | ModelError::Malformed { .. }
        | ModelError::Rejected { .. }
        | ModelError::Unauthorized { .. }
        | ModelError::BreakerOpen => ApiError::new(ErrorCode::TtsError),
        ModelError::PromptTooLong | ModelError::ContextLength { .. } => {
            // The field has another name on each face.
            ApiError {
                param: Some("input".to_owned()),
                ..ApiError::invalid(&[Issue::new("text", "is too long for the model")])
            }
        }
        ModelError::Busy | ModelError::Timeout(_) | ModelError::Unsupported { .. } => from_model(error),
    }
}

/// What a client is told when a reply breaks off.
pub(crate) const fn stream_failure(failure: StreamFailure) -> ErrorCode {
    match failure {
        StreamFailure::Model => ErrorCode::AiError,
        StreamFailure::TimedOut => ErrorCode::AiTimeout,
        StreamFailure::ShutDown | StreamFailure::NotKept => ErrorCode::Unavailable,
    }
}
