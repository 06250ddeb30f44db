//! The chunks nearest to a vector.

use enigma_core::TenantId;
use enigma_core::retrieval::{MetadataFilter, Passage, cosine};
use rusqlite::{Transaction, params};

use super::codes::{self, Asked, Estimate, VECTORS};
use super::documents;
use super::passages::{Found, passages};
use super::seen::Seen;
use crate::columns::Col;
use crate::error::StoreError;
use crate::sql;

/// Looks through the codes of all vectors that count, and computes the cosines of those that can be among the nearest.
pub(crate) fn nearest(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    vector: &[f32],
    filter: &MetadataFilter,
    limit: u32,
) -> Result<Vec<Passage>, StoreError> {
    let (state, limit) = (documents::state(rows, tenant)?, limit as usize);
    if state.space.is_none_or(|space| space.dimensions as usize != vector.len()) {
        return Ok(Vec::new());
    }
    let seen = Seen::new(rows, tenant, filter)?;
    let estimates = estimates(rows, tenant, &Asked::new(vector), &seen, state.documents)?;
    let mut candidates = codes::candidates(estimates, limit);
    candidates.sort_unstable_by_key(|it| (it.number, it.ordinal));
    let found = cosines(rows, tenant, vector, &candidates)?;
    passages(rows, tenant, found, limit)
}

fn estimates(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    asked: &Asked,
    seen: &Seen,
    documents: u64,
) -> Result<Vec<Estimate>, StoreError> {
    let mut estimates = Vec::new();
    if let Some(few) = seen.few(documents) {
        let mut statement = rows.prepare_cached(sql::CODES_OF)?;
        for number in few {
            let mut parts = statement.query(params![Col(tenant), number])?;
            while let Some(row) = parts.next()? {
                asked.estimate(number, row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?, &mut estimates);
            }
        }
        return Ok(estimates);
    }
    let mut statement = rows.prepare_cached(sql::CODES_ALL)?;
    let mut parts = statement.query(params![Col(tenant)])?;
    while let Some(row) = parts.next()? {
        let number = row.get(0)?;
        if seen.is_published(number) && seen.is_allowed(number) {
            asked.estimate(number, row.get_ref(1)?.as_blob().map_err(rusqlite::Error::from)?, &mut estimates);
        }
    }
    Ok(estimates)
}

/// The true cosines of candidates, which are in order.
fn cosines(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    vector: &[f32],
    candidates: &[Estimate],
) -> Result<Vec<Found>, StoreError> {
    let mut statement = rows.prepare_cached(sql::VECTORS_FIND)?;
    let mut found = Vec::with_capacity(candidates.len());
    // A row has the vectors of several candidates.
    for same_row in
        candidates.chunk_by(|one, other| (one.number, one.ordinal / VECTORS) == (other.number, other.ordinal / VECTORS))
    {
        let Some(Estimate { number, ordinal, .. }) = same_row.first() else { continue };
        let mut read = statement.query(params![Col(tenant), number, ordinal / VECTORS])?;
        let row = read.next()?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let vectors = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
        for Estimate { number, ordinal, .. } in same_row {
            let it = codes::vector_in(vectors, *ordinal, vector.len()).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
            found.push(Found { number: *number, ordinal: *ordinal, score: cosine(vector, &it) });
        }
    }
    Ok(found)
}
