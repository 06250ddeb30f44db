//! Documents, and the corpus that they make.

use enigma_core::retrieval::{
    Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, DocumentSummary,
    EmbeddingSpace, Metadata, PublishError,
};
use enigma_core::{TenantId, Timestamp, VersionId};
use rusqlite::{Connection, OptionalExtension, params};

use super::passages::document;
use super::versions::{self, State};
use crate::columns::{Col, get, get_optional};
use crate::error::StoreError;
use crate::sql;

/// The row of a tenant's corpus.
#[derive(Debug, Default)]
pub(crate) struct CorpusRow {
    generation: u64,
    pub(crate) documents: u64,
    pub(crate) chunks: u64,
    pub(crate) words: u64,
    pub(crate) space: Option<EmbeddingSpace>,
}

impl CorpusRow {
    pub(crate) fn state(self) -> CorpusState {
        CorpusState { generation: CorpusGeneration(self.generation), space: self.space, is_settling: false }
    }
}

/// A tenant's corpus; before its first document, that of nobody.
pub(crate) fn state(connection: &Connection, tenant: &TenantId) -> Result<CorpusRow, StoreError> {
    let found = connection.prepare_cached(sql::CORPUS_FIND)?.query_row(params![Col(tenant)], |row| {
        let model = get_optional(row, 4)?;
        let dimensions: Option<u32> = row.get(5)?;
        Ok(CorpusRow {
            generation: get(row, 0)?,
            documents: get(row, 1)?,
            chunks: get(row, 2)?,
            words: get(row, 3)?,
            space: model.zip(dimensions).map(|(model, dimensions)| EmbeddingSpace { model, dimensions }),
        })
    });
    Ok(found.optional()?.unwrap_or_default())
}

/// What a version is published as.
pub(crate) struct Publication<'a> {
    pub(crate) version: VersionId,
    pub(crate) document: &'a Document,
    pub(crate) space: &'a EmbeddingSpace,
    pub(crate) chunks: u32,
}

/// The documents of a tenant, as the writer sees them.
pub(crate) struct Documents<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) tenant: &'a TenantId,
}

