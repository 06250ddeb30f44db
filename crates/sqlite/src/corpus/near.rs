//! The chunks nearest to a vector.

use std::collections::HashSet;

use enigma_core::TenantId;
use enigma_core::retrieval::{MetadataFilter, Passage, cosine};
use rusqlite::{Row, Transaction, params};

use super::at_hand::{Codes, CodesAtHand};
use super::codes::{self, Asked, Estimate, VECTORS};
use super::passages::{Found, passages};
use super::{documents, seen};
use crate::columns::Col;
use crate::error::StoreError;
use crate::sql;

/// Looks through the codes of all vectors that count, and computes the cosines of those that can be among the nearest.
pub(crate) fn nearest(
    rows: &Transaction<'_>,
    at_hand: &CodesAtHand,
    tenant: &TenantId,
    vector: &[f32],
    filter: &MetadataFilter,
    limit: u32,
) -> Result<Vec<Passage>, StoreError> {
    let (state, limit) = (documents::state(rows, tenant)?, limit as usize);
    if state.space.is_none_or(|space| space.dimensions as usize != vector.len()) {
        return Ok(Vec::new());
    }
    let numbers = seen::published(rows, tenant, filter)?;
    let (asked, mut estimates) = (Asked::new(vector), Vec::new());
    let mut look_through = |number: i64, codes: &Codes| {
        for row in codes.iter() {
            asked.estimate(number, row, &mut estimates);
        }
    };
    let (found, missing) = at_hand.find(&numbers);
    for (number, codes) in &found {
        look_through(*number, codes);
    }
    drop(found);
    let take = |number, codes| {
        look_through(number, &codes);
        at_hand.keep(number, codes);
    };
    if missing.len() > numbers.len() / 2 && filter.is_empty() {
        read_all(rows, tenant, &missing, take)?;
    } else {
        read_each(rows, tenant, &missing, take)?;
    }
    let mut candidates = codes::candidates(estimates, limit);
    candidates.sort_unstable_by_key(|it| (it.number, it.ordinal));
    let found = cosines(rows, tenant, vector, &candidates)?;
    passages(rows, tenant, found, limit)
}

/// Reads the codes of some versions.
fn read_each(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    numbers: &[i64],
    mut take: impl FnMut(i64, Codes),
) -> Result<(), StoreError> {
    let mut statement = rows.prepare_cached(sql::CODES_OF)?;
    for number in numbers {
        let parts = statement.query_map(params![Col(tenant), number], |row| blob(row, 0))?;
        take(*number, parts.collect::<rusqlite::Result<_>>()?);
    }
    Ok(())
}

/// The same, by one walk through all that the tenant has.
fn read_all(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    numbers: &[i64],
    mut take: impl FnMut(i64, Codes),
) -> Result<(), StoreError> {
    let wanted: HashSet<i64> = numbers.iter().copied().collect();
    let mut statement = rows.prepare_cached(sql::CODES_ALL)?;
    let mut parts = statement.query(params![Col(tenant)])?;
    let (mut last, mut codes): (i64, Vec<_>) = (0, Vec::new());
    while let Some(row) = parts.next()? {
        let number = row.get(0)?;
        if !wanted.contains(&number) {
            continue;
        }
        if number != last && !codes.is_empty() {
            take(last, Codes::from(std::mem::take(&mut codes)));
        }
        last = number;
        codes.push(blob(row, 1)?);
    }
    if !codes.is_empty() {
        take(last, Codes::from(codes));
    }
    Ok(())
}

fn blob(row: &Row<'_>, index: usize) -> rusqlite::Result<Box<[u8]>> {
    Ok(row.get_ref(index)?.as_blob()?.into())
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
