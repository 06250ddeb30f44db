//! Where documents are kept and found.

use async_trait::async_trait;

use crate::id::{TenantId, VersionId};
use crate::port_error::PortError;
use crate::retrieval::{
    CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk, EmbeddingSpace,
    MetadataFilter, Passage, PublishError, Staging,
};
use crate::time::Timestamp;

/// Chunks near a vector.
#[derive(Debug, Clone, Copy)]
pub struct VectorQuery<'a> {
    /// The vector, of length 1, in the space of the corpus.
    pub vector: &'a [f32],
    /// Which documents count.
    pub filter: &'a MetadataFilter,
    /// The most chunks that are wanted, 1 to 100.
    pub limit: u32,
}

/// Chunks in which words occur.
#[derive(Debug, Clone, Copy)]
pub struct KeywordQuery<'a> {
    /// Words, as [`words`](crate::retrieval::words) cuts them, each once, 1 to 32; any of them may occur.
    pub words: &'a [String],
    /// Which documents count.
    pub filter: &'a MetadataFilter,
    /// The most chunks that are wanted, 1 to 100.
    pub limit: u32,
}

/// The documents of tenants, in chunks with their vectors, and the indexes over them.
///
/// A document is replaced in three steps: its new version is staged, chunk by chunk and unseen; then it is published, at once and
/// whole, in place of the old one; or it is discarded. Whatever fails on the way, either the old version is found or the new one,
/// and never both or a part.
///
/// # Contract
/// - Nothing of a version is found before it is published, and nothing after another version of its document was, or after the
///   document was deleted. An index that follows the corpus late may miss chunks for a while; it never shows those.
/// - A version is published with all of its chunks, and each document has the version that was published last.
/// - The generation grows with each publication and each deletion, and with nothing else. Before a caller learns that a corpus has
///   changed, its state tells the new generation.
/// - While a tenant has documents, all have vectors of one space. Nothing is near to a vector of another number of dimensions.
/// - What is found depends on nothing but the tenant's own documents: other tenants change neither which chunks are found nor
///   their scores. Best first; those of the same score are in the order of document and chunk.
/// - A durable adapter keeps what was published when it is killed.
#[async_trait]
pub trait Corpus: Send + Sync {
    /// What the corpus is now.
    ///
    /// # Errors
    /// [`PortError`].
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError>;

    /// Adds chunks to a version that nobody sees yet. A chunk that is staged again replaces itself. What comes for a version that
    /// was published changes nothing.
    ///
    /// # Errors
    /// [`PortError`]; some of the chunks may have been added.
    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError>;

    /// Makes a version the one that is found, when exactly `chunks` chunks of it, one at least, are staged for that document and
    /// that space. Asked again after it was published, and neither another version nor a deletion since, it says so again, with
    /// the generation that the corpus has by now.
    ///
    /// # Errors
    /// [`PortError`]; whether it was published is unknown after [`PortError::Timeout`], otherwise it was not.
    async fn publish(
        &self,
        tenant: &TenantId,
        version: VersionId,
        document: &Document,
        space: &EmbeddingSpace,
        chunks: u32,
        now: Timestamp,
    ) -> Result<Result<CorpusGeneration, PublishError>, PortError>;

    /// Forgets a version that was not published. One that was stays.
    ///
    /// # Errors
    /// [`PortError`]; it will be swept away then.
    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError>;

    /// Deletes a document; whether there was one.
    ///
    /// # Errors
    /// [`PortError`].
    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError>;

    /// The documents after `after`, at most `limit`, by name.
    ///
    /// # Errors
    /// [`PortError`].
    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError>;

    /// Some of a document's text: its chunks from number `from` on, at most `limit`, 1 to 100, in their order; `None` where there is
    /// no such document. All chunks of a part are of the one version that it names.
    ///
    /// # Errors
    /// [`PortError`].
    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError>;

    /// The chunks nearest to a vector, by cosine.
    ///
    /// # Errors
    /// [`PortError`].
    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError>;

    /// The chunks in which words of the query occur, by BM25 or what comes near to it: rare words count more, and the filter does
    /// not change what they count.
    ///
    /// # Errors
    /// [`PortError`].
    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError>;

    /// Removes versions of `tenant` for which nothing was staged since `before` and that were never published, and whatever else
    /// was left behind; tells how many chunks went.
    ///
    /// # Errors
    /// [`PortError`].
    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError>;
}

/// Keeps answers for a while, in parts that belong to one tenant each.
///
/// # Contract
/// - What is got was put by the same tenant under the same key, whole, and has not expired.
/// - It may forget anything at any time, and its room is bounded.
#[async_trait]
pub trait Cache: Send + Sync {
    /// What is kept under `key`.
    ///
    /// # Errors
    /// [`PortError`]; it counts as nothing then.
    async fn get(&self, tenant: &TenantId, key: &str, now: Timestamp) -> Result<Option<String>, PortError>;

    /// Keeps `value` until `expires_at`.
    ///
    /// # Errors
    /// [`PortError`]; it is not kept then.
    async fn put(
        &self,
        tenant: &TenantId,
        key: &str,
        value: &str,
        expires_at: Timestamp,
        now: Timestamp,
    ) -> Result<(), PortError>;
}
