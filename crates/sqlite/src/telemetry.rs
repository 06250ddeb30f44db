//! Usage records.

use async_trait::async_trait;
use enigma_core::ports::Telemetry;
use enigma_core::usage::UsageRecord;
use enigma_core::{PortError, TenantId, Timestamp};
use rusqlite::{CachedStatement, Row, params};

use crate::columns::{Col, get, get_optional};
use crate::database::Database;
use crate::sql;

const PORT: &str = "telemetry";

/// Keeps a row for each request that has ended. A record is given back as it was, but for fractions of a microsecond.
#[derive(Debug, Clone)]
pub struct SqliteTelemetry {
    database: Database,
}

impl SqliteTelemetry {
    /// The records in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// The records of the requests that came from `since` on and before `until`, the oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn usage(
        &self,
        tenant: &TenantId,
        since: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<UsageRecord>, PortError> {
        let tenant = tenant.clone();
        self.database
            .read(move |rows| {
                let records = rows
                    .prepare_cached(sql::USAGE_BETWEEN)?
                    .query_map(params![Col(&tenant), Col(since), Col(until), limit], record)?
                    .collect::<rusqlite::Result<_>>()?;
                Ok(records)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    /// Deletes records from before a time, at most `limit`; tells how many they were.
    pub(crate) async fn remove_old(&self, tenant: &TenantId, before: Timestamp, limit: u32) -> Result<u64, PortError> {
        let tenant = tenant.clone();
        self.database
            .write(move |work| {
                let mut delete = work.connection.prepare_cached(sql::USAGE_DELETE_OLD)?;
                Ok(delete.execute(params![Col(&tenant), Col(before), limit])? as u64)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

#[async_trait]
impl Telemetry for SqliteTelemetry {
    async fn record_usage(&self, tenant: &TenantId, record: &UsageRecord) -> Result<(), PortError> {
        let (tenant, record) = (tenant.clone(), record.clone());
        self.database
            .write(move |work| Ok(add(&mut work.connection.prepare_cached(sql::USAGE_ADD)?, &tenant, &record)?))
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

/// Writes a record with [`sql::USAGE_ADD`].
pub(crate) fn add(
    statement: &mut CachedStatement<'_>,
    tenant: &TenantId,
    record: &UsageRecord,
) -> rusqlite::Result<()> {
    statement.execute(params![
        Col(tenant),
        Col(&record.request),
        Col(&record.trace),
        record.route,
        Col(&record.user),
        record.session.as_ref().map(Col),
        Col(&record.model),
        record.provider.as_ref().map(Col),
        Col(record.at),
        Col(record.latency),
        record.first_token.map(Col),
        record.tokens_in,
        record.tokens_out,
        record.estimated,
        Col(record.charged),
        Col(record.overrun),
        Col(record.ending),
        record.characters
    ])?;
    Ok(())
}

fn record(row: &Row<'_>) -> rusqlite::Result<UsageRecord> {
    Ok(UsageRecord {
        request: get(row, 0)?,
        trace: get(row, 1)?,
        route: row.get(2)?,
        user: get(row, 3)?,
        session: get_optional(row, 4)?,
        model: get(row, 5)?,
        provider: get_optional(row, 6)?,
        at: get(row, 7)?,
        latency: get(row, 8)?,
        first_token: get_optional(row, 9)?,
        tokens_in: row.get(10)?,
        tokens_out: row.get(11)?,
        characters: row.get(16)?,
        estimated: row.get(12)?,
        charged: get(row, 13)?,
        overrun: get(row, 14)?,
        ending: get(row, 15)?,
    })
}
