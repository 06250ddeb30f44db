//! Versions on their way: chunks that nobody sees yet.

use std::collections::BTreeMap;

use enigma_core::retrieval::{Chunk, CountedWords, DocumentId, EmbeddedChunk, EmbeddingSpace};
use enigma_core::{TenantId, Timestamp, VersionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::codes::{self, PART, VECTORS};
use super::places;
use crate::columns::{Col, get};
use crate::error::StoreError;
use crate::sql;

/// The most chunks of a version: as many as the places of an index of words can tell apart.
pub(crate) const MAX_CHUNKS: u32 = 1 << 16;

/// What becomes of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Staged,
    Published,
    /// Its rows are being removed.
    Ended,
}

/// A version, as its row tells.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) number: i64,
    pub(crate) state: State,
    pub(crate) document: DocumentId,
    pub(crate) space: EmbeddingSpace,
    pub(crate) chunks: u32,
    pub(crate) words: u64,
}

/// A chunk with all that is written of it, made ready before the writer's turn.
pub(crate) struct Prepared {
    chunk: Chunk,
    words: CountedWords,
    vector: Vec<u8>,
    code: Vec<u8>,
}

impl Prepared {
    pub(crate) fn new(embedded: &EmbeddedChunk) -> Self {
        let EmbeddedChunk { chunk, vector } = embedded;
        Self {
            words: CountedWords::of(&chunk.text),
            vector: codes::vector_entry(chunk.ordinal, vector),
            code: codes::code_entry(chunk.ordinal, vector),
            chunk: chunk.clone(),
        }
    }
}

/// The version of that name.
pub(crate) fn find(
    connection: &Connection,
    tenant: &TenantId,
    version: VersionId,
) -> Result<Option<Version>, StoreError> {
    let found = connection.prepare_cached(sql::VERSION_FIND)?.query_row(params![Col(tenant), Col(&version)], |row| {
        let state = match row.get(1)? {
            0 => State::Staged,
            1 => State::Published,
            2 => State::Ended,
            other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
        };
        let space = EmbeddingSpace { model: get(row, 3)?, dimensions: row.get(4)? };
        let (chunks, words) = (row.get(5)?, get(row, 6)?);
        Ok(Version { number: row.get(0)?, state, document: get(row, 2)?, space, chunks, words })
    });
    Ok(found.optional()?)
}

/// Rows by their numbers, with entries by ordinals.
type Rows = BTreeMap<u32, BTreeMap<u32, Vec<u8>>>;

/// A version that chunks are staged for.
pub(crate) struct Stage<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) tenant: &'a TenantId,
}

impl Stage<'_> {
    /// Adds chunks to a version, unless it is staged no more.
    pub(crate) fn add(
        &self,
        version: VersionId,
        document: &DocumentId,
        space: &EmbeddingSpace,
        chunks: Vec<Prepared>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let Some(mut staged) = self.find_or_begin(version, document, space, now)? else { return Ok(()) };
        // Of a vector of another size the rows would be read wrongly.
        let dimensions = staged.space.dimensions as usize;
        if chunks.iter().any(|it| it.vector.len() != codes::vector_length(dimensions)) {
            return Err(StoreError::Refused("a vector has not the dimensions of its space"));
        }
        let (mut vectors, mut codes) = (Rows::new(), Rows::new());
        for prepared in chunks {
            self.add_chunk(&mut staged, &prepared)?;
            let Prepared { chunk: Chunk { ordinal, .. }, vector, code, .. } = prepared;
            vectors.entry(ordinal / VECTORS).or_default().insert(ordinal, vector);
            codes.entry(ordinal / PART).or_default().insert(ordinal, code);
        }
        let (number, vector_length) = (staged.number, codes::vector_length(dimensions));
        self.merge(sql::VECTORS_FIND, sql::VECTORS_PUT, number, &vectors, vector_length)?;
        self.merge(sql::CODES_FIND, sql::CODES_PUT, number, &codes, codes::code_length(dimensions))?;
        self.connection.prepare_cached(sql::VERSION_STAGE)?.execute(params![
            Col(self.tenant),
            staged.number,
            Col(now),
            staged.chunks,
            Col(staged.words)
        ])?;
        Ok(())
    }

    fn find_or_begin(
        &self,
        version: VersionId,
        document: &DocumentId,
        space: &EmbeddingSpace,
        now: Timestamp,
    ) -> Result<Option<Version>, StoreError> {
        if let Some(found) = find(self.connection, self.tenant, version)? {
            return Ok(Some(found).filter(|it| it.state == State::Staged));
        }
        self.connection.prepare_cached(sql::VERSION_ADD)?.execute(params![
            Col(self.tenant),
            Col(&version),
            Col(now),
            Col(document),
            Col(&space.model),
            space.dimensions
        ])?;
        Ok(Some(Version {
            number: self.connection.last_insert_rowid(),
            state: State::Staged,
            document: document.clone(),
            space: space.clone(),
            chunks: 0,
            words: 0,
        }))
    }

    fn add_chunk(&self, staged: &mut Version, prepared: &Prepared) -> Result<(), StoreError> {
        let Prepared { chunk, words, .. } = prepared;
        let (tenant, number) = (self.tenant, staged.number);
        let values = params![Col(tenant), number, chunk.ordinal, Col(chunk.start), words.length, chunk.text];
        if self.connection.prepare_cached(sql::CHUNK_ADD)?.execute(values)? == 1 {
            staged.chunks += 1;
        } else {
            let old: (u64, String) = self
                .connection
                .prepare_cached(sql::CHUNK_FIND)?
                .query_row(params![Col(tenant), number, chunk.ordinal], |row| Ok((get(row, 1)?, row.get(2)?)))?;
            places::remove(self.connection, tenant, number, chunk.ordinal, &CountedWords::of(&old.1))?;
            staged.words -= old.0;
            self.connection.prepare_cached(sql::CHUNK_CHANGE)?.execute(values)?;
        }
        staged.words += u64::from(words.length);
        places::add(self.connection, tenant, number, chunk.ordinal, words)
    }

    /// Adds entries to the rows that they belong to.
    fn merge(&self, find: &str, put: &str, number: i64, rows: &Rows, length: usize) -> Result<(), StoreError> {
        for (part, entries) in rows {
            let key = params![Col(self.tenant), number, part];
            let old =
                self.connection.prepare_cached(find)?.query_row(key, |row| row.get::<_, Vec<u8>>(0)).optional()?;
            let row = codes::merged(&old.unwrap_or_default(), entries, length);
            self.connection.prepare_cached(put)?.execute(params![Col(self.tenant), number, part, row])?;
        }
        Ok(())
    }
}
