//! What the corpus and the cache in the file promise beyond their ports.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use crate::support::{Fixture, chance, open};
use enigma_contract::fixture::{DAY, NOON, acme, acme_eu, after};
use enigma_core::ports::{Cache, Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{
    Chunk, CorpusGeneration, CorpusState, Document, DocumentId, DocumentPage, DocumentPart, EmbeddedChunk,
    EmbeddingSpace, Metadata, MetadataFilter, Passage, PublishError, Staging,
};
use enigma_core::session::Retention;
use enigma_core::{ModelId, PortError, TenantId, Timestamp, VersionId};
use enigma_memory::MemoryCorpus;
use enigma_sqlite::{SqliteCache, SqliteCorpus, SqliteMaintenance};
use tempfile::TempDir;
use uuid::Uuid;

const DIMENSIONS: usize = 24;

pub(crate) fn space() -> EmbeddingSpace {
    EmbeddingSpace { model: ModelId::new("embedder").unwrap(), dimensions: u32::try_from(DIMENSIONS).unwrap() }
}

pub(crate) fn version(number: u128) -> VersionId {
    VersionId::new(Uuid::from_u128(number))
}

pub(crate) fn document(name: &str) -> Document {
    let id = DocumentId::new(name).unwrap();
    Document { id, source: None, title: None, url: None, metadata: Metadata::default() }
}

/// Some direction.
pub(crate) fn vector(seed: u64) -> Vec<f32> {
    let number = |place| {
        let [one, other, ..] = chance(seed * 1_000 + place).to_le_bytes();
        f32::from(i16::from_le_bytes([one, other]))
    };
    let mut vector: Vec<f32> = (0..DIMENSIONS as u64).map(number).collect();
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    for x in &mut vector {
        *x /= length;
    }
    vector
}

pub(crate) fn chunk(ordinal: u32, text: &str, seed: u64) -> EmbeddedChunk {
    EmbeddedChunk { chunk: Chunk { ordinal, start: 0, text: text.to_owned() }, vector: vector(seed) }
}

pub(crate) async fn stage(corpus: &dyn Corpus, tenant: &TenantId, number: u128, name: &str, chunks: &[EmbeddedChunk]) {
    let (document, space) = (DocumentId::new(name).unwrap(), space());
    let staging = Staging { document: &document, version: version(number), space: &space };
    corpus.stage(tenant, staging, chunks, NOON).await.unwrap();
}

pub(crate) async fn put(corpus: &dyn Corpus, tenant: &TenantId, number: u128, name: &str, chunks: &[EmbeddedChunk]) {
    stage(corpus, tenant, number, name, chunks).await;
    let count = u32::try_from(chunks.len()).unwrap();
    let published = corpus.publish(tenant, version(number), &document(name), &space(), count, NOON).await;
    published.unwrap().unwrap();
}

pub(crate) async fn matching(corpus: &dyn Corpus, tenant: &TenantId, words: &[&str], limit: u32) -> Vec<Passage> {
    let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
    let query = KeywordQuery { words: &words, filter: &MetadataFilter::default(), limit };
    corpus.matching(tenant, query).await.unwrap()
}

pub(crate) async fn nearest(corpus: &dyn Corpus, tenant: &TenantId, vector: &[f32], limit: u32) -> Vec<Passage> {
    let query = VectorQuery { vector, filter: &MetadataFilter::default(), limit };
    corpus.nearest(tenant, query).await.unwrap()
}

pub(crate) fn names(passages: &[Passage]) -> Vec<String> {
    passages.iter().map(|it| format!("{}#{}", it.document.id, it.chunk.ordinal)).collect()
}

/// Rows of a table, whoever's they are.
pub(crate) fn rows(dir: &TempDir, table: &str) -> i64 {
    let raw = rusqlite::Connection::open(dir.path().join("enigma.db")).unwrap();
    raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

const TABLES: [&str; 7] = [
    "corpus_document",
    "corpus_version",
    "corpus_chunk",
    "corpus_vectors",
    "corpus_codes",
    "corpus_places",
    "corpus_counts",
];

/// Some text of words that are as frequent as words are.
fn text(seed: u64) -> String {
    let count = 5 + chance(seed) % 60;
    let word = |place: u64| {
        let number = chance(seed << 16 | place) % 10_000;
        format!("w{}", 10_000 / (number + 1))
    };
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

/// The same documents by brute force: the same chunks, in the same order, with the same scores.
#[tokio::test]
async fn a_search_finds_what_comparing_every_chunk_finds() {
    let fixture = Fixture::new();
    let (ours, theirs) = (SqliteCorpus::new(fixture.database.clone()), MemoryCorpus::default());
    let corpora: [&dyn Corpus; 2] = [&ours, &theirs];
    for number in 0..60u64 {
        // Some documents come twice.
        let name = format!("doc-{:02}", number % 45);
        let count = 1 + chance(number) % 40;
        let chunks: Vec<_> =
            (0..count).map(|it| chunk(u32::try_from(it).unwrap(), &text(number * 50 + it), number * 50 + it)).collect();
        for corpus in corpora {
            put(corpus, &acme(), u128::from(number) + 1, &name, &chunks).await;
        }
    }
    for seed in 0..40u64 {
        let asked = vector(1_000_000 + seed);
        let limit = [1, 5, 20, 100][(seed % 4) as usize];
        assert_eq!(nearest(&ours, &acme(), &asked, limit).await, nearest(&theirs, &acme(), &asked, limit).await);

        let question = text(2_000_000 + seed);
        let mut words: Vec<&str> = question.split(' ').take(8).collect();
        words.sort_unstable();
        words.dedup();
        let (found, expected) =
            (matching(&ours, &acme(), &words, limit).await, matching(&theirs, &acme(), &words, limit).await);
        assert_eq!(names(&found), names(&expected), "{words:?}");
        let are_near = found.iter().zip(&expected).all(|(one, other)| (one.score - other.score).abs() < 1e-9);
        assert!(are_near, "the scores of {words:?} differ");
    }
}

#[tokio::test]
async fn what_was_published_is_there_after_the_process_was_killed_and_what_was_not_is_not() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let chunks: Vec<_> = (0..40).map(|it| chunk(it, "old words", u64::from(it))).collect();
    put(&corpus, &acme(), 1, "doc", &chunks).await;
    put(&corpus, &acme(), 2, "other", &[chunk(0, "other words", 99)]).await;
    stage(&corpus, &acme(), 3, "doc", &[chunk(0, "new words", 100), chunk(1, "new words", 101)]).await;
    let state = corpus.state(&acme()).await.unwrap();

    // The files, as they are while the database is open, are all that a process leaves that is killed.
    let dead = TempDir::new().unwrap();
    for name in ["enigma.db", "enigma.db-wal"] {
        fs::copy(fixture.dir.path().join(name), dead.path().join(name)).unwrap();
    }
    let database = open(&dead);
    let corpus = SqliteCorpus::new(database.clone());
    assert_eq!(corpus.state(&acme()).await.unwrap(), state);
    assert_eq!(matching(&corpus, &acme(), &["old"], 100).await.len(), 40);
    assert_eq!(matching(&corpus, &acme(), &["new"], 100).await, []);
    assert_eq!(names(&nearest(&corpus, &acme(), &vector(99), 1).await), ["other#0"]);
    // Whoever was at it can go on.
    let published = corpus.publish(&acme(), version(3), &document("doc"), &space(), 2, after(5)).await;
    assert!(published.unwrap().unwrap() > state.generation);
    assert_eq!(names(&matching(&corpus, &acme(), &["old", "new"], 100).await), ["doc#0", "doc#1"]);
}

/// A corpus whose database fails every now and then, at any of its tables; whoever is told so asks again.
struct Faulty {
    corpus: SqliteCorpus,
    raw: Mutex<rusqlite::Connection>,
    calls: AtomicU64,
    failed: AtomicU64,
}

impl Faulty {
    const FAULTS: [&str; 8] = [
        "INSERT ON corpus_chunk",
        "UPDATE ON corpus_chunk",
        "INSERT ON corpus_vectors",
        "INSERT ON corpus_codes",
        "UPDATE ON corpus_version",
        "INSERT ON corpus_document",
        "DELETE ON corpus_document",
        "INSERT ON corpus",
    ];

    fn new(fixture: &Fixture) -> Self {
        let raw = rusqlite::Connection::open(fixture.dir.path().join("enigma.db")).unwrap();
        raw.pragma_update(None, "synchronous", "OFF").unwrap();
        raw.busy_timeout(Duration::from_secs(10)).unwrap();
        let corpus = SqliteCorpus::new(fixture.database.clone());
        Self { corpus, raw: Mutex::new(raw), calls: AtomicU64::default(), failed: AtomicU64::default() }
    }

    /// Has one of the tables fail, or none.
    fn fault(&self) -> Option<Fault<'_>> {
        let chance = chance(self.calls.fetch_add(1, Ordering::Relaxed));
        let fault = Self::FAULTS[(chance >> 8) as usize % Self::FAULTS.len()];
        chance.is_multiple_of(2).then(|| Fault::new(&self.raw, fault))
    }

    /// Whether to ask again.
    fn has_failed<T>(&self, first: &Result<T, PortError>, fault: Option<Fault<'_>>) -> bool {
        drop(fault);
        self.failed.fetch_add(u64::from(first.is_err()), Ordering::Relaxed);
        first.is_err()
    }
}

/// Gone when it is dropped, also by somebody who goes away in the middle.
struct Fault<'a>(&'a Mutex<rusqlite::Connection>);

