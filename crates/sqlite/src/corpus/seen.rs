//! Which versions a search may look at.

use std::collections::HashSet;

use enigma_core::TenantId;
use enigma_core::retrieval::MetadataFilter;
use rusqlite::{Connection, params};

use super::passages::metadata;
use crate::columns::Col;
use crate::error::StoreError;
use crate::sql;

/// The versions that a search may look at: not the few that are staged or being removed, and none that the filter rules out.
pub(crate) struct Seen {
    unseen: HashSet<i64>,
    allowed: Option<HashSet<i64>>,
}

impl Seen {
    pub(crate) fn new(connection: &Connection, tenant: &TenantId, filter: &MetadataFilter) -> Result<Self, StoreError> {
        let mut unseen = connection.prepare_cached(sql::VERSIONS_UNSEEN)?;
        let unseen = unseen.query_map(params![Col(tenant)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let allowed = if filter.is_empty() { None } else { Some(allowed(connection, tenant, filter)?) };
        Ok(Self { unseen, allowed })
    }

    /// Whether a version is the one of its document that is found.
    pub(crate) fn is_published(&self, number: i64) -> bool {
        !self.unseen.contains(&number)
    }

    /// Whether the filter lets a version pass that is published.
    pub(crate) fn is_allowed(&self, number: i64) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&number))
    }
}

/// All versions that a search may look at.
pub(crate) fn published(
    connection: &Connection,
    tenant: &TenantId,
    filter: &MetadataFilter,
) -> Result<Vec<i64>, StoreError> {
    if !filter.is_empty() {
        return allowed(connection, tenant, filter);
    }
    let mut statement = connection.prepare_cached(sql::DOCUMENTS_NUMBERS)?;
    Ok(statement.query_map(params![Col(tenant)], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

/// The published versions of documents that a filter lets pass.
fn allowed<C: FromIterator<i64>>(
    connection: &Connection,
    tenant: &TenantId,
    filter: &MetadataFilter,
) -> Result<C, StoreError> {
    let mut statement = connection.prepare_cached(sql::DOCUMENTS_METADATA)?;
    let rows = statement.query_map(params![Col(tenant)], |row| {
        let is_allowed = filter.allows(&metadata(row, 1)?);
        Ok(is_allowed.then_some(row.get(0)?))
    })?;
    Ok(rows.filter_map(Result::transpose).collect::<rusqlite::Result<_>>()?)
}
