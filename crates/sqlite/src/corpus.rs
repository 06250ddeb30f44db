//! The corpus: documents in chunks, with an index of their vectors and one of their words.

mod at_hand;
mod codes;
mod documents;
mod near;
mod passages;
mod places;
mod removal;
mod seen;
mod versions;

use async_trait::async_trait;
use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk, EmbeddingSpace,
    Passage, PublishError, Staging,
};
use enigma_core::{PortError, TenantId, Timestamp, VersionId};

pub(crate) use self::at_hand::CodesAtHand;
use self::documents::{Documents, Publication};
use self::versions::{MAX_CHUNKS, Prepared, Stage};
use crate::database::Database;
use crate::error::StoreError;

const PORT: &str = "corpus";

/// What is said of a vector that cannot be compared with others.
const NOT_UNIT: &str = "a vector has not the length 1";

/// Chunks that one piece of work stages, so that other writers wait no longer than that takes.
const CHUNKS_AT_ONCE: usize = 64;

/// Keeps documents in the database.
///
/// A version is written while nobody sees it, and publishing it changes a few rows, so other writers do not notice how long a
/// document is. What was replaced is removed afterwards, in pieces; what the death of the process leaves of it, or of a version that
/// was never published, goes with the next [`sweep`](Corpus::sweep).
#[derive(Debug, Clone)]
pub struct SqliteCorpus {
    database: Database,
}

impl SqliteCorpus {
    /// The corpus in `database`.
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Deletes all documents of a tenant and all that was ever staged for it; tells how many chunks went.
    ///
    /// # Errors
    /// [`PortError`]; no document is found then, if the deletion was begun, and a [`sweep`](Corpus::sweep) removes the rest.
    pub async fn clear(&self, tenant: &TenantId) -> Result<u64, PortError> {
        let of = tenant.clone();
        let cleared =
            self.database.write(move |work| Documents { connection: work.connection, tenant: &of }.delete_all()).await;
        cleared.map_err(|error| error.into_port(PORT))?;
        self.remove(tenant).await.map_err(|error| error.into_port(PORT))
    }

    /// Removes what is to be removed; tells how many chunks went.
    async fn remove(&self, tenant: &TenantId) -> Result<u64, StoreError> {
        let (mut total, at_hand) = (0, self.database.codes_at_hand());
        loop {
            let of = tenant.clone();
            let removed = self.database.write(move |work| removal::remove_some(work.connection, &of)).await?;
            match removed {
                Some(removed) => {
                    total += removed.chunks;
                    at_hand.forget(removed.number);
                }
                None => return Ok(total),
            }
            self.database.words_were_removed();
        }
    }

    /// The same, for whoever has done what was asked of it already.
    async fn tidy(&self, tenant: &TenantId) {
        if let Err(error) = self.remove(tenant).await {
            // A sweep does it later.
            tracing::warn!(%tenant, %error, "what was replaced could not be removed");
        }
    }
}

#[async_trait]
impl Corpus for SqliteCorpus {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        let tenant = tenant.clone();
        let read = self.database.read(move |rows| Ok(documents::state(rows, &tenant)?.state()));
        read.await.map_err(|error| error.into_port(PORT))
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        if chunks.iter().any(|it| it.chunk.ordinal >= MAX_CHUNKS) {
            return Err(PortError::unavailable(PORT, "a document has more chunks than fit"));
        }
        // The gateway of embeddings has seen to it. One that is no number would hide all others from searches.
        if chunks.iter().any(|it| !codes::is_unit(&it.vector)) {
            return Err(PortError::unavailable(PORT, NOT_UNIT));
        }
        for chunks in chunks.chunks(CHUNKS_AT_ONCE) {
            let prepared = chunks.iter().map(Prepared::new).collect();
            let (tenant, version, document) = (tenant.clone(), staging.version, staging.document.clone());
            let space = staging.space.clone();
            self.database
                .write(move |work| {
                    let stage = Stage { connection: work.connection, tenant: &tenant };
                    stage.add(version, &document, &space, prepared, now)
                })
                .await
                .map_err(|error| error.into_port(PORT))?;
        }
        Ok(())
    }

    async fn publish(
        &self,
        tenant: &TenantId,
        version: VersionId,
        document: &Document,
        space: &EmbeddingSpace,
        chunks: u32,
        now: Timestamp,
    ) -> Result<Result<CorpusGeneration, PublishError>, PortError> {
        let (of, document, space) = (tenant.clone(), document.clone(), space.clone());
        let published = self
            .database
            .write(move |work| {
                let publication = Publication { version, document: &document, space: &space, chunks };
                Documents { connection: work.connection, tenant: &of }.publish(&publication, now)
            })
            .await
            .map_err(|error| error.into_port(PORT))?;
        if published.is_ok() {
            self.tidy(tenant).await;
        }
        Ok(published)
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        let of = tenant.clone();
        let discarded = self.database.write(move |work| removal::discard(work.connection, &of, version)).await;
        discarded.map_err(|error| error.into_port(PORT))?;
        self.remove(tenant).await.map_err(|error| error.into_port(PORT))?;
        Ok(())
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        let (of, document) = (tenant.clone(), document.clone());
        let deleted = self
            .database
            .write(move |work| Documents { connection: work.connection, tenant: &of }.delete(&document))
            .await
            .map_err(|error| error.into_port(PORT))?;
        if deleted {
            self.tidy(tenant).await;
        }
        Ok(deleted)
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        let (tenant, after) = (tenant.clone(), after.cloned());
        let read = self.database.read(move |rows| documents::page(rows, &tenant, after.as_ref(), limit));
        read.await.map_err(|error| error.into_port(PORT))
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        let (tenant, document) = (tenant.clone(), document.clone());
        let read = self.database.read(move |rows| documents::part(rows, &tenant, &document, from, limit));
        read.await.map_err(|error| error.into_port(PORT))
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        if !codes::is_unit(query.vector) {
            return Err(PortError::unavailable(PORT, NOT_UNIT));
        }
        let (tenant, vector, filter, limit) =
            (tenant.clone(), query.vector.to_vec(), query.filter.clone(), query.limit);
        let at_hand = self.database.codes_at_hand();
        let found = self.database.search(move |rows| near::nearest(rows, &at_hand, &tenant, &vector, &filter, limit));
        found.await.map_err(|error| error.into_port(PORT))
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        let (tenant, words, filter, limit) = (tenant.clone(), query.words.to_vec(), query.filter.clone(), query.limit);
        let found = self.database.search(move |rows| places::matching(rows, &tenant, &words, &filter, limit));
        found.await.map_err(|error| error.into_port(PORT))
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        let of = tenant.clone();
        let ended = self.database.write(move |work| removal::end_old(work.connection, &of, before)).await;
        ended.map_err(|error| error.into_port(PORT))?;
        self.remove(tenant).await.map_err(|error| error.into_port(PORT))
    }
}
