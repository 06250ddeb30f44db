//! What is found no more is removed, in pieces between which others write.

use enigma_core::retrieval::CountedWords;
use enigma_core::{TenantId, Timestamp, VersionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{PART, VECTORS};
use super::places;
use crate::columns::Col;
use crate::error::StoreError;
use crate::sql;

/// Has a version removed that was not published.
pub(crate) fn discard(connection: &Connection, tenant: &TenantId, version: VersionId) -> Result<(), StoreError> {
    connection.prepare_cached(sql::VERSION_DISCARD)?.execute(params![Col(tenant), Col(&version)])?;
    Ok(())
}

/// Has the versions removed for which nothing was staged since `before`.
pub(crate) fn end_old(connection: &Connection, tenant: &TenantId, before: Timestamp) -> Result<(), StoreError> {
    connection.prepare_cached(sql::VERSIONS_END_OLD)?.execute(params![Col(tenant), Col(before)])?;
    Ok(())
}

/// What was removed of a version.
pub(crate) struct Removed {
    pub(crate) number: i64,
    pub(crate) chunks: u64,
}

/// Removes some of what is to be removed; tells what went, or that nothing is left.
pub(crate) fn remove_some(connection: &Connection, tenant: &TenantId) -> Result<Option<Removed>, StoreError> {
    let ended = connection.prepare_cached(sql::VERSION_ENDED)?.query_row(params![Col(tenant)], |row| row.get(0));
    let Some(number) = ended.optional()? else { return Ok(None) };
    let number: i64 = number;
    let key = params![Col(tenant), number];
    let part = connection.prepare_cached(sql::PART_FIRST)?.query_row(key, |row| row.get(0)).optional()?;
    if let Some(part) = part {
        let chunks = remove_part(connection, tenant, number, part)?;
        return Ok(Some(Removed { number, chunks }));
    }
    // Last of all: while it is there, nobody takes what is left of its chunks for somebody's.
    connection.prepare_cached(sql::VERSION_DELETE)?.execute(key)?;
    Ok(Some(Removed { number, chunks: 0 }))
}

fn remove_part(connection: &Connection, tenant: &TenantId, number: i64, part: u32) -> Result<u64, StoreError> {
    let between = params![Col(tenant), number, part * PART, (part + 1) * PART];
    let mut statement = connection.prepare_cached(sql::CHUNKS_BETWEEN)?;
    let mut chunks = statement.query(between)?;
    while let Some(row) = chunks.next()? {
        let words = CountedWords::of(row.get_ref(1)?.as_str().map_err(rusqlite::Error::from)?);
        places::remove(connection, tenant, number, row.get(0)?, &words)?;
    }
    let removed = connection.prepare_cached(sql::CHUNKS_DELETE)?.execute(between)?;
    let rows = PART / VECTORS;
    let vectors = params![Col(tenant), number, part * rows, (part + 1) * rows];
    connection.prepare_cached(sql::VECTORS_DELETE)?.execute(vectors)?;
    connection.prepare_cached(sql::CODES_DELETE)?.execute(params![Col(tenant), number, part])?;
    Ok(removed as u64)
}