impl<'a> Fault<'a> {
    fn new(raw: &'a Mutex<rusqlite::Connection>, fault: &str) -> Self {
        let trigger = format!("CREATE TRIGGER fault BEFORE {fault} BEGIN SELECT RAISE(ABORT, 'a fault'); END");
        raw.lock().unwrap().execute_batch(&trigger).unwrap();
        Self(raw)
    }
}

impl Drop for Fault<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap().execute_batch("DROP TRIGGER fault").unwrap();
    }
}

#[async_trait]
impl Corpus for Faulty {
    async fn state(&self, tenant: &TenantId) -> Result<CorpusState, PortError> {
        self.corpus.state(tenant).await
    }

    async fn stage(
        &self,
        tenant: &TenantId,
        staging: Staging<'_>,
        chunks: &[EmbeddedChunk],
        now: Timestamp,
    ) -> Result<(), PortError> {
        let fault = self.fault();
        let first = self.corpus.stage(tenant, staging, chunks, now).await;
        if self.has_failed(&first, fault) { self.corpus.stage(tenant, staging, chunks, now).await } else { first }
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
        let fault = self.fault();
        let first = self.corpus.publish(tenant, version, document, space, chunks, now).await;
        if self.has_failed(&first, fault) {
            self.corpus.publish(tenant, version, document, space, chunks, now).await
        } else {
            first
        }
    }

