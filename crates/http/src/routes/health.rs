//! Is it there, is it ready, and what does a tenant get.

use axum::extract::State;
use axum::response::Response;
use enigma_core::model::select_models;
use serde_json::json;

use crate::access::Access;
use crate::app::App;
use crate::envelope::success;
use crate::error::{ApiError, ErrorCode};
use crate::request_info::RequestInfo;

/// `GET /health`
pub(crate) async fn health(State(app): State<App>, info: RequestInfo, access: Access) -> Response {
    let tenant = access.context.tenant();
    let overrides = &app.ports().chat.settings().overrides;
    let plan = select_models(None, overrides, tenant).ok();
    let primary = overrides.model.as_ref().unwrap_or_else(|| tenant.chat_model());
    let data = json!({
        "status": "ok",
        "tenant": tenant.id(),
        "environment": app.settings().environment,
        "models": {
            "chat": primary,
            "fallback": plan.as_ref().and_then(|plan| plan.fallback()),
            "embeddings": tenant.embedding_model(),
        },
    });
    success(&info, data)
}

/// `GET /healthz`: the process answers.
pub(crate) async fn alive(info: RequestInfo) -> Response {
    success(&info, json!({ "status": "ok" }))
}

/// `GET /readyz`: what it depends on is there.
pub(crate) async fn ready(State(app): State<App>, info: RequestInfo) -> Result<Response, ApiError> {
    match app.ports().readiness.check().await {
        Ok(()) => Ok(success(&info, json!({ "status": "ready" }))),
        Err(reason) => {
            tracing::warn!(reason, "not ready");
            Err(ErrorCode::Unavailable.into())
        }
    }
}
