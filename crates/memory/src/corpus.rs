//! Documents in memory.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;
use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    Bm25, Chunk, CorpusGeneration, CorpusState, CountedWords, Document, DocumentId, DocumentPage, DocumentPart,
    DocumentSummary, EmbeddedChunk, EmbeddingSpace, MetadataFilter, Passage, PublishError, Staging, cosine,
};
use enigma_core::{PortError, TenantId, Timestamp, VersionId};

use crate::sharded::Sharded;

/// Bytes of texts and vectors that are kept for one tenant, unless something else is said.
const MAX_BYTES: usize = 256 << 20;

/// Keeps documents in this process, and compares every chunk with every question: for tests, and for corpora of a few thousand
/// chunks.
pub struct MemoryCorpus {
    tenants: Sharded<Documents>,
    max_bytes: usize,
}

impl MemoryCorpus {
    /// Keeps at most so many bytes of texts and vectors for each tenant, staged ones included; what would be more is refused.
    pub fn new(max_bytes: usize) -> Self {
        Self { tenants: Sharded::new("corpus"), max_bytes }
    }
}

impl Default for MemoryCorpus {
    fn default() -> Self {
        Self::new(MAX_BYTES)
    }
}

/// A chunk with its words counted.
struct Indexed {
    chunk: Chunk,
    vector: Vec<f32>,
    words: CountedWords,
}

impl Indexed {
    fn new(embedded: &EmbeddedChunk) -> Self {
        let EmbeddedChunk { chunk, vector } = embedded;
        Self { chunk: chunk.clone(), vector: vector.clone(), words: CountedWords::of(&chunk.text) }
    }

    fn bytes(&self) -> usize {
        bytes(&self.chunk, &self.vector)
    }
}

fn bytes(chunk: &Chunk, vector: &[f32]) -> usize {
    size_of::<Indexed>() + chunk.text.len() + size_of_val(vector)
}

/// A version's chunks, by their numbers.
type Chunks = BTreeMap<u32, Indexed>;

struct Staged {
    document: DocumentId,
    space: EmbeddingSpace,
    at: Timestamp,
    chunks: Chunks,
}

struct Published {
    version: VersionId,
    document: Document,
    at: Timestamp,
    chunks: Chunks,
}

impl Published {
    fn summary(&self) -> DocumentSummary {
        DocumentSummary {
            document: self.document.clone(),
            chunks: u32::try_from(self.chunks.len()).unwrap_or(u32::MAX),
            updated_at: self.at,
        }
    }
}

/// The corpus of one tenant.
#[derive(Default)]
struct Documents {
    state: CorpusState,
    by_id: BTreeMap<DocumentId, Published>,
    staged: HashMap<VersionId, Staged>,
    bytes: usize,
}

impl Documents {
    /// Whether there was room.
    fn stage(&mut self, staging: Staging<'_>, chunks: &[EmbeddedChunk], now: Timestamp, max_bytes: usize) -> bool {
        let is_published = self.by_id.get(staging.document).is_some_and(|it| it.version == staging.version);
        let added: usize = chunks.iter().map(|it| bytes(&it.chunk, &it.vector)).sum();
        if is_published || chunks.is_empty() {
            return true;
        }
        if self.bytes + added > max_bytes {
            return false;
        }
        let staged = self.staged.entry(staging.version).or_insert_with(|| Staged {
            document: staging.document.clone(),
            space: staging.space.clone(),
            at: now,
            chunks: Chunks::new(),
        });
        staged.at = staged.at.max(now);
        for chunk in chunks {
            self.bytes += bytes(&chunk.chunk, &chunk.vector);
            if let Some(old) = staged.chunks.insert(chunk.chunk.ordinal, Indexed::new(chunk)) {
                self.bytes -= old.bytes();
            }
        }
        true
    }

