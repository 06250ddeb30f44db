//! Audit records of tools.

use std::path::Path;

use async_trait::async_trait;
use enigma_core::ports::AuditLog;
use enigma_core::tools::{AuditPage, AuditQuery, AuditRecord};
use enigma_core::{AuditId, PortError, TenantId, Timestamp};
use rusqlite::{Row, Transaction, params};

use crate::columns::{Col, get};
use crate::connection::open_reader;
use crate::database::Database;
use crate::error::{OpenError, StoreError};
use crate::options::Options;
use crate::sql;

const PORT: &str = "audit log";

/// Records that one job removes, so that other writers wait no longer than that takes.
const ROWS_AT_ONCE: u32 = 1_000;

/// Keeps a row for each run of a tool. A record is given back as it was, but for fractions of a microsecond.
#[derive(Debug, Clone)]
pub struct SqliteAuditLog {
    database: Database,
}

impl SqliteAuditLog {
    /// The log in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    async fn remove_expired(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError> {
        let tenant = tenant.clone();
        self.database
            .write(move |work| {
                let mut delete = work.connection.prepare_cached(sql::AUDIT_DELETE_EXPIRED)?;
                Ok(delete.execute(params![Col(&tenant), Col(now), ROWS_AT_ONCE])? as u64)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

/// Reads audit records from the database at `path`, which a server may have open meanwhile: nothing is locked and nothing changes.
/// For operators' tools; programs that have the [`Database`] open ask [`SqliteAuditLog`].
///
/// It blocks while it reads.
///
/// # Errors
/// [`OpenError`] when the file cannot be opened or read, or is another program's.
pub fn read_audit_records(
    path: &Path,
    tenant: &TenantId,
    query: &AuditQuery,
    after: Option<(Timestamp, AuditId)>,
    limit: u32,
    now: Timestamp,
) -> Result<AuditPage, OpenError> {
    // Where there is no file, reading must not look like an empty one.
    std::fs::metadata(path).map_err(OpenError::File)?;
    let mut connection = open_reader(path, &Options::default())?;
    let damaged = |error: rusqlite::Error| OpenError::Damaged(error.into());
    let transaction = connection.transaction().map_err(damaged)?;
    list(&transaction, tenant, query, after, limit, now).map_err(|error| OpenError::Damaged(error.into()))
}

#[async_trait]
impl AuditLog for SqliteAuditLog {
    async fn append(&self, tenant: &TenantId, record: &AuditRecord) -> Result<(), PortError> {
        let (tenant, record) = (tenant.clone(), record.clone());
        self.database
            .write(move |work| {
                work.connection.prepare_cached(sql::AUDIT_ADD)?.execute(params![
                    Col(&tenant),
                    Col(&record.id),
                    Col(record.at),
                    Col(&record.request),
                    Col(&record.trace),
                    record.route,
                    Col(&record.user),
                    Col(&record.tool),
                    Col(&record.params),
                    Col(record.outcome),
                    Col(record.duration),
                    Col(record.tokens),
                    Col(record.expires_at)
                ])?;
                Ok(())
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
        now: Timestamp,
    ) -> Result<AuditPage, PortError> {
        let (tenant, query) = (tenant.clone(), query.clone());
        self.database
            .read(move |rows| list(rows, &tenant, &query, after, limit, now))
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn sweep(&self, tenant: &TenantId, now: Timestamp) -> Result<u64, PortError> {
        let mut removed = 0;
        loop {
            let rows = self.remove_expired(tenant, now).await?;
            removed += rows;
            if rows < u64::from(ROWS_AT_ONCE) {
                return Ok(removed);
            }
        }
    }
}

fn list(
    connection: &Transaction<'_>,
    tenant: &TenantId,
    query: &AuditQuery,
    after: Option<(Timestamp, AuditId)>,
    limit: u32,
    now: Timestamp,
) -> Result<AuditPage, StoreError> {
    let end = Timestamp::from_millis(u64::MAX);
    let since = Col(query.since.unwrap_or_default());
    let until = Col(query.until.unwrap_or(end));
    let last = Col(after.map_or(end, |(at, _)| at));
    // Before every id: the empty string of bytes.
    let id: &[u8] = after.as_ref().map_or(&[], |(_, id)| id.as_bytes());
    // One more than asked for, to see whether there is another page.
    let limit_and_one = Col(u64::from(limit) + 1);
    let mut records: Vec<AuditRecord> = match &query.tool {
        None => connection
            .prepare_cached(sql::AUDIT_LIST)?
            .query_map(params![Col(tenant), since, until, last, id, Col(now), limit_and_one], record)?
            .collect::<rusqlite::Result<_>>()?,
        Some(tool) => connection
            .prepare_cached(sql::AUDIT_LIST_OF_TOOL)?
            .query_map(params![Col(tenant), since, until, last, id, Col(now), limit_and_one, Col(tool)], record)?
            .collect::<rusqlite::Result<_>>()?,
    };
    let goes_on = records.len() > limit as usize;
    records.truncate(limit as usize);
    let next = records.last().filter(|_| goes_on).map(|last| (last.at, last.id));
    Ok(AuditPage { records, next })
}

fn record(row: &Row<'_>) -> rusqlite::Result<AuditRecord> {
    Ok(AuditRecord {
        id: get(row, 0)?,
        at: get(row, 1)?,
        request: get(row, 2)?,
        trace: get(row, 3)?,
        route: row.get(4)?,
        user: get(row, 5)?,
        tool: get(row, 6)?,
        params: get(row, 7)?,
        outcome: get(row, 8)?,
        duration: get(row, 9)?,
        tokens: get(row, 10)?,
        expires_at: get(row, 11)?,
    })
}
