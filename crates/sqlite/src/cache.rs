//! Answers that are kept for a while.

use async_trait::async_trait;
use enigma_core::ports::Cache;
use enigma_core::{PortError, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::columns::{Col, get};
use crate::database::Database;
use crate::error::StoreError;
use crate::sql;

const PORT: &str = "cache";

/// Bytes of one tenant, unless something else is said.
const TENANT_BYTES: u64 = 8 << 20;

/// What a row takes beside its key and its value, about.
const ROW_BYTES: u64 = 128;

/// Entries that one search for room finds.
const ENTRIES_AT_ONCE: u32 = 16;

/// Keeps answers in the database, so that a restart does not forget them. Where room is short, those that would expire first go
/// first, of the same tenant.
#[derive(Debug, Clone)]
pub struct SqliteCache {
    database: Database,
    tenant_bytes: u64,
}

impl SqliteCache {
    /// The cache in `database`, with 8 MiB for each tenant.
    pub fn new(database: Database) -> Self {
        Self::with_room(database, TENANT_BYTES)
    }

    /// The cache in `database`, with so many bytes for each tenant, keys included.
    pub fn with_room(database: Database, tenant_bytes: u64) -> Self {
        Self { database, tenant_bytes }
    }

    /// Removes at most `limit` answers of `tenant` that have expired; tells how many went.
    pub(crate) async fn remove_expired(&self, tenant: &TenantId, now: Timestamp, limit: u32) -> Result<u64, PortError> {
        let tenant = tenant.clone();
        let removed = self.database.write(move |work| {
            let mut part = Part::load(work.connection, &tenant)?;
            let removed = part.remove_until(now, limit)?;
            if removed > 0 {
                part.save()?;
            }
            Ok(removed)
        });
        removed.await.map_err(|error| error.into_port(PORT))
    }
}

#[async_trait]
impl Cache for SqliteCache {
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError> {
        let (tenant, key) = (tenant.clone(), key.to_owned());
        let read = self.database.read(move |rows| {
            let key = params![Col(&tenant), key, Col(now)];
            Ok(rows.prepare_cached(sql::CACHE_FIND)?.query_row(key, |row| row.get(0)).optional()?)
        });
        read.await.map_err(|error| error.into_port(PORT))
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError> {
        let (tenant, key, value, room) = (tenant.clone(), key.to_owned(), value.to_owned(), self.tenant_bytes);
        let written = self.database.write(move |work| {
            let mut part = Part::load(work.connection, &tenant)?;
            part.remove(&key)?;
            let size = ROW_BYTES + (key.len() + value.len()) as u64;
            if expires_at > now && size <= room {
                part.make_room(room - size, now)?;
                part.add(&key, &value, expires_at)?;
            }
            part.save()
        });
        written.await.map_err(|error| error.into_port(PORT))
    }
}

/// What belongs to one tenant.
struct Part<'a> {
    connection: &'a Connection,
    tenant: &'a TenantId,
    bytes: u64,
}

impl<'a> Part<'a> {
    fn load(connection: &'a Connection, tenant: &'a TenantId) -> Result<Self, StoreError> {
        let bytes = connection.prepare_cached(sql::CACHE_ROOM)?.query_row(params![Col(tenant)], |row| get(row, 0));
        Ok(Self { connection, tenant, bytes: bytes.optional()?.unwrap_or(0) })
    }

    fn save(&self) -> Result<(), StoreError> {
        self.connection.prepare_cached(sql::CACHE_ROOM_PUT)?.execute(params![Col(self.tenant), Col(self.bytes)])?;
        Ok(())
    }

    fn add(&mut self, key: &str, value: &str, expires_at: Timestamp) -> Result<(), StoreError> {
        let row = params![Col(self.tenant), key, Col(expires_at), value];
        self.connection.prepare_cached(sql::CACHE_ADD)?.execute(row)?;
        self.bytes += ROW_BYTES + (key.len() + value.len()) as u64;
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), StoreError> {
        let mut statement = self.connection.prepare_cached(sql::CACHE_DELETE)?;
        let size = statement.query_row(params![Col(self.tenant), key], |row| get::<u64>(row, 0)).optional()?;
        self.bytes -= size.map_or(0, |size| ROW_BYTES + size);
        Ok(())
    }

    /// Removes some that expire until `until`, the first of them first; tells how many.
    fn remove_until(&mut self, until: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let mut statement = self.connection.prepare_cached(sql::CACHE_DELETE_EXPIRED)?;
        let mut sizes = statement.query(params![Col(self.tenant), Col(until), limit])?;
        let mut removed = 0;
        while let Some(row) = sizes.next()? {
            self.bytes -= ROW_BYTES + get::<u64>(row, 0)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Removes what has expired, and then what expires first, until no more than `most` is left.
    fn make_room(&mut self, most: u64, now: Timestamp) -> Result<(), StoreError> {
        self.remove_until(now, ENTRIES_AT_ONCE)?;
        while self.bytes > most && self.remove_until(Timestamp::from_millis(u64::MAX), 1)? > 0 {}
        Ok(())
    }
}