    fn publish(
        &mut self,
        version: VersionId,
        document: &Document,
        space: &EmbeddingSpace,
        chunks: u32,
        now: Timestamp,
    ) -> Result<CorpusGeneration, PublishError> {
        if self.by_id.get(&document.id).is_some_and(|it| it.version == version) {
            return Ok(self.state.generation);
        }
        if let Some(has) = self.state.space.as_ref().filter(|has| *has != space) {
            return Err(PublishError::OtherSpace { has: has.clone() });
        }
        let is_whole = |it: &Staged| {
            it.document == document.id && it.space == *space && chunks > 0 && it.chunks.len() == chunks as usize
        };
        if !self.staged.get(&version).is_some_and(is_whole) {
            return Err(PublishError::NotStaged);
        }
        let staged = self.staged.remove(&version).ok_or(PublishError::NotStaged)?;
        let new = Published { version, document: document.clone(), at: now, chunks: staged.chunks };
        let old = self.by_id.insert(document.id.clone(), new);
        self.forget(old.map(|old| old.chunks));
        self.state.space = Some(staged.space);
        Ok(self.has_changed())
    }

    fn delete(&mut self, document: &DocumentId) -> bool {
        let Some(old) = self.by_id.remove(document) else { return false };
        self.forget(Some(old.chunks));
        if self.by_id.is_empty() {
            self.state.space = None;
        }
        self.has_changed();
        true
    }

    fn has_changed(&mut self) -> CorpusGeneration {
        self.state.generation.0 += 1;
        self.state.generation
    }

    /// Counts the bytes of chunks no longer; tells how many chunks those were.
    fn forget(&mut self, chunks: impl IntoIterator<Item = Chunks>) -> u64 {
        let mut count = 0;
        for chunk in chunks.into_iter().flat_map(Chunks::into_values) {
            self.bytes -= chunk.bytes();
            count += 1;
        }
        count
    }

    fn sweep(&mut self, before: Timestamp) -> u64 {
        let old: Vec<_> = self.staged.extract_if(|_, staged| staged.at < before).map(|(_, it)| it.chunks).collect();
        self.forget(old)
    }

    fn page(&self, after: Option<&DocumentId>, limit: u32) -> DocumentPage {
        let mut rest = self.by_id.values().skip_while(|it| after.is_some_and(|after| it.document.id <= *after));
        let documents: Vec<_> = rest.by_ref().take(limit as usize).map(Published::summary).collect();
        let next = rest.next().and(documents.last()).map(|last| last.document.id.clone());
        DocumentPage { documents, next }
    }

    fn read(&self, document: &DocumentId, from: u32, limit: u32) -> Option<DocumentPart> {
        let it = self.by_id.get(document)?;
        let chunks = it.chunks.range(from..).take(limit as usize).map(|(_, indexed)| indexed.chunk.clone()).collect();
        Some(DocumentPart { summary: it.summary(), version: it.version, chunks })
    }

    /// The best chunks that `score` gives a score, in the order of the port.
    fn best(&self, filter: &MetadataFilter, limit: u32, score: impl Fn(&Indexed) -> Option<f64>) -> Vec<Passage> {
        let mut found: Vec<(f64, &Published, &Indexed)> = self
            .by_id
            .values()
            .filter(|it| filter.allows(&it.document.metadata))
            .flat_map(|it| it.chunks.values().filter_map(|chunk| Some((score(chunk)?, it, chunk))).collect::<Vec<_>>())
            .collect();
        // What has the same score stays in the order of document and chunk.
        found.sort_by(|(one, ..), (other, ..)| other.total_cmp(one));
        let passages = found.into_iter().take(limit as usize);
        passages
            .map(|(score, it, indexed)| Passage { document: it.document.clone(), chunk: indexed.chunk.clone(), score })
            .collect()
    }

    fn nearest(&self, query: VectorQuery<'_>) -> Vec<Passage> {
        self.best(query.filter, query.limit, |chunk| {
            (chunk.vector.len() == query.vector.len()).then(|| cosine(&chunk.vector, query.vector))
        })
    }

