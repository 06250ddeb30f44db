//! `GET /openapi.json`

use axum::response::IntoResponse;
use http::{HeaderValue, header};

/// The description of this API in `OpenAPI` 3.1.
pub(crate) const DOCUMENT: &str = include_str!("../../openapi.json");

pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT)
}
