//! [`Corpus`].

use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPart, DocumentSummary, EmbeddedChunk,
    EmbeddingSpace, Metadata, MetadataFilter, Passage, PublishError, Staging, words,
};
use enigma_core::{ModelId, TenantId, Timestamp, VersionId};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::fixture::{NOON, acme};

mod apart;
mod finding;
mod random;
mod versions;

pub use apart::*;
pub use finding::*;
pub use random::*;
pub use versions::*;

/// Lists the cases of this port.
#[macro_export]
macro_rules! corpus_cases {
    ($run:ident) => {
        $run!(a_new_corpus_is_empty);
        $run!(a_published_document_is_found_as_it_was_given);
        $run!(what_is_staged_is_unseen);
        $run!(a_chunk_that_is_staged_again_replaces_itself);
        $run!(a_version_is_published_whole_or_not_at_all);
        $run!(a_version_is_published_for_the_document_it_was_staged_for);
        $run!(a_new_version_leaves_nothing_of_the_old_one);
        $run!(what_ends_half_way_leaves_the_old_version);
        $run!(a_discarded_version_is_gone);
        $run!(a_publication_that_is_asked_again_says_so_again);
        $run!(what_is_staged_for_a_published_version_changes_nothing);
        $run!(the_version_that_was_published_last_is_found);
        $run!(concurrent_versions_leave_one_whole);
        $run!(long_documents_are_replaced_whole);
        $run!(a_deleted_document_is_gone);
        $run!(the_generation_grows_with_each_change_and_with_nothing_else);
        $run!(all_vectors_are_of_one_space);
        $run!(a_sweep_removes_what_was_staged_long_ago);
        $run!(pages_lead_through_all_documents_by_name);
        $run!(paging_goes_on_when_documents_come_and_go);
        $run!(a_document_is_read_in_parts_of_one_version);
        $run!(the_nearest_chunks_come_first);
        $run!(chunks_with_any_of_the_words_are_found);
        $run!(rare_words_count_more);
        $run!(words_are_found_in_every_script);
        $run!(no_word_is_a_command);
        $run!(no_more_is_found_than_was_asked_for);
        $run!(what_fits_alike_is_in_the_order_of_document_and_chunk);
        $run!(filters_say_which_documents_count);
        $run!(the_few_documents_that_a_filter_leaves_are_found_among_many);
        $run!(a_filter_does_not_change_scores);
        $run!(nothing_is_near_to_a_vector_of_another_size);
        $run!(tenants_are_isolated);
        $run!(other_tenants_change_no_scores);
        $run!(random_interleavings_leave_what_was_published_last);
    };
}

/// Vectors of a few dimensions.
const DIMENSIONS: u32 = 8;

/// The space of most cases.
fn space() -> EmbeddingSpace {
    EmbeddingSpace { model: ModelId::new("embedder").expect("it is a name"), dimensions: DIMENSIONS }
}

/// The version of this number.
fn version(number: u128) -> VersionId {
    VersionId::new(Uuid::from_u128(number))
}

fn document_id(name: &str) -> DocumentId {
    DocumentId::new(name).expect("cases use valid names")
}

/// A document of which nothing is known but its name.
fn document(name: &str) -> Document {
    Document { id: document_id(name), source: None, title: None, url: None, metadata: Metadata::default() }
}

/// A document with metadata.
fn described(name: &str, metadata: &Value) -> Document {
    let fields = metadata.as_object().expect("metadata is an object").clone();
    Document { metadata: Metadata::new(fields).expect("it is small"), ..document(name) }
}

/// The vector in this direction, in the plane of the first two dimensions.
fn towards(degrees: f64) -> Vec<f32> {
    let mut vector = vec![0.0; DIMENSIONS as usize];
    #[expect(clippy::cast_possible_truncation, reason = "vectors are of f32")]
    {
        vector[0] = degrees.to_radians().cos() as f32;
        vector[1] = degrees.to_radians().sin() as f32;
    }
    vector
}

/// A chunk that says something in some direction.
fn chunk(ordinal: u32, text: &str, degrees: f64) -> EmbeddedChunk {
    let chunk = Chunk { ordinal, start: u64::from(ordinal) * 1_000, text: text.to_owned() };
    EmbeddedChunk { chunk, vector: towards(degrees) }
}

/// One chunk for each text, one degree apart.
fn chunks<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<EmbeddedChunk> {
    texts.into_iter().zip(0u32..).map(|(text, ordinal)| chunk(ordinal, text, f64::from(ordinal))).collect()
}

fn filter(json: &Value) -> MetadataFilter {
    MetadataFilter::from_json(json).expect("cases use valid filters")
}

/// What a passage is called in a case: document and chunk.
fn names(passages: &[Passage]) -> Vec<String> {
    passages.iter().map(|it| format!("{}#{}", it.document.id, it.chunk.ordinal)).collect()
}

/// One tenant's part of the corpus.
#[derive(Clone)]
struct Desk<'a> {
    corpus: &'a dyn Corpus,
    tenant: TenantId,
}

impl<'a> Desk<'a> {
    fn new(corpus: &'a dyn Corpus) -> Self {
        Self { corpus, tenant: acme() }
    }

    async fn state(&self) -> CorpusState {
        let state = self.corpus.state(&self.tenant).await.expect("the corpus answers");
        // An index may be late, or not.
        CorpusState { is_settling: false, ..state }
    }

    async fn stage_at(&self, number: u128, name: &str, chunks: &[EmbeddedChunk], now: Timestamp) {
        let (document, space) = (document_id(name), space());
        let staging = Staging { document: &document, version: version(number), space: &space };
        self.corpus.stage(&self.tenant, staging, chunks, now).await.expect("the corpus takes them");
    }

