//! The idempotency store.

use async_trait::async_trait;
use enigma_core::idempotency::{self, Begin, Fingerprint, IdempotencyEntry, IdempotencyKey};
use enigma_core::ports::IdempotencyStore;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::columns::{Col, get};
use crate::database::Database;
use crate::error::StoreError;
use crate::sql;

const PORT: &str = "idempotency store";

/// Expired entries that go when a new one comes: more than one, so that they become fewer.
const EXPIRED_AT_ONCE: u32 = 4;

/// Keeps the answers of requests that may be repeated.
#[derive(Debug, Clone)]
pub struct SqliteIdempotencyStore {
    database: Database,
}

impl SqliteIdempotencyStore {
    /// The store in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Deletes entries that have expired, at most `limit`; tells how many they were.
    pub(crate) async fn remove_expired(&self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<u64, PortError> {
        let tenant = tenant.clone();
        self.database
            .write(move |work| delete_expired(work.connection, &tenant, now, limit))
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

#[async_trait]
impl IdempotencyStore for SqliteIdempotencyStore {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        let (tenant, key, fingerprint) = (tenant.clone(), key.clone(), *fingerprint);
        self.database
            .write(move |work| {
                let entry = find(work.connection, &tenant, &key)?;
                let begin = idempotency::begin(entry.as_ref(), &fingerprint, now);
                if begin == Begin::First {
                    work.connection.prepare_cached(sql::IDEMPOTENCY_PUT)?.execute(params![
                        Col(&tenant),
                        key.as_str(),
                        Col(&fingerprint),
                        Col(&holder),
                        Col(lease_until)
                    ])?;
                    delete_expired(work.connection, &tenant, now, EXPIRED_AT_ONCE)?;
                }
                Ok(begin)
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        let (tenant, key, holder, answer) = (tenant.clone(), key.clone(), *holder, answer.to_owned());
        self.database
            .write(move |work| {
                work.connection.prepare_cached(sql::IDEMPOTENCY_FINISH)?.execute(params![
                    Col(&tenant),
                    key.as_str(),
                    Col(&holder),
                    answer,
                    Col(keep_until)
                ])?;
                Ok(())
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        let (tenant, key, holder) = (tenant.clone(), key.clone(), *holder);
        self.database
            .write(move |work| {
                let mut abandon = work.connection.prepare_cached(sql::IDEMPOTENCY_ABANDON)?;
                abandon.execute(params![Col(&tenant), key.as_str(), Col(&holder)])?;
                Ok(())
            })
            .await
            .map_err(|error| error.into_port(PORT))
    }
}

fn find(
    connection: &Connection,
    tenant: &TenantId,
    key: &IdempotencyKey,
) -> Result<Option<IdempotencyEntry>, StoreError> {
    let entry =
        connection.prepare_cached(sql::IDEMPOTENCY_FIND)?.query_row(params![Col(tenant), key.as_str()], |row| {
            Ok(IdempotencyEntry {
                fingerprint: get(row, 0)?,
                holder: get(row, 1)?,
                answer: row.get(2)?,
                expires_at: get(row, 3)?,
            })
        });
    Ok(entry.optional()?)
}

fn delete_expired(connection: &Connection, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<u64, StoreError> {
    let mut delete = connection.prepare_cached(sql::IDEMPOTENCY_DELETE_EXPIRED)?;
    Ok(delete.execute(params![Col(tenant), Col(now), limit])? as u64)
}
