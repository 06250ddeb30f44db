//! Documents and kept answers, each call of which may go wrong.

use async_trait::async_trait;
use enigma_core::ports::{Cache, Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk, EmbeddingSpace,
    Passage, PublishError, Staging,
};
use enigma_core::{PortError, TenantId, Timestamp, VersionId};

use super::faulty::Faulty;
use crate::witness::Call;

#[async_trait]
impl Corpus for Faulty<dyn Corpus> {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        self.chaos.strike(Call::CorpusRead, None, self.inner.state(tenant)).await
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        self.chaos.strike(Call::CorpusWrite, None, self.inner.stage(tenant, staging, chunks, now)).await
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
        let published = self.inner.publish(tenant, version, document, space, chunks, now);
        self.chaos.strike(Call::CorpusWrite, None, published).await
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        self.chaos.strike(Call::CorpusWrite, None, self.inner.discard(tenant, version)).await
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        self.chaos.strike(Call::CorpusWrite, None, self.inner.delete(tenant, document)).await
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.chaos.strike(Call::CorpusRead, None, self.inner.documents(tenant, after, limit)).await
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        self.chaos.strike(Call::CorpusRead, None, self.inner.read(tenant, document, from, limit)).await
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.chaos.strike(Call::CorpusRead, None, self.inner.nearest(tenant, query)).await
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.chaos.strike(Call::CorpusRead, None, self.inner.matching(tenant, query)).await
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        self.chaos.strike(Call::CorpusWrite, None, self.inner.sweep(tenant, before)).await
    }
}

#[async_trait]
impl Cache for Faulty<dyn Cache> {
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError> {
        self.chaos.strike(Call::CacheGet, None, self.inner.get(tenant, key, now)).await
    }

    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError> {
        self.chaos.strike(Call::CachePut, None, self.inner.put(tenant, key, value, expires_at, now)).await
    }
}
