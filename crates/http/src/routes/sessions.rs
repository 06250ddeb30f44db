//! Sessions: history, list, deletion.

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use enigma_core::session::{SessionSummary, StoredMessage};
use enigma_core::tenant::Scope;
use enigma_core::{SessionId, Timestamp, UserId};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::access::Access;
use crate::app::App;
use crate::envelope::success;
use crate::error::ApiError;
use crate::request_info::RequestInfo;
use crate::validation::{Issue, Issues};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

#[derive(Deserialize)]
pub(crate) struct HistoryQuery {
    limit: Option<String>,
    before: Option<String>,
}

/// `GET /chat/{sessionId}/history` and `GET /sessions/{sessionId}/history`
pub(crate) async fn history(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    session: Result<Path<String>, PathRejection>,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    let Query(query) = query.map_err(|_| malformed_query())?;
    let mut issues = Issues::default();
    let session = session_id(session, &mut issues);
    let limit = limit(query.limit.as_deref(), &mut issues);
    let before = query.before.as_deref().map(|text| {
        text.parse::<u64>().unwrap_or_else(|_| {
            issues.add(Issue::new("before", "must be the nextBefore of an earlier page"));
            0
        })
    });
    issues.check()?;
    let page = app.ports().sessions.history(&access.context, &session, before, limit).await?;
    let messages: Vec<WireMessage<'_>> = page.messages.iter().map(WireMessage::from).collect();
    let mut data = json!({ "sessionId": session, "messages": messages });
    if let Some(next) = page.next_before {
        data["nextBefore"] = next.to_string().into();
    }
    Ok(success(&info, data))
}

/// `DELETE /chat/{sessionId}` and `DELETE /sessions/{sessionId}`
pub(crate) async fn delete(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    session: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    let mut issues = Issues::default();
    let session = session_id(session, &mut issues);
    issues.check()?;
    let background = access.background();
    app.ports().sessions.delete(&access.context, &session, info.request, &*background).await?;
    Ok(success(&info, json!({ "success": true, "sessionId": session })))
}

#[derive(Deserialize)]
pub(crate) struct ListQuery {
    #[serde(rename = "userId")]
    user_id: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /sessions`
pub(crate) async fn list(
    State(app): State<App>,
    info: RequestInfo,
    access: Access,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    access.require(Scope::Chat)?;
    let Query(query) = query.map_err(|_| malformed_query())?;
    let mut issues = Issues::default();
    let limit = limit(query.limit.as_deref(), &mut issues);
    let user = query
        .user_id
        .as_deref()
        .and_then(|text| UserId::new(text).map_err(|error| issues.add(Issue::new("userId", error.to_string()))).ok());
    let after = query.cursor.as_deref().and_then(|text| {
        let cursor = parse_cursor(text);
        if cursor.is_none() {
            issues.add(Issue::new("cursor", "must be the nextCursor of an earlier page"));
        }
        cursor
    });
    issues.check()?;
    let page = app.ports().sessions.list(&access.context, user.as_ref(), after, limit).await?;
    let sessions: Vec<WireSession<'_>> = page.sessions.iter().map(WireSession::from).collect();
    let mut data = json!({ "sessions": sessions });
    if let Some((at, id)) = page.next {
        data["nextCursor"] = format!("{}_{id}", at.as_millis()).into();
    }
    Ok(success(&info, data))
}

fn parse_cursor(text: &str) -> Option<(Timestamp, SessionId)> {
    let (at, id) = text.split_once('_')?;
    Some((Timestamp::from_millis(at.parse().ok()?), id.parse().ok()?))
}

pub(super) fn malformed_query() -> ApiError {
    ApiError::invalid(&[Issue::new("query", "is malformed")])
}

fn session_id(path: Result<Path<String>, PathRejection>, issues: &mut Issues) -> SessionId {
    let id = path.ok().and_then(|Path(text)| text.parse().ok());
    id.unwrap_or_else(|| {
        issues.add(Issue::new("sessionId", "must be a UUID"));
        SessionId::new(uuid::Uuid::nil())
    })
}

pub(super) fn limit(text: Option<&str>, issues: &mut Issues) -> u32 {
    let Some(text) = text else { return DEFAULT_LIMIT };
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).unwrap_or_else(|| {
        issues.add(Issue::new("limit", format!("must be a whole number from 1 to {MAX_LIMIT}")));
        DEFAULT_LIMIT
    })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireMessage<'a> {
    id: String,
    role: &'static str,
    content: &'a str,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_count: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

impl<'a> From<&'a StoredMessage> for WireMessage<'a> {
    fn from(message: &'a StoredMessage) -> Self {
        Self {
            id: message.id.to_string(),
            role: message.role.as_str(),
            content: &message.content,
            timestamp: message.at,
            token_count: message.tokens,
            truncated: message.truncated,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireSession<'a> {
    session_id: String,
    user_id: &'a str,
    created_at: Timestamp,
    updated_at: Timestamp,
    message_count: u32,
    token_count: u64,
}

impl<'a> From<&'a SessionSummary> for WireSession<'a> {
    fn from(session: &'a SessionSummary) -> Self {
        Self {
            session_id: session.id.to_string(),
            user_id: session.user.as_str(),
            created_at: session.created_at,
            updated_at: session.updated_at,
            message_count: session.message_count,
            token_count: session.token_count,
        }
    }
}
