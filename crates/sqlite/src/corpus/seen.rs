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
        if filter.is_empty() {
            return Ok(Self { unseen, allowed: None });
        }
        let mut allowed = HashSet::new();
        let mut statement = connection.prepare_cached(sql::DOCUMENTS_METADATA)?;
        let mut rows = statement.query(params![Col(tenant)])?;
        while let Some(row) = rows.next()? {
            if filter.allows(&metadata(row, 1)?) {
                allowed.insert(row.get(0)?);
            }
        }
        Ok(Self { unseen, allowed: Some(allowed) })
    }

    /// Whether a version is the one of its document that is found.
    pub(crate) fn is_published(&self, number: i64) -> bool {
        !self.unseen.contains(&number)
    }

    /// Whether the filter lets a version pass that is published.
    pub(crate) fn is_allowed(&self, number: i64) -> bool {
        self.allowed.as_ref().is_none_or(|allowed| allowed.contains(&number))
    }

    /// All versions that may be looked at, in order, when a filter leaves so few of `documents` that they are best visited one by
    /// one.
    pub(crate) fn few(&self, documents: u64) -> Option<Vec<i64>> {
        let allowed = self.allowed.as_ref()?;
        let mut few: Vec<i64> = allowed.iter().copied().collect();
        few.sort_unstable();
        (few.len() as u64 <= documents / 4).then_some(few)
    }
}
