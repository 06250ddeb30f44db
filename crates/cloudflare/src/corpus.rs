//! The documents of tenants: whole in D1, and found by Vectorize and by words.
//!
//! D1 has everything: documents, versions, chunks, vectors, words. A version is published by one transaction. Vectorize has a copy
//! of the vectors, under names that D1 gave, and follows late: what it names counts only if D1 knows it, as published, of this
//! tenant, and within the filter. It can be made anew from D1.
//!
//! # What is near
//!
//! Scores are computed here, from the vectors in D1. Where few chunks come into question, all of them are compared, and Vectorize is
//! not asked: a small corpus, or a filter that leaves few, is searched exactly. Otherwise Vectorize names a hundred, to which come
//! the chunks of the last minutes, if those are few, as Vectorize may not know them yet.

mod cells;
mod fields;
mod index;
mod statements;
mod tables;
mod two;

use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::ports::{Corpus, KeywordQuery, TenantDirectory, VectorQuery};
use enigma_core::retrieval::{
    CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk, EmbeddingSpace,
    Passage, PublishError, Staging,
};
use enigma_core::{PortError, TenantId, Timestamp, VersionId};
use worker::Env;

pub use self::index::{IndexTooSmall, InvalidIndexes, MetadataIndexes};
pub(crate) use self::index::{Vector, VectorIndex};
pub(crate) use self::tables::Tables;
use self::two::TwoStores;
use crate::ai::MissingBinding;
use crate::d1::Database;
use crate::vectorize::Vectorize;

const PORT: &str = "corpus";

/// How far what is near is looked for without Vectorize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exactness {
    /// At most so many chunks are compared one by one.
    pub chunks: u32,
    /// For how long Vectorize may not know what was published, in seconds.
    pub late: u32,
}

impl Default for Exactness {
    /// 256 chunks, which are 1.4 MB of vectors of 1,024 dimensions; and three minutes.
    fn default() -> Self {
        Self { chunks: 256, late: 180 }
    }
}

/// The corpus of a Worker, in D1 and Vectorize.
pub struct D1VectorizeCorpus {
    stores: TwoStores<Database, Vectorize>,
}

impl D1VectorizeCorpus {
    /// The corpus in the database that `env` calls `DB` and the vector index that it calls `VECTORIZE`. The vectors of a tenant that
    /// `directory` knows are in the namespace that it names.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub fn from_env(
        env: &Env,
        directory: Option<Arc<dyn TenantDirectory>>,
        indexes: MetadataIndexes,
    ) -> Result<Self, MissingBinding> {
        let database = Database::from_env(env, PORT).map_err(|_| MissingBinding { name: "DB".to_owned() })?;
        let vectorize = Vectorize::from_env(env)?;
        let exactness = Exactness::default();
        Ok(Self { stores: TwoStores { tables: database, index: vectorize, directory, indexes, exactness } })
    }

    /// Looks as far without Vectorize.
    #[must_use]
    pub fn with_exactness(mut self, exactness: Exactness) -> Self {
        self.stores.exactness = exactness;
        self
    }
}

#[async_trait]
impl Corpus for D1VectorizeCorpus {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        self.stores.state(tenant).await
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        self.stores.stage(tenant, staging, chunks, now).await
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
        self.stores.publish(tenant, version, document, space, chunks, now).await
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        self.stores.discard(tenant, version).await
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        self.stores.delete(tenant, document).await
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.stores.documents(tenant, after, limit).await
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        self.stores.read(tenant, document, from, limit).await
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.stores.nearest(tenant, query).await
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.stores.matching(tenant, query).await
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        self.stores.sweep(tenant, before).await
    }
}
