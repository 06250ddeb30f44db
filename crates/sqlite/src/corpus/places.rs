//! The index of words: where each word of a tenant is.
//!
//! SQLite's FTS5 keeps it, as an index and nothing else: which word is a word is said by the core, and so is how well a chunk fits.
//! FTS5's own ranking counts the chunks of all tenants together; here each word is written with its tenant, and is counted alone.

use std::collections::HashMap;

use enigma_core::TenantId;
use enigma_core::retrieval::{Bm25, CountedWords, MetadataFilter, Occurrence, Passage};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::passages::{Found, passages};
use super::seen::Seen;
use super::{documents, versions};
use crate::columns::{Col, get};
use crate::error::StoreError;
use crate::sql;

/// Places that a search reads at least, if there are so many, before it leaves the more common of its words out. That is no loss
/// while the rarer ones find enough: what nearly every chunk has says little of any.
const ENOUGH_PLACES: u64 = 150_000;

/// The place of a chunk in the index.
fn place(number: i64, ordinal: u32) -> i64 {
    number * i64::from(versions::MAX_CHUNKS) + i64::from(ordinal)
}

/// The version and the chunk of a place.
fn chunk_at(place: i64) -> (i64, u32) {
    let chunks = i64::from(versions::MAX_CHUNKS);
    (place.div_euclid(chunks), u32::try_from(place.rem_euclid(chunks)).unwrap_or_default())
}

/// Adds the words of a chunk.
pub(crate) fn add(
    connection: &Connection,
    tenant: &TenantId,
    number: i64,
    ordinal: u32,
    words: &CountedWords,
) -> Result<(), StoreError> {
    write(connection, &sql::WORDS_ADD, tenant, place(number, ordinal), words)
}

/// Removes the words of a chunk: they have to be those that were added.
pub(crate) fn remove(
    connection: &Connection,
    tenant: &TenantId,
    number: i64,
    ordinal: u32,
    words: &CountedWords,
) -> Result<(), StoreError> {
    write(connection, &sql::WORDS_DELETE, tenant, place(number, ordinal), words)
}

fn write(
    connection: &Connection,
    statement: &str,
    tenant: &TenantId,
    place: i64,
    words: &CountedWords,
) -> Result<(), StoreError> {
    let mut columns: HashMap<u16, String> = HashMap::new();
    for (word, occurrence) in &words.words {
        let column = columns.entry(occurrence.kind()).or_default();
        column.extend([tenant.as_str(), ":", word, " "]);
    }
    let mut statement = connection.prepare_cached(statement)?;
    statement.raw_bind_parameter(1, place)?;
    for (kind, text) in columns {
        statement.raw_bind_parameter(usize::from(kind) + 2, text)?;
    }
    let written = statement.raw_execute();
    statement.clear_bindings();
    written?;
    Ok(())
}

/// The chunks in which any of the words is, the best first.
pub(crate) fn matching(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    words: &[String],
    filter: &MetadataFilter,
    limit: u32,
) -> Result<Vec<Passage>, StoreError> {
    let limit = limit as usize;
    let (state, seen) = (documents::state(rows, tenant)?, Seen::new(rows, tenant, filter)?);
    let all = Bm25::new(state.chunks, state.words);
    let mut counted = Vec::with_capacity(words.len());
    for word in words {
        let count = rows.prepare_cached(sql::WORD_COUNT)?.query_row(params![Col(tenant), word], |row| get(row, 0));
        counted.extend(count.optional()?.map(|count: u64| (count, word)));
    }
    // The rarest first.
    counted.sort_by_key(|(count, _)| *count);
    let (mut scores, mut read) = (Vec::new(), 0);
    for (count, word) in counted {
        if read + count > ENOUGH_PLACES && scores.len() >= limit {
            break;
        }
        read += count;
        scores = added(scores, &scores_of(rows, tenant, word, &all, &seen)?);
    }
    let found = scores.into_iter().map(|(place, score)| {
        let (number, ordinal) = chunk_at(place);
        Found { number, ordinal, score }
    });
    passages(rows, tenant, found.collect(), limit)
}

/// What one word adds to the scores of the chunks that it is in, by place.
fn scores_of(
    rows: &Transaction<'_>,
    tenant: &TenantId,
    word: &str,
    all: &Bm25,
    seen: &Seen,
) -> Result<Vec<(i64, f64)>, StoreError> {
    let mut statement = rows.prepare_cached(sql::WORD_PLACES)?;
    let mut places = statement.query(params![Col(tenant), word])?;
    let (mut containing, mut found) = (0, Vec::new());
    let (mut last, mut is_published, mut is_allowed) = (i64::MIN, false, false);
    while let Some(row) = places.next()? {
        let place: i64 = row.get(0)?;
        let (number, _) = chunk_at(place);
        // The chunks of a version come one after the other.
        if number != last {
            (last, is_published) = (number, seen.is_published(number));
            is_allowed = is_published && seen.is_allowed(number);
        }
        containing += u64::from(is_published);
        if is_allowed {
            let occurrence = row.get_ref(1)?.as_str().ok().and_then(occurrence);
            let corrupt = || rusqlite::Error::InvalidColumnType(1, "col".into(), Type::Text);
            found.push((place, occurrence.ok_or_else(corrupt)?));
        }
    }
    // Among all that are published, whatever the filter says.
    let weight = all.weight(containing);
    let score_of: Vec<f64> =
        (0..Occurrence::KINDS).filter_map(Occurrence::of_kind).map(|it| all.score(weight, it)).collect();
    Ok(found.into_iter().map(|(place, it)| (place, score_of[usize::from(it.kind())])).collect())
}

/// How a word occurs that stands in this column.
fn occurrence(column: &str) -> Option<Occurrence> {
    column.strip_prefix('w')?.parse().ok().and_then(Occurrence::of_kind)
}

/// The sum of two lists of scores, both by place.
fn added(one: Vec<(i64, f64)>, other: &[(i64, f64)]) -> Vec<(i64, f64)> {
    if one.is_empty() {
        return other.to_vec();
    }
    let mut sum = Vec::with_capacity(one.len() + other.len());
    let mut other = other.iter().copied().peekable();
    for (place, score) in one {
        sum.extend(std::iter::from_fn(|| other.next_if(|(it, _)| *it < place)));
        let more = other.next_if(|(it, _)| *it == place).map_or(0.0, |(_, more)| more);
        sum.push((place, score + more));
    }
    sum.extend(other);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_added_by_place() {
        let (one, other) = (vec![(2, 1.0), (5, 1.0), (6, 2.0)], vec![(1, 0.5), (5, 0.5), (9, 0.25)]);
        let sum = vec![(1, 0.5), (2, 1.0), (5, 1.5), (6, 2.0), (9, 0.25)];
        assert_eq!(added(one.clone(), &other), sum);
        assert_eq!(added(other, &one), sum);
        assert_eq!(added(Vec::new(), &one), one);
        assert_eq!(added(one.clone(), &[]), one);
    }

    #[test]
    fn places_tell_chunks_apart() {
        for number in [1, 2, 1 << 40] {
            for ordinal in [0, 1, versions::MAX_CHUNKS - 1] {
                assert_eq!(chunk_at(place(number, ordinal)), (number, ordinal));
            }
        }
    }
}
