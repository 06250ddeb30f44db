//! Which route is answered by what.

use axum::routing::{get, post};
use axum::{Router, middleware};

use crate::app::App;
use crate::edge::edge;
use crate::error::{ApiError, ErrorCode};
use crate::{mcp, openai, routes};

/// Every route, with its methods, as in `GET /openapi.json`.
pub const ROUTES: &[(&str, &str)] = &[
    ("POST", "/chat"),
    ("GET", "/chat/{sessionId}/history"),
    ("DELETE", "/chat/{sessionId}"),
    ("GET", "/sessions"),
    ("GET", "/sessions/{sessionId}/history"),
    ("DELETE", "/sessions/{sessionId}"),
    ("POST", "/ingest"),
    ("GET", "/documents"),
    ("DELETE", "/documents/{docId}"),
    ("POST", "/search"),
    ("GET", "/schema/tools"),
    ("POST", "/tools/execute"),
    ("POST", "/tts"),
    ("GET", "/tts/voices"),
    ("POST", "/mcp"),
    ("GET", "/health"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/openapi.json"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/audio/speech"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{id}"),
];

/// The platform's routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/chat", post(routes::chat::send))
        .route("/chat/{session}", axum::routing::delete(routes::sessions::delete))
        .route("/chat/{session}/history", get(routes::sessions::history))
        .route("/sessions", get(routes::sessions::list))
        .route("/sessions/{session}", axum::routing::delete(routes::sessions::delete))
        .route("/sessions/{session}/history", get(routes::sessions::history))
        .route("/ingest", post(routes::ingest::ingest))
        .route("/documents", get(routes::documents::list))
        // Names of documents may have slashes in them.
        .route("/documents/{*document}", axum::routing::delete(routes::documents::delete))
        .route("/search", post(routes::search::search))
        .route("/schema/tools", get(routes::tools::schema))
        .route("/tools/execute", post(routes::tools::execute))
        .route("/tts", post(routes::speech::speak))
        .route("/tts/voices", get(routes::speech::voices))
        .route("/mcp", post(mcp::route::post))
        .route("/health", get(routes::health::health))
        .route("/healthz", get(routes::health::alive))
        .route("/readyz", get(routes::health::ready))
        .route("/openapi.json", get(routes::openapi::document))
        .route("/v1/chat/completions", post(openai::completions::create))
        .route("/v1/embeddings", post(openai::embeddings::create))
        .route("/v1/audio/speech", post(openai::speech::create))
        .route("/v1/models", get(openai::models::list))
        // Names of models may have slashes in them.
        .route("/v1/models/{*id}", get(openai::models::retrieve))
        .method_not_allowed_fallback(async || ApiError::new(ErrorCode::MethodNotAllowed))
        .fallback(async || ApiError::new(ErrorCode::NotFound))
        .layer(middleware::from_fn_with_state(app.clone(), edge))
        .with_state(app)
}