    async fn stage(&self, number: u128, name: &str, chunks: &[EmbeddedChunk]) {
        self.stage_at(number, name, chunks, NOON).await;
    }

    async fn publish(
        &self,
        number: u128,
        document: &Document,
        chunks: usize,
    ) -> Result<CorpusGeneration, PublishError> {
        let chunks = u32::try_from(chunks).expect("a few");
        let published = self.corpus.publish(&self.tenant, version(number), document, &space(), chunks, NOON).await;
        published.expect("the corpus answers")
    }

    /// Stages and publishes.
    async fn put(&self, number: u128, document: &Document, chunks: &[EmbeddedChunk]) -> CorpusGeneration {
        self.stage(number, document.id.as_str(), chunks).await;
        self.publish(number, document, chunks.len()).await.expect("it was staged")
    }

    async fn delete(&self, name: &str) -> bool {
        self.corpus.delete(&self.tenant, &document_id(name)).await.expect("the corpus answers")
    }

    async fn discard(&self, number: u128) {
        self.corpus.discard(&self.tenant, version(number)).await.expect("the corpus answers");
    }

    async fn sweep(&self, before: Timestamp) -> u64 {
        self.corpus.sweep(&self.tenant, before).await.expect("the corpus answers")
    }

    async fn nearest_among(&self, filter: &MetadataFilter, vector: &[f32], limit: u32) -> Vec<Passage> {
        let query = VectorQuery { vector, filter, limit };
        self.corpus.nearest(&self.tenant, query).await.expect("the corpus answers")
    }

    async fn nearest(&self, degrees: f64, limit: u32) -> Vec<Passage> {
        self.nearest_among(&MetadataFilter::default(), &towards(degrees), limit).await
    }

    async fn matching_among(&self, filter: &MetadataFilter, question: &str, limit: u32) -> Vec<Passage> {
        let words: Vec<String> = words(question).collect();
        let query = KeywordQuery { words: &words, filter, limit };
        self.corpus.matching(&self.tenant, query).await.expect("the corpus answers")
    }

    async fn matching(&self, question: &str) -> Vec<Passage> {
        self.matching_among(&MetadataFilter::default(), question, 100).await
    }

    async fn read(&self, name: &str, from: u32, limit: u32) -> Option<DocumentPart> {
        self.corpus.read(&self.tenant, &document_id(name), from, limit).await.expect("the corpus answers")
    }

    /// All documents, by pages of `limit`.
    async fn documents(&self, limit: u32) -> Vec<DocumentSummary> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.corpus.documents(&self.tenant, after.as_ref(), limit).await.expect("the corpus answers");
            assert!(page.documents.len() <= limit as usize);
            assert!(page.next.is_none() || page.next == page.documents.last().map(|it| it.document.id.clone()));
            all.extend(page.documents);
            match page.next {
                Some(next) => {
                    assert!(after.is_none_or(|after| next > after), "pages lead on");
                    after = Some(next);
                }
                None => return all,
            }
        }
    }

    /// Everything that can be seen: documents, and what vectors and the words of `question` find.
    async fn everything(&self, question: &str) -> (CorpusState, Vec<DocumentSummary>, Vec<Passage>, Vec<Passage>) {
        (self.state().await, self.documents(100).await, self.nearest(0.0, 100).await, self.matching(question).await)
    }
}

/// Before the first document, and for tenants that never come.
pub async fn a_new_corpus_is_empty(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    assert_eq!(desk.everything("word").await, (CorpusState::default(), vec![], vec![], vec![]));
    assert!(!desk.delete("doc").await);
    assert_eq!(desk.publish(1, &document("doc"), 1).await, Err(PublishError::NotStaged));
    desk.discard(1).await;
    assert_eq!(desk.sweep(NOON).await, 0);
    assert_eq!(desk.state().await, CorpusState::default());
}

/// Every field, whatever the texts are made of.
pub async fn a_published_document_is_found_as_it_was_given(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let texts =
        ["word", "Grüße, 世界 🦀 word", "nul \0 'quote' \"quote\" \r\n\t \u{202e} word", &"word ".repeat(20_000)];
    let given = chunks(texts);
    let whole = Document {
        id: document_id("guides/Überblick 1.md"),
        source: Some("wiki \0 '".into()),
        title: Some("Ein Überblick".into()),
        url: Some("https://example.com/?a=b&c=d".into()),
        metadata: described("any", &json!({ "lang": "de", "deep": { "er": [1, null, true] }, "n": 1.5 })).metadata,
    };
    let generation = desk.put(1, &whole, &given).await;
    assert_eq!(desk.state().await, CorpusState { generation, space: Some(space()), is_settling: false });
    let summary = DocumentSummary { document: whole.clone(), chunks: 4, updated_at: NOON };
    assert_eq!(desk.documents(10).await, [summary]);

    let near = desk.nearest(0.0, 100).await;
    assert_eq!(near.len(), given.len());
    for (passage, given) in near.iter().zip(&given) {
        assert_eq!((&passage.document, &passage.chunk), (&whole, &given.chunk));
    }
    let found = desk.matching("word").await;
    assert_eq!(found.len(), given.len());
    for passage in &found {
        assert_eq!((&passage.document, &passage.chunk), (&whole, &given[passage.chunk.ordinal as usize].chunk));
    }

    let bare = document("bare");
    desk.put(2, &bare, &chunks(["nothing else"])).await;
    assert_eq!(desk.matching("nothing").await[0].document, bare);
}