    async fn discard(&self, tenant: &TenantId, version: VersionId) -> Result<(), PortError> {
        let fault = self.fault();
        let first = self.corpus.discard(tenant, version).await;
        if self.has_failed(&first, fault) { self.corpus.discard(tenant, version).await } else { first }
    }

    async fn delete(&self, tenant: &TenantId, document: &DocumentId) -> Result<bool, PortError> {
        let fault = self.fault();
        let first = self.corpus.delete(tenant, document).await;
        if self.has_failed(&first, fault) { self.corpus.delete(tenant, document).await } else { first }
    }

    async fn documents<'a>(
        &self,
        tenant: &TenantId,
        after: Option<&'a DocumentId>,
        limit: u32,
    ) -> Result<DocumentPage, PortError> {
        self.corpus.documents(tenant, after, limit).await
    }

    async fn read(
        &self,
        tenant: &TenantId,
        document: &DocumentId,
        from: u32,
        limit: u32,
    ) -> Result<Option<DocumentPart>, PortError> {
        self.corpus.read(tenant, document, from, limit).await
    }

    async fn nearest(&self, tenant: &TenantId, query: VectorQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.corpus.nearest(tenant, query).await
    }

    async fn matching(&self, tenant: &TenantId, query: KeywordQuery<'_>) -> Result<Vec<Passage>, PortError> {
        self.corpus.matching(tenant, query).await
    }

    async fn sweep(&self, tenant: &TenantId, before: Timestamp) -> Result<u64, PortError> {
        self.corpus.sweep(tenant, before).await
    }
}

