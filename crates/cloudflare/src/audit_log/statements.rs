//! What the audit log asks of D1, and what it makes of the answers. Every statement names the tenant, as its first parameter.

use std::time::Duration;

use enigma_core::tools::{AuditOutcome, AuditPage, AuditQuery, AuditRecord};
use enigma_core::{AuditId, InvalidId, PortError, TenantId, Timestamp};
use serde::Deserialize;

use super::PORT;
use crate::d1::{MOST, Param, Statement, text, time};

/// Rows that one statement removes.
pub(super) const ROWS_AT_ONCE: u64 = 100;

/// Adds a record, unless it is there.
const ADD: &str = "
    INSERT INTO audit (tenant, id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
    ON CONFLICT (tenant, id) DO NOTHING";

/// Lists the records of a stretch of time that come after one, the newest first.
const LIST: &str = "
    SELECT id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at
    FROM audit INDEXED BY audit_by_time
    WHERE tenant = ?1 AND at >= ?2 AND at < ?3 AND at <= ?4 AND (at < ?4 OR id > ?5) AND expires_at > ?6
    ORDER BY at DESC, id LIMIT ?7";

/// Lists those of one tool.
const LIST_OF_TOOL: &str = "
    SELECT id, at, request, trace, route, user, tool, params, outcome, duration, tokens, expires_at
    FROM audit INDEXED BY audit_by_tool
    WHERE tenant = ?1 AND tool = ?8 AND at >= ?2 AND at < ?3 AND at <= ?4 AND (at < ?4 OR id > ?5) AND expires_at > ?6
    ORDER BY at DESC, id LIMIT ?7";

/// Deletes some records that have expired, and names them.
const DELETE_EXPIRED: &str = "
    DELETE FROM audit WHERE tenant = ?1 AND id IN
        (SELECT id FROM audit INDEXED BY audit_by_expiry WHERE tenant = ?1 AND expires_at <= ?2 LIMIT ?3)
    RETURNING id";

/// A record as D1 tells of it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) at: f64,
    pub(super) request: String,
    pub(super) trace: String,
    pub(super) route: String,
    pub(super) user: String,
    pub(super) tool: String,
    pub(super) params: String,
    pub(super) outcome: String,
    pub(super) duration: f64,
    pub(super) tokens: f64,
    pub(super) expires_at: f64,
}

pub(super) fn add(tenant: &TenantId, record: &AuditRecord) -> Result<Statement, PortError> {
    let micros = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX);
    let params = vec![
        text(tenant.as_str()),
        text(&record.id),
        time(record.at),
        text(&record.request),
        text(record.trace.as_str()),
        text(&record.route),
        text(record.user.as_str()),
        text(record.tool.as_str()),
        Param::Text(record.params.into()),
        text(record.outcome.as_str()),
        number(micros)?,
        number(record.tokens)?,
        time(record.expires_at),
    ];
    Ok(Statement::new(ADD, params))
}

pub(super) fn list(
    tenant: &TenantId,
    query: &AuditQuery,
    after: Option<(Timestamp, AuditId)>,
    limit: u32,
    now: Timestamp,
) -> Result<Statement, PortError> {
    let end = Timestamp::from_millis(MOST);
    let (last, id) = match after {
        Some((at, id)) => (time(at), text(&id)),
        // Before every id.
        None => (time(end), text("")),
    };
    let (since, until) = (time(query.since.unwrap_or_default()), time(query.until.unwrap_or(end)));
    // One more than asked for, to see whether there is another page.
    let mut params = vec![text(tenant.as_str()), since, until, last, id, time(now), number(u64::from(limit) + 1)?];
    params.extend(query.tool.as_ref().map(|tool| text(tool.as_str())));
    Ok(Statement::new(if query.tool.is_some() { LIST_OF_TOOL } else { LIST }, params))
}

pub(super) fn delete_expired(tenant: &TenantId, now: Timestamp) -> Result<Statement, PortError> {
    Ok(Statement::new(DELETE_EXPIRED, vec![text(tenant.as_str()), time(now), number(ROWS_AT_ONCE)?]))
}

/// The page that the rows of [`list`] make.
pub(super) fn page(mut rows: Vec<Row>, limit: u32) -> Result<AuditPage, PortError> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let goes_on = rows.len() > limit;
    rows.truncate(limit);
    let records = rows.into_iter().map(record).collect::<Result<Vec<_>, _>>()?;
    let next = records.last().filter(|_| goes_on).map(|last| (last.at, last.id));
    Ok(AuditPage { records, next })
}

fn record(row: Row) -> Result<AuditRecord, PortError> {
    let corrupt = |_: InvalidId| PortError::corrupt(PORT, "a name cannot be one");
    Ok(AuditRecord {
        id: row.id.parse().map_err(corrupt)?,
        at: Timestamp::from_millis(whole(row.at)?),
        request: row.request.parse().map_err(corrupt)?,
        trace: row.trace.try_into().map_err(corrupt)?,
        route: row.route,
        user: row.user.try_into().map_err(corrupt)?,
        tool: row.tool.try_into().map_err(corrupt)?,
        params: row.params.try_into().map_err(corrupt)?,
        outcome: AuditOutcome::parse(&row.outcome)
            .ok_or_else(|| PortError::corrupt(PORT, "an outcome is none that there is"))?,
        duration: Duration::from_micros(whole(row.duration)?),
        tokens: whole(row.tokens)?,
        expires_at: Timestamp::from_millis(whole(row.expires_at)?),
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
