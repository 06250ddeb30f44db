//! The documents of a tenant: list, deletion.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use enigma_core::Timestamp;
use enigma_core::retrieval::{DocumentId, DocumentSummary, Metadata};
use enigma_core::tenant::Scope;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::sessions::{limit, malformed_query};
use crate::access::Access;
use crate::app::App;
use crate::envelope::success;
use crate::error::{ApiError, ErrorCode};
use crate::request_info::RequestInfo;
use crate::validation::{Issue, Issues};

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /documents`
pub(crate) async fn list(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Search)?;
    let Query(query) = query.map_err(|_| malformed_query())?;
    let mut issues = Issues::default();
    let limit = limit(query.limit.as_deref(), &mut issues);
    let after = query.cursor.as_deref().and_then(|text| {
        let after = DocumentId::new(text).ok();
        if after.is_none() {
            issues.add(Issue::new("cursor", "must be the nextCursor of an earlier page"));
        }
        after
    });
    issues.check()?;
    let page = app.ports().documents.list(&access.context, after.as_ref(), limit).await?;
    let documents: Vec<WireDocument<'_>> = page.documents.iter().map(WireDocument::from).collect();
    let mut data = json!({ "documents": documents });
    if let Some(next) = page.next {
        data["nextCursor"] = next.as_str().into();
    }
    Ok(success(&info, data))
}

/// `DELETE /documents/{docId}`
pub(crate) async fn delete(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    document: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Ingest)?;
    let document = document.ok().and_then(|Path(text)| DocumentId::new(&text).ok()).ok_or(ErrorCode::NotFound)?;
    if app.ports().documents.delete(&access.context, &document).await? {
        Ok(success(&info, json!({ "success": true, "docId": document })))
    } else {
        Err(ErrorCode::NotFound.into())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument<'a> {
    doc_id: &'a DocumentId,
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    metadata: &'a Metadata,
    chunks: u32,
    updated_at: Timestamp,
}

impl<'a> From<&'a DocumentSummary> for WireDocument<'a> {
    fn from(summary: &'a DocumentSummary) -> Self {
        let document = &summary.document;
        Self {
            doc_id: &document.id,
            title: document.title.as_deref(),
            url: document.url.as_deref(),
            source: document.source.as_deref(),
            metadata: &document.metadata,
            chunks: summary.chunks,
            updated_at: summary.updated_at,
        }
    }
}