#[tokio::test]
async fn random_interleavings_with_failing_transactions_leave_what_was_published_last() {
    let fixture = Fixture::new();
    let faulty = Faulty::new(&fixture);
    enigma_contract::corpus::random_interleavings_leave_what_was_published_last(&faulty).await;
    let (calls, failed) = (faulty.calls.into_inner(), faulty.failed.into_inner());
    assert!(failed > 40, "{failed} of {calls} failed");
}

/// At every step of an ingestion that replaces a document, the file holds the old version or the new one, whole.
#[tokio::test]
async fn a_kill_at_any_step_leaves_the_old_version_or_the_new_one() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let all = |text: &str, count: u32| -> Vec<_> { (0..count).map(|it| chunk(it, text, it.into())).collect() };
    put(&corpus, &acme(), 1, "doc", &all("old", 300)).await;
    let new = all("new", 200);
    let replacing = {
        let corpus = corpus.clone();
        async move {
            stage(&corpus, &acme(), 2, "doc", &new).await;
            let published = corpus.publish(&acme(), version(2), &document("doc"), &space(), 200, NOON).await;
            published.unwrap().unwrap();
        }
    };
    let (mut seen, mut replacing) = (Vec::new(), Box::pin(replacing));
    loop {
        let step = tokio::time::timeout(Duration::from_millis(3), &mut replacing).await;
        let dead = TempDir::new().unwrap();
        {
            // With the writer at rest, so that the copies belong together; the ingestion goes on afterwards.
            let raw = rusqlite::Connection::open(fixture.dir.path().join("enigma.db")).unwrap();
            raw.busy_timeout(Duration::from_secs(10)).unwrap();
            raw.execute_batch("BEGIN IMMEDIATE").unwrap();
            for name in ["enigma.db", "enigma.db-wal"] {
                fs::copy(fixture.dir.path().join(name), dead.path().join(name)).unwrap();
            }
            raw.execute_batch("ROLLBACK").unwrap();
        }
        let database = open(&dead);
        let corpus = SqliteCorpus::new(database.clone());
        let listed = corpus.documents(&acme(), None, 10).await.unwrap().documents;
        assert_eq!(listed.len(), 1);
        let text = if listed[0].chunks == 300 { "old" } else { "new" };
        let found = matching(&corpus, &acme(), &["old", "new"], 100).await;
        let near = nearest(&corpus, &acme(), &vector(7), 100).await;
        assert!(found.len() == 100 && near.len() == 100);
        assert!(found.iter().chain(&near).all(|it| it.chunk.text == text), "{text}");
        seen.push(text);
        corpus.sweep(&acme(), NOON.saturating_add(DAY)).await.unwrap();
        drop((corpus, database));
        assert_eq!(rows(&dead, "corpus_chunk"), i64::from(listed[0].chunks), "the rest is swept away");
        if step.is_ok() {
            break;
        }
    }
    assert!(seen.is_sorted_by(|one, other| one >= other), "it is replaced once: {seen:?}");
    assert_eq!(*seen.last().unwrap(), "new");
}