impl Documents<'_> {
    /// Has a version found in place of the one before, which is to be removed then. A few rows change, however long both are.
    pub(crate) fn publish(
        &self,
        publication: &Publication<'_>,
        now: Timestamp,
    ) -> Result<Result<CorpusGeneration, PublishError>, StoreError> {
        let Publication { version, document, space, chunks } = publication;
        let mut corpus = state(self.connection, self.tenant)?;
        let found = versions::find(self.connection, self.tenant, *version)?;
        let found = found.filter(|it| it.document == document.id);
        if found.as_ref().is_some_and(|it| it.state == State::Published) {
            return Ok(Ok(CorpusGeneration(corpus.generation)));
        }
        if let Some(has) = corpus.space.as_ref().filter(|has| has != space) {
            return Ok(Err(PublishError::OtherSpace { has: has.clone() }));
        }
        let is_whole = |it: &versions::Version| {
            it.state == State::Staged && it.space == **space && it.chunks == *chunks && it.chunks > 0
        };
        let Some(found) = found.filter(is_whole) else { return Ok(Err(PublishError::NotStaged)) };

        self.end_published(&document.id, &mut corpus)?;
        let metadata = Some(&document.metadata).filter(|it| !it.fields().is_empty()).map(Metadata::to_json);
        self.connection.prepare_cached(sql::VERSION_PUBLISH)?.execute(params![
            Col(self.tenant),
            found.number,
            Col(now),
            document.source,
            document.title,
            document.url,
            metadata
        ])?;
        self.connection.prepare_cached(sql::DOCUMENT_PUT)?.execute(params![
            Col(self.tenant),
            Col(&document.id),
            found.number
        ])?;
        corpus.documents += 1;
        corpus.chunks += u64::from(found.chunks);
        corpus.words += found.words;
        corpus.space = Some((*space).clone());
        self.put(&mut corpus).map(Ok)
    }

    /// Has a document found no more; whether there was one.
    pub(crate) fn delete(&self, document: &DocumentId) -> Result<bool, StoreError> {
        let mut corpus = state(self.connection, self.tenant)?;
        if !self.end_published(document, &mut corpus)? {
            return Ok(false);
        }
        self.connection.prepare_cached(sql::DOCUMENT_DELETE)?.execute(params![Col(self.tenant), Col(document)])?;
        self.put(&mut corpus)?;
        Ok(true)
    }

    /// Has no document found any more, and everything removed that was ever staged.
    pub(crate) fn delete_all(&self) -> Result<(), StoreError> {
        let mut corpus = state(self.connection, self.tenant)?;
        self.connection.prepare_cached(sql::VERSIONS_END_ALL)?.execute(params![Col(self.tenant)])?;
        if self.connection.prepare_cached(sql::DOCUMENTS_DELETE_ALL)?.execute(params![Col(self.tenant)])? > 0 {
            corpus = CorpusRow { generation: corpus.generation, ..CorpusRow::default() };
            self.put(&mut corpus)?;
        }
        Ok(())
    }

    /// Has the version removed that is found now, and counts it no more; whether there was one.
    fn end_published(&self, document: &DocumentId, corpus: &mut CorpusRow) -> Result<bool, StoreError> {
        let key = params![Col(self.tenant), Col(document)];
        let old = self.connection.prepare_cached(sql::DOCUMENT_FIND)?.query_row(key, |row| row.get::<_, i64>(0));
        let Some(old) = old.optional()? else { return Ok(false) };
        let key = params![Col(self.tenant), old];
        let (chunks, words): (u64, u64) = self
            .connection
            .prepare_cached(sql::VERSION_SIZE)?
            .query_row(key, |row| Ok((get(row, 0)?, get(row, 1)?)))?;
        self.connection.prepare_cached(sql::VERSION_END)?.execute(key)?;
        corpus.documents -= 1;
        corpus.chunks -= chunks;
        corpus.words -= words;
        Ok(true)
    }

    /// Writes the corpus as its next generation.
    fn put(&self, corpus: &mut CorpusRow) -> Result<CorpusGeneration, StoreError> {
        corpus.generation += 1;
        if corpus.documents == 0 {
            corpus.space = None;
        }
        self.connection.prepare_cached(sql::CORPUS_PUT)?.execute(params![
            Col(self.tenant),
            Col(corpus.generation),
            Col(corpus.documents),
            Col(corpus.chunks),
            Col(corpus.words),
            corpus.space.as_ref().map(|space| Col(&space.model)),
            corpus.space.as_ref().map(|space| space.dimensions)
        ])?;
        Ok(CorpusGeneration(corpus.generation))
    }
}

/// The documents after one.
pub(crate) fn page(
    connection: &Connection,
    tenant: &TenantId,
    after: Option<&DocumentId>,
    limit: u32,
) -> Result<DocumentPage, StoreError> {
    // One more than asked for, to see whether there is another page. No name is empty, so all come after nothing.
    let (after, limit_and_one) = (after.map_or("", DocumentId::as_str), Col(u64::from(limit) + 1));
    let mut documents: Vec<DocumentSummary> = connection
        .prepare_cached(sql::DOCUMENTS_AFTER)?
        .query_map(params![Col(tenant), after, limit_and_one], |row| {
            Ok(DocumentSummary { document: document(row)?, chunks: row.get(5)?, updated_at: get(row, 6)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    let goes_on = documents.len() > limit as usize;
    documents.truncate(limit as usize);
    let next = documents.last().filter(|_| goes_on).map(|last| last.document.id.clone());
    Ok(DocumentPage { documents, next })
}

/// Some chunks of a document, from the one of number `from` on.
pub(crate) fn part(
    connection: &Connection,
    tenant: &TenantId,
    document_id: &DocumentId,
    from: u32,
    limit: u32,
) -> Result<Option<DocumentPart>, StoreError> {
    // What a reader sees does not change while it reads.
    let found =
        connection.prepare_cached(sql::DOCUMENT_VERSION)?.query_row(params![Col(tenant), Col(document_id)], |row| {
            let summary = DocumentSummary { document: document(row)?, chunks: row.get(5)?, updated_at: get(row, 6)? };
            Ok((row.get::<_, i64>(7)?, get(row, 8)?, summary))
        });
    let Some((number, version, summary)) = found.optional()? else { return Ok(None) };
    let chunks = connection
        .prepare_cached(sql::CHUNKS_FROM)?
        .query_map(params![Col(tenant), number, from, limit], |row| {
            Ok(Chunk { ordinal: row.get(0)?, start: get(row, 1)?, text: row.get(2)? })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Some(DocumentPart { summary, version, chunks }))
}
