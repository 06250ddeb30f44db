//! From what was found to passages, in the order of the port.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use enigma_core::TenantId;
use enigma_core::retrieval::{Chunk, Document, DocumentId, Metadata, Passage};
use rusqlite::types::Type;
use rusqlite::{Connection, Row, params};

use crate::columns::{Col, get};
use crate::error::StoreError;
use crate::sql;

/// From so many documents on it is faster to read the names of all than to look each up.
const MANY: usize = 256;

/// A chunk and its score.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) number: i64,
    pub(crate) ordinal: u32,
    pub(crate) score: f64,
}

/// The best `limit` of what was found, the best first; those of the same score by document and chunk.
pub(crate) fn passages(
    connection: &Connection,
    tenant: &TenantId,
    mut found: Vec<Found>,
    limit: usize,
) -> Result<Vec<Passage>, StoreError> {
    if limit > 0 && found.len() > limit {
        let (_, nth, _) = found.select_nth_unstable_by(limit - 1, better);
        let least = nth.score;
        // More than enough, if there are more of that score: their documents decide.
        found.retain(|it| it.score >= least);
    }
    let names = names(connection, tenant, &found)?;
    found.sort_unstable_by(|one, other| {
        let by_name = names.get(&one.number).cmp(&names.get(&other.number));
        better(one, other).then(by_name).then(one.ordinal.cmp(&other.ordinal))
    });
    let mut documents: HashMap<i64, Document> = HashMap::new();
    let mut passages = Vec::with_capacity(limit.min(found.len()));
    for Found { number, ordinal, score } in found.into_iter().take(limit) {
        let document = if let Some(document) = documents.get(&number) {
            document.clone()
        } else {
            let found =
                connection.prepare_cached(sql::VERSION_DOCUMENT)?.query_row(params![Col(tenant), number], document)?;
            documents.insert(number, found.clone());
            found
        };
        let chunk =
            connection.prepare_cached(sql::CHUNK_FIND)?.query_row(params![Col(tenant), number, ordinal], |row| {
                Ok(Chunk { ordinal, start: get(row, 0)?, text: row.get(2)? })
            })?;
        passages.push(Passage { document, chunk, score });
    }
    Ok(passages)
}

fn better(one: &Found, other: &Found) -> Ordering {
    other.score.total_cmp(&one.score)
}

/// The names of the documents in which something was found.
fn names(connection: &Connection, tenant: &TenantId, found: &[Found]) -> Result<HashMap<i64, DocumentId>, StoreError> {
    let wanted: HashSet<i64> = found.iter().map(|it| it.number).collect();
    let mut names = HashMap::with_capacity(wanted.len());
    if wanted.len() < MANY {
        for number in wanted {
            let mut statement = connection.prepare_cached(sql::VERSION_DOCUMENT)?;
            names.insert(number, statement.query_row(params![Col(tenant), number], |row| get(row, 0))?);
        }
        return Ok(names);
    }
    let mut statement = connection.prepare_cached(sql::DOCUMENTS_NAMES)?;
    let mut rows = statement.query(params![Col(tenant)])?;
    while let Some(row) = rows.next()? {
        let number = row.get(0)?;
        if wanted.contains(&number) {
            names.insert(number, get(row, 1)?);
        }
    }
    Ok(names)
}

/// The document of a row that begins with its columns.
pub(crate) fn document(row: &Row<'_>) -> rusqlite::Result<Document> {
    Ok(Document {
        id: get(row, 0)?,
        source: row.get(1)?,
        title: row.get(2)?,
        url: row.get(3)?,
        metadata: metadata(row, 4)?,
    })
}

/// The metadata in a column; an empty one stands for none.
pub(crate) fn metadata(row: &Row<'_>, index: usize) -> rusqlite::Result<Metadata> {
    let Some(json) = row.get_ref(index)?.as_str_or_null()? else { return Ok(Metadata::default()) };
    serde_json::from_str(json)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error.into()))
}