#[tokio::test]
async fn nothing_is_left_of_what_was_replaced_discarded_or_deleted() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let all = |text: &str, count: u32| -> Vec<_> { (0..count).map(|it| chunk(it, text, it.into())).collect() };
    put(&corpus, &acme_eu(), 1, "doc", &all("kept", 3)).await;
    let before = TABLES.map(|table| rows(&fixture.dir, table));
    put(&corpus, &acme(), 1, "doc", &all("one two", 200)).await;
    stage(&corpus, &acme(), 2, "doc", &all("three", 20)).await;
    stage(&corpus, &acme(), 2, "doc", &all("four", 10)).await;
    corpus.discard(&acme(), version(2)).await.unwrap();
    put(&corpus, &acme(), 3, "doc", &all("five", 30)).await;
    stage(&corpus, &acme(), 4, "doc", &all("six", 150)).await;
    assert_eq!(corpus.sweep(&acme(), after(1)).await.unwrap(), 150);
    assert!(corpus.delete(&acme(), &document("doc").id).await.unwrap());
    assert_eq!(TABLES.map(|table| rows(&fixture.dir, table)), before);
}

#[tokio::test]
async fn a_tenant_that_is_cleared_has_nothing_and_can_begin_anew() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme_eu(), 1, "doc", &[chunk(0, "kept", 1)]).await;
    let before = TABLES.map(|table| rows(&fixture.dir, table));
    for number in 0..5u64 {
        let chunks: Vec<_> = (0..30).map(|it| chunk(it, "words", it.into())).collect();
        put(&corpus, &acme(), number.into(), &format!("doc-{number}"), &chunks).await;
    }
    stage(&corpus, &acme(), 9, "doc", &[chunk(0, "words", 1)]).await;
    let generation = corpus.state(&acme()).await.unwrap().generation;
    assert_eq!(corpus.clear(&acme()).await.unwrap(), 151);
    assert_eq!(TABLES.map(|table| rows(&fixture.dir, table)), before);
    let state = corpus.state(&acme()).await.unwrap();
    assert!(state.generation > generation && state.space.is_none());
    assert_eq!(corpus.clear(&acme()).await.unwrap(), 0);
    assert_eq!(corpus.state(&acme()).await.unwrap(), state, "nothing has changed");
    let published = corpus.publish(&acme(), version(9), &document("doc"), &space(), 1, NOON).await.unwrap();
    assert_eq!(published, Err(PublishError::NotStaged));
    put(&corpus, &acme(), 20, "doc-1", &[chunk(0, "words", 1)]).await;
    assert_eq!(names(&matching(&corpus, &acme(), &["words"], 10).await), ["doc-1#0"]);
}

/// How often something stands in the files of the database.
fn count_in_files(dir: &TempDir, what: &[u8]) -> usize {
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(what.len()).filter(|window| *window == what).count()).sum()
}

/// Neither texts nor their words, nor vectors.
#[tokio::test]
async fn deleted_documents_are_in_no_file_any_more() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    for number in 0..40u64 {
        let word = if number % 4 == 0 { "keptwords" } else { "gonewords" };
        let chunks: Vec<_> = (0..20)
            .map(|it| chunk(it, &format!("{word} {}", text(u64::from(it))), number * 100 + u64::from(it)))
            .collect();
        put(&corpus, &acme(), u128::from(number) + 1, &format!("doc-{number:02}"), &chunks).await;
    }
    let bytes = |seed| vector(seed).iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    assert!(count_in_files(&fixture.dir, b"gonewords") > 0 && count_in_files(&fixture.dir, &bytes(101)) > 0);
    for number in (0..40).filter(|number| number % 4 > 0) {
        assert!(corpus.delete(&acme(), &document(&format!("doc-{number:02}")).id).await.unwrap());
    }
    maintenance.compact().await.unwrap();
    assert_eq!(count_in_files(&fixture.dir, b"gonewords"), 0);
    assert_eq!(count_in_files(&fixture.dir, &bytes(101)), 0);
    assert!(count_in_files(&fixture.dir, b"keptwords") > 0);
    assert_eq!(matching(&corpus, &acme(), &["keptwords"], 100).await.len(), 100);
    assert_eq!(matching(&corpus, &acme(), &["gonewords"], 100).await, []);

    maintenance.rebuild().await.unwrap();
    assert_eq!(matching(&corpus, &acme(), &["keptwords"], 100).await.len(), 100);
    assert_eq!(names(&nearest(&corpus, &acme(), &vector(401), 1).await), ["doc-04#1"]);
}

