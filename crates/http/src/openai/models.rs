//! `GET /v1/models` and `GET /v1/models/{id}`

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use enigma_core::ModelId;
use enigma_core::tenant::Scope;
use http::StatusCode;
use serde::Serialize;

use crate::access::Access;
use crate::app::App;
use crate::envelope::json_response;
use crate::error::{ApiError, ErrorCode};

#[derive(Serialize)]
struct WireModel<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

#[derive(Serialize)]
struct WireModels<'a> {
    object: &'static str,
    data: Vec<WireModel<'a>>,
}

fn wire(model: &ModelId) -> WireModel<'_> {
    WireModel { id: model.as_str(), object: "model", created: 0, owned_by: "crispy-enigma" }
}

/// `GET /v1/models`: those that the tenant can ask for by name.
pub(crate) async fn list(State(app): State<App>, access: Access) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    let models = app.ports().chat.models().models(access.context.tenant());
    let data = models.iter().map(wire).collect();
    Ok(json_response(StatusCode::OK, &WireModels { object: "list", data }))
}

/// `GET /v1/models/{id}`
pub(crate) async fn retrieve(
    State(app): State<App>,
    access: Access,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    let Path(id) = id.map_err(|_| ErrorCode::NotFound)?;
    let model = ModelId::new(&id).map_err(|_| ErrorCode::NotFound)?;
    if !app.ports().chat.models().offers(access.context.tenant(), &model) {
        return Err(ErrorCode::NotFound.into());
    }
    Ok(json_response(StatusCode::OK, &wire(&model)))
}
