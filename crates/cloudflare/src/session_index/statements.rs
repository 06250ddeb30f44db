//! What the list of sessions asks of D1, and what it makes of the answers. Every statement names the tenant, as its first
//! parameter.

use enigma_core::session::{SessionPage, SessionSummary};
use enigma_core::{PortError, SessionId, TenantId, Timestamp, UserId};
use serde::Deserialize;

use super::PORT;
use crate::d1::{MOST, Param, Statement, text, time};

/// Lists a session, unless a newer state of it is listed.
const PUT: &str = "
    INSERT INTO session_index (tenant, session, user, created_at, updated_at, message_count, token_count)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
    ON CONFLICT (tenant, session) DO UPDATE SET
        user = excluded.user, created_at = excluded.created_at, updated_at = excluded.updated_at,
        message_count = excluded.message_count, token_count = excluded.token_count
    WHERE excluded.updated_at >= session_index.updated_at";

/// Lists everybody's sessions that come after one, the latest changed first.
const LIST: &str = "
    SELECT session, user, created_at, updated_at, message_count, token_count FROM session_index
    WHERE tenant = ?1 AND updated_at >= ?2 AND updated_at <= ?3 AND (updated_at < ?3 OR session > ?4)
    ORDER BY updated_at DESC, session LIMIT ?5";

/// Lists a user's sessions that come after one, the latest changed first. Left to itself SQLite may read all sessions of the tenant
/// for it.
const LIST_OF_USER: &str = "
    SELECT session, user, created_at, updated_at, message_count, token_count
    FROM session_index INDEXED BY session_index_by_user
    WHERE tenant = ?1 AND user = ?6 AND updated_at >= ?2 AND updated_at <= ?3 AND (updated_at < ?3 OR session > ?4)
    ORDER BY updated_at DESC, session LIMIT ?5";

/// Lists a session no more.
const DELETE: &str = "DELETE FROM session_index WHERE tenant = ?1 AND session = ?2";

/// A session as D1 tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) session: String,
    pub(super) user: String,
    pub(super) created_at: f64,
    pub(super) updated_at: f64,
    pub(super) message_count: f64,
    pub(super) token_count: f64,
}

pub(super) fn put(tenant: &TenantId, summary: &SessionSummary) -> Result<Statement, PortError> {
    let params = vec![
        text(tenant.as_str()),
        text(&summary.id),
        text(summary.user.as_str()),
        time(summary.created_at),
        time(summary.updated_at),
        number(summary.message_count.into())?,
        number(summary.token_count)?,
    ];
    Ok(Statement::new(PUT, params))
}

pub(super) fn list(
    tenant: &TenantId,
    user: Option<&UserId>,
    since: Timestamp,
    after: Option<(Timestamp, SessionId)>,
    limit: u32,
) -> Result<Statement, PortError> {
    let (until, session) = match after {
        Some((at, session)) => (time(at), text(&session)),
        // Before every id.
        None => (time(Timestamp::from_millis(MOST)), text("")),
    };
    // One more than asked for, to see whether there is another page.
    let mut params = vec![text(tenant.as_str()), time(since), until, session, number(u64::from(limit) + 1)?];
    params.extend(user.map(|user| text(user.as_str())));
    Ok(Statement::new(if user.is_some() { LIST_OF_USER } else { LIST }, params))
}

pub(super) fn delete(tenant: &TenantId, session: &SessionId) -> Statement {
    Statement::new(DELETE, vec![text(tenant.as_str()), text(session)])
}

/// The page that the rows of [`list`] make.
pub(super) fn page(mut rows: Vec<Row>, limit: u32) -> Result<SessionPage, PortError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let goes_on = rows.len() > limit;
    rows.truncate(limit);
    let sessions = rows.into_iter().map(summary).collect::<Result<Vec<_>, _>>()?;
    let next = sessions.last().filter(|_| goes_on).map(|last| (last.updated_at, last.id));
    Ok(SessionPage { sessions, next })
}

fn summary(row: Row) -> Result<SessionSummary, PortError> {
    let corrupt = |what: &'static str| PortError::corrupt(PORT, what);
    Ok(SessionSummary {
        id: row.session.parse().map_err(|_| corrupt("an id of a session is no UUID"))?,
        user: row.user.try_into().map_err(|_| corrupt("a name of a user cannot be one"))?,
        created_at: Timestamp::from_millis(whole(row.created_at)?),
        updated_at: Timestamp::from_millis(whole(row.updated_at)?),
        message_count: u32::try_from(whole(row.message_count)?).map_err(|_| corrupt("a count is too large"))?,
        token_count: whole(row.token_count)?,
    })
}

fn number(value: u64) -> Result<Param, PortError> {
    crate::d1::number(PORT, value)
}

fn whole(value: f64) -> Result<u64, PortError> {
    crate::d1::whole(PORT, value)
}

#[cfg(test)]
mod tests;