#[tokio::test]
async fn a_sweep_ends_what_was_staged_an_hour_ago_and_answers_that_have_expired() {
    let fixture = Fixture::new();
    let (corpus, cache) = (SqliteCorpus::new(fixture.database.clone()), SqliteCache::new(fixture.database.clone()));
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    let retention = Retention { days: 7, max_messages: 1000 };
    for tenant in [acme(), acme_eu()] {
        stage(&corpus, &tenant, 1, "doc", &[chunk(0, "words", 1), chunk(1, "words", 2)]).await;
        for (key, minutes) in [("a", 10), ("b", 30), ("c", 90)] {
            let until = NOON.saturating_add(Duration::from_secs(60 * minutes));
            cache.put(&tenant, key, "answer", until, NOON).await.unwrap();
        }
    }
    let minutes = |minutes: u64| NOON.saturating_add(Duration::from_secs(60 * minutes));
    let swept = maintenance.sweep(&acme(), &retention, minutes(60)).await.unwrap();
    assert_eq!((swept.chunks, swept.answers, swept.total()), (0, 2, 2));
    let swept = maintenance.sweep(&acme(), &retention, minutes(61)).await.unwrap();
    assert_eq!((swept.chunks, swept.answers, swept.total()), (2, 0, 2));
    assert_eq!(
        (rows(&fixture.dir, "corpus_chunk"), rows(&fixture.dir, "cache")),
        (2, 4),
        "the other tenant's are there"
    );
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let (document, space) = (document("doc"), space());
    let staging = Staging { document: &document.id, version: version(1), space: &space };
    let mut short = chunk(1, "words", 1);
    short.vector.pop();
    for wrong in [short, chunk(1 << 16, "words", 1)] {
        assert!(corpus.stage(&acme(), staging, &[chunk(0, "words", 1), wrong], NOON).await.is_err());
    }
    assert_eq!(rows(&fixture.dir, "corpus_chunk"), 0);
    corpus.stage(&acme(), staging, &[chunk((1 << 16) - 1, "words", 1)], NOON).await.unwrap();
    corpus.publish(&acme(), version(1), &document, &space, 1, NOON).await.unwrap().unwrap();
    assert_eq!(names(&matching(&corpus, &acme(), &["words"], 1).await), ["doc#65535"]);
}

#[tokio::test]
async fn a_tenants_answers_have_so_much_room_and_no_more() {
    let fixture = Fixture::new();
    let cache = SqliteCache::with_room(fixture.database.clone(), 10_000);
    let value = "x".repeat(872 - 2);
    let put = async |tenant: TenantId, number: u64, expires_at: Timestamp| {
        cache.put(&tenant, &format!("{number:02}"), &value, expires_at, NOON).await.unwrap();
    };
    put(acme_eu(), 0, after(1_000)).await;
    // The later ones expire first, but the very last.
    for number in 0..30 {
        put(acme(), number, after(100_000 - number * 1_000)).await;
        assert!(rows(&fixture.dir, "cache") <= 11);
    }
    put(acme(), 30, after(200_000)).await;
    let has = async |number: u64| cache.get(&acme(), &format!("{number:02}"), NOON).await.unwrap().is_some();
    assert!(has(0).await && has(8).await && has(30).await, "what expires last is kept");
    assert!(!has(20).await && !has(29).await);
    assert!(cache.get(&acme_eu(), "00", NOON).await.unwrap().is_some(), "another tenant's is not touched");

    cache.put(&acme(), "00", &"x".repeat(10_000), after(1_000_000), NOON).await.unwrap();
    assert!(!has(0).await, "too large, and what was there is not the answer any more");
    // What has expired makes room.
    for number in 50..60 {
        cache.put(&acme(), &format!("{number:02}"), &value, after(900_000), after(300_000)).await.unwrap();
    }
    assert_eq!(rows(&fixture.dir, "cache"), 11);
}