    fn matching(&self, query: KeywordQuery<'_>) -> Vec<Passage> {
        let chunks = || self.by_id.values().flat_map(|it| it.chunks.values());
        let all = Bm25::new(chunks().count() as u64, chunks().map(|chunk| u64::from(chunk.words.length)).sum());
        let containing = |word: &String| chunks().filter(|chunk| chunk.words.words.contains_key(word)).count() as u64;
        let weights: Vec<f64> = query.words.iter().map(|word| all.weight(containing(word))).collect();
        self.best(query.filter, query.limit, |chunk| {
            let scores = query.words.iter().zip(&weights).filter_map(|(word, weight)| {
                chunk.words.words.get(word).map(|occurrence| all.score(*weight, *occurrence))
            });
            scores.reduce(|sum, score| sum + score)
        })
    }
}

#[async_trait]
impl Corpus for MemoryCorpus {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        self.tenants.with(tenant, |documents| documents.state.clone())
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        let fits = self.tenants.with(tenant, |documents| documents.stage(staging, chunks, now, self.max_bytes))?;
        if fits { Ok(()) } else { Err(self.tenants.unavailable("the tenant has as many chunks as fit")) }
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
        self.tenants.with(tenant, |documents| documents.publish(version, document, space, chunks, now))
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        self.tenants.with(tenant, |documents| {
            let staged = documents.staged.remove(&version);
            documents.forget(staged.map(|staged| staged.chunks));
        })
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        self.tenants.with(tenant, |documents| documents.delete(document))
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.tenants.with(tenant, |documents| documents.page(after, limit))
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        self.tenants.with(tenant, |documents| documents.read(document, from, limit))
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.tenants.with(tenant, |documents| documents.nearest(query))
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.tenants.with(tenant, |documents| documents.matching(query))
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        self.tenants.with(tenant, |documents| documents.sweep(before))
    }
}

#[cfg(test)]
mod tests {
    use enigma_core::ModelId;
    use futures_util::FutureExt;
    use uuid::Uuid;

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_773_144_000_000);

    #[test]
    fn what_would_be_too_much_is_refused_and_what_goes_makes_room() {
        let (corpus, tenant) = (MemoryCorpus::new(10_000), TenantId::new("acme").unwrap());
        let space = EmbeddingSpace { model: ModelId::new("m").unwrap(), dimensions: 2 };
        let id = DocumentId::new("doc").unwrap();
        let stage = |number: u128, length: usize| {
            let chunk = Chunk { ordinal: 0, start: 0, text: "x".repeat(length) };
            let staging = Staging { document: &id, version: VersionId::new(Uuid::from_u128(number)), space: &space };
            let chunks = [EmbeddedChunk { chunk, vector: vec![1.0, 0.0] }];
            corpus.stage(&tenant, staging, &chunks, NOON).now_or_never().expect("memory does not wait").is_ok()
        };
        let publish = |number: u128| {
            let document = Document {
                id: id.clone(),
                source: None,
                title: None,
                url: None,
                metadata: enigma_core::retrieval::Metadata::default(),
            };
            let version = VersionId::new(Uuid::from_u128(number));
            let published = corpus.publish(&tenant, version, &document, &space, 1, NOON);
            published.now_or_never().expect("memory does not wait").unwrap().unwrap();
        };
        assert!(stage(1, 4_000) && stage(1, 4_000), "it replaces itself");
        publish(1);
        assert!(stage(2, 4_000));
        assert!(!stage(3, 4_000), "there is no room for a third");
        publish(2);
        assert!(stage(3, 4_000), "the first has gone");
        corpus.discard(&tenant, VersionId::new(Uuid::from_u128(3))).now_or_never().unwrap().unwrap();
        assert!(corpus.delete(&tenant, &id).now_or_never().unwrap().unwrap());
        assert_eq!(corpus.tenants.with(&tenant, |documents| documents.bytes).unwrap(), 0);
    }
}
