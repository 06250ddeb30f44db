use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use enigma_contract::fixture::{NOON, acme};
use enigma_core::retrieval::{MetadataFilter, Occurrence};
use futures_util::FutureExt;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, params_from_iter};
use serde_json::json;
use uuid::Uuid;

use super::*;

/// SQLite in D1's place: what D1 runs are these statements on this schema, with numbers as JavaScript has them.
struct Sqlite(Mutex<Connection>, Mutex<Loses>);

/// Which answers are lost on their way.
#[derive(Default, PartialEq)]
enum Loses {
    #[default]
    None,
    /// The next one.
    Next,
    /// All, before anything is done.
    All,
}

impl Sqlite {
    fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../../migrations/0002_corpus.sql")).unwrap();
        Self(Mutex::new(connection), Mutex::default())
    }

    fn count(&self, table: &str) -> i64 {
        let connection = self.0.lock().unwrap();
        connection.query_row(&format!("SELECT COUNT(*) FROM {table}"), [], |row| row.get(0)).unwrap()
    }
}

#[async_trait]
impl Tables for Sqlite {
    async fn batch(&self, statements: Vec<Statement>, _: Duration) -> Result<Vec<Vec<Row>>, PortError> {
        let lost = || Err(PortError::unavailable("corpus", "the connection was lost"));
        if *self.1.lock().unwrap() == Loses::All {
            return lost();
        }
        let mut connection = self.0.lock().unwrap();
        let transaction = connection.transaction().unwrap();
        let mut answers = Vec::new();
        for statement in &statements {
            assert!(statement.params.len() <= 100 && statement.sql.len() < 100_000);
            let mut prepared = transaction.prepare(&statement.sql).unwrap();
            let names: Vec<String> = prepared.column_names().map(str::to_owned).collect();
            let rows = prepared.query_map(params_from_iter(&statement.params), |row| {
                let cell = |(place, name): (usize, &String)| {
                    let value = match row.get_ref(place)? {
                        ValueRef::Null => Value::Null,
                        #[expect(clippy::cast_precision_loss, reason = "what D1 does to an integer")]
                        ValueRef::Integer(number) => json!(number as f64),
                        ValueRef::Real(number) => json!(number),
                        ValueRef::Text(text) => json!(str::from_utf8(text).unwrap()),
                        ValueRef::Blob(_) => panic!("D1 would make a list of numbers of it"),
                    };
                    Ok((name.clone(), value))
                };
                names.iter().enumerate().map(cell).collect::<rusqlite::Result<Row>>()
            });
            answers.push(rows.unwrap().collect::<Result<Vec<_>, _>>().unwrap());
        }
        transaction.commit().unwrap();
        if std::mem::take(&mut *self.1.lock().unwrap()) == Loses::Next {
            return lost();
        }
        Ok(answers)
    }
}

/// An index in memory, that may be late, and may fail.
#[derive(Default)]
struct Index(Mutex<Vectors>);

#[derive(Default)]
struct Vectors {
    visible: Vec<Vector>,
    waiting: VecDeque<Write>,
    is_late: bool,
    fails: bool,
    asked: usize,
}

enum Write {
    Put(Vec<Vector>),
    Delete(Vec<String>),
}

const INDEX_DIMENSIONS: u32 = 12;

impl Index {
    fn lock(&self) -> Result<MutexGuard<'_, Vectors>, PortError> {
        let vectors = self.0.lock().unwrap();
        if vectors.fails { Err(PortError::unavailable("index", "as the test wants it")) } else { Ok(vectors) }
    }

    fn set(&self, change: impl FnOnce(&mut Vectors)) {
        change(&mut self.0.lock().unwrap());
    }

    fn write(&self, write: Write) -> Result<(), PortError> {
        let mut vectors = self.lock()?;
        vectors.waiting.push_back(write);
        if !vectors.is_late {
            vectors.settle();
        }
        Ok(())
    }
}

impl Vectors {
    fn settle(&mut self) {
        while let Some(write) = self.waiting.pop_front() {
            match write {
                Write::Put(new) => {
                    self.visible.retain(|old| !new.iter().any(|it| it.id == old.id));
                    self.visible.extend(new);
                }
                Write::Delete(ids) => self.visible.retain(|old| !ids.contains(&old.id)),
            }
        }
    }
}

#[async_trait]
impl VectorIndex for Index {
    async fn dimensions(&self) -> Result<u32, PortError> {
        self.lock().map(|_| INDEX_DIMENSIONS)
    }

    async fn put(&self, vectors: Vec<Vector>) -> Result<(), PortError> {
        assert!(vectors.iter().all(|it| it.values.len() == INDEX_DIMENSIONS as usize && it.id.len() <= 64));
        self.write(Write::Put(vectors))
    }

    async fn nearest(&self, namespace: &str, vector: &[f32], asked: Option<Value>) -> Result<Vec<String>, PortError> {
        let mut vectors = self.lock()?;
        vectors.asked += 1;
        let filter = MetadataFilter::from_json(&asked.unwrap_or(json!({}))).unwrap();
        let metadata = |it: &Vector| {
            let fields = it.metadata.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
            Metadata::new(fields).unwrap()
        };
        let mut found: Vec<(f64, &str)> = vectors
            .visible
            .iter()
            .filter(|it| it.namespace == namespace && filter.allows(&metadata(it)))
            .map(|it| (cosine(&it.values, vector), it.id.as_str()))
            .collect();
        found.sort_by(|one, other| other.0.total_cmp(&one.0));
        Ok(found.into_iter().take(MOST_NAMED as usize).map(|(_, id)| id.to_owned()).collect())
    }

    async fn delete(&self, ids: Vec<String>) -> Result<(), PortError> {
        assert!(ids.len() <= MOST_DELETED as usize);
        self.write(Write::Delete(ids))
    }
}

type Stores = TwoStores<Sqlite, Index>;

const ONLY_INDEX: Exactness = Exactness { chunks: 0, late: 0 };

fn stores(exactness: Exactness) -> Stores {
    let indexes = "lang:string,year:number,draft:boolean,owner.team:string,number:number".parse().unwrap();
    TwoStores { tables: Sqlite::new(), index: Index::default(), directory: None, indexes, exactness }
}

/// What is left of a suite's tenants has to be what the suite has left.
fn assert_tidy(stores: &Stores) {
    let vectors = stores.index.0.lock().unwrap().visible.len();
    assert_eq!(i64::try_from(vectors).unwrap(), stores.tables.count("corpus_chunks"));
    assert_eq!(stores.tables.count("corpus_versions WHERE state > 1"), 0);
    let counted = "corpus_tenants t WHERE
        t.documents <> (SELECT COUNT(*) FROM corpus_versions v WHERE v.owner = t.id AND v.state = 1)
        OR t.chunks <> (SELECT COALESCE(SUM(chunks), 0) FROM corpus_versions v WHERE v.owner = t.id AND v.state = 1)
        OR t.words <> (SELECT COALESCE(SUM(c.length), 0) FROM corpus_versions v
            JOIN corpus_chunks c ON c.id >> 20 = v.id WHERE v.owner = t.id AND v.state = 1)";
    assert_eq!(stores.tables.count(counted), 0);
    let strays = "corpus_words w WHERE NOT EXISTS (
        SELECT 1 FROM corpus_versions v WHERE v.id = w.chunk >> 20 AND v.state = 1 AND v.owner = w.owner)";
    assert_eq!(stores.tables.count(strays), 0);
    let strays =
        "corpus_fields f WHERE NOT EXISTS (SELECT 1 FROM corpus_versions v WHERE v.id = f.version AND v.state = 1)";
    assert_eq!(stores.tables.count(strays), 0);
}

mod exact {
    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                let stores = super::stores(super::Exactness::default());
                enigma_contract::corpus::$case(&stores).await;
                super::assert_tidy(&stores);
            }
        };
    }
    enigma_contract::corpus_cases!(run);
}

mod by_index_alone {
    /// What an index that names a hundred cannot do.
    const NOT_BY_IT: [&str; 2] = [
        "what_fits_alike_is_in_the_order_of_document_and_chunk",
        "the_few_documents_that_a_filter_leaves_are_found_among_many",
    ];

    macro_rules! run {
        ($case:ident) => {
            #[tokio::test]
            async fn $case() {
                if NOT_BY_IT.contains(&stringify!($case)) {
                    return;
                }
                let stores = super::stores(super::ONLY_INDEX);
                enigma_contract::corpus::$case(&stores).await;
                super::assert_tidy(&stores);
            }
        };
    }
    enigma_contract::corpus_cases!(run);
}

fn now<R>(future: impl Future<Output = R>) -> R {
    future.now_or_never().expect("nothing waits here")
}

fn space() -> EmbeddingSpace {
    EmbeddingSpace { model: ModelId::new("m").unwrap(), dimensions: 2 }
}

fn version(number: u128) -> VersionId {
    VersionId::new(Uuid::from_u128(number))
}

fn doc(metadata: &Value) -> Document {
    let metadata = Metadata::new(metadata.as_object().unwrap().clone()).unwrap();
    Document { id: DocumentId::new("doc").unwrap(), source: None, title: None, url: None, metadata }
}

fn chunks(count: u32, text: &str) -> Vec<EmbeddedChunk> {
    let chunk = |ordinal| Chunk { ordinal, start: 0, text: text.to_owned() };
    (0..count).map(|ordinal| EmbeddedChunk { chunk: chunk(ordinal), vector: vec![1.0, 0.0] }).collect()
}

fn stage(stores: &Stores, number: u128, chunks: &[EmbeddedChunk]) -> Result<(), PortError> {
    let (document, space) = (DocumentId::new("doc").unwrap(), space());
    let staging = Staging { document: &document, version: version(number), space: &space };
    now(stores.stage(&acme(), staging, chunks, NOON))
}

fn put(stores: &Stores, number: u128, count: u32, text: &str) {
    stage(stores, number, &chunks(count, text)).unwrap();
    now(stores.publish(&acme(), version(number), &doc(&json!({})), &space(), count, NOON)).unwrap().unwrap();
}

fn near(stores: &Stores) -> Result<Vec<Passage>, PortError> {
    let filter = MetadataFilter::default();
    now(stores.nearest(&acme(), VectorQuery { vector: &[1.0, 0.0], filter: &filter, limit: 100 }))
}

fn with(stores: &Stores, word: &str) -> usize {
    let filter = MetadataFilter::default();
    now(stores.matching(&acme(), KeywordQuery { words: &[word.to_owned()], filter: &filter, limit: 100 }))
        .unwrap()
        .len()
}

#[test]
fn a_late_index_shows_nothing_old_and_words_find_what_is_new() {
    let stores = stores(ONLY_INDEX);
    put(&stores, 1, 3, "old");
    stores.index.set(|index| index.is_late = true);
    put(&stores, 2, 2, "new");
    assert_eq!(near(&stores).unwrap(), [], "of the old version nothing is left, and the new one is not known yet");
    assert_eq!((with(&stores, "old"), with(&stores, "new")), (0, 2));
    stores.index.set(Vectors::settle);
    assert_eq!(near(&stores).unwrap().len(), 2);
    assert!(now(stores.delete(&acme(), &doc(&json!({})).id)).unwrap());
    assert_eq!(near(&stores).unwrap(), [], "although the index has them");
}

#[test]
fn what_is_recent_is_compared_until_the_index_can_know_it() {
    let stores = stores(Exactness { chunks: 5, late: 180 });
    stores.index.set(|index| index.is_late = true);
    put(&stores, 1, 5, "few");
    assert_eq!(near(&stores).unwrap().len(), 5, "a small corpus is compared whole");
    assert_eq!(stores.index.0.lock().unwrap().asked, 0);

    put(&stores, 1, 5, "few");
    let large = Document { id: DocumentId::new("large").unwrap(), ..doc(&json!({})) };
    let staging = Staging { document: &large.id, version: version(2), space: &space() };
    now(stores.stage(&acme(), staging, &chunks(6, "many"), NOON)).unwrap();
    now(stores.publish(&acme(), version(2), &large, &space(), 6, NOON)).unwrap().unwrap();
    assert_eq!(near(&stores).unwrap(), [], "eleven are too many to be compared, also of the recent ones");
    let is_settling = || now(stores.state(&acme())).unwrap().is_settling;
    assert!(is_settling(), "nobody should keep that");
    let long_ago = "UPDATE corpus_versions SET visible_at = unixepoch() - 181 WHERE document = 'large'";
    stores.tables.0.lock().unwrap().execute(long_ago, []).unwrap();
    assert_eq!(near(&stores).unwrap().len(), 5, "now only one document is recent");
    assert!(!is_settling());
    stores.index.set(Vectors::settle);
    assert_eq!(near(&stores).unwrap().len(), 11);
}

#[test]
fn an_index_that_fails_stops_what_needs_it_and_nothing_else() {
    let stores = stores(ONLY_INDEX);
    put(&stores, 1, 250, "old");
    stage(&stores, 2, &chunks(1, "new")).unwrap();
    stores.index.set(|index| index.fails = true);
    assert!(stage(&stores, 3, &chunks(1, "never")).is_err());
    assert!(near(&stores).is_err());
    now(stores.publish(&acme(), version(2), &doc(&json!({})), &space(), 1, NOON)).unwrap().unwrap();
    assert_eq!((with(&stores, "old"), with(&stores, "new")), (0, 1));
    now(stores.discard(&acme(), version(3))).unwrap();
    assert_eq!(stores.tables.count("corpus_outbox"), 2, "both are noted");
    assert!(now(stores.sweep(&acme(), NOON)).is_err());
    stores.index.set(|index| index.fails = false);
    assert_eq!(now(stores.sweep(&acme(), NOON)).unwrap(), 0);
    assert_eq!(stores.tables.count("corpus_outbox"), 0);
    assert_tidy(&stores);
}

#[test]
fn whether_it_was_published_is_known_or_said_to_be_unknown() {
    let stores = stores(Exactness::default());
    stage(&stores, 1, &chunks(1, "word")).unwrap();
    let publish = |chunks| now(stores.publish(&acme(), version(1), &doc(&json!({})), &space(), chunks, NOON));
    *stores.tables.1.lock().unwrap() = Loses::Next;
    assert!(matches!(publish(2), Err(PortError::Unavailable { .. })), "it was not");
    *stores.tables.1.lock().unwrap() = Loses::All;
    assert!(matches!(publish(1), Err(PortError::Timeout { .. })));
    *stores.tables.1.lock().unwrap() = Loses::Next;
    assert_eq!(publish(1).unwrap(), Ok(CorpusGeneration(1)), "it was, although nobody said so");
}

#[test]
fn a_long_document_goes_bit_by_bit() {
    let stores = stores(ONLY_INDEX);
    put(&stores, 1, 2_350, "long");
    assert!(now(stores.delete(&acme(), &doc(&json!({})).id)).unwrap());
    assert_eq!(stores.tables.count("corpus_outbox WHERE done = 1000 AND chunks = 2350"), 1);
    assert_eq!(now(stores.sweep(&acme(), NOON)).unwrap(), 0);
    assert_tidy(&stores);
}

#[test]
fn vectors_carry_the_metadata_of_what_is_published() {
    let stores = stores(ONLY_INDEX);
    stage(&stores, 1, &chunks(3, "word")).unwrap();
    let document = doc(&json!({ "lang": "en", "other": 1 }));
    now(stores.publish(&acme(), version(1), &document, &space(), 3, NOON)).unwrap().unwrap();
    let vectors = stores.index.0.lock().unwrap();
    assert_eq!(vectors.visible.len(), 3);
    assert!(vectors.visible.iter().all(|it| it.metadata == Some(json!({ "lang": "en" }))));
    assert!(vectors.visible.iter().all(|it| it.namespace == acme().as_str()));
}

#[test]
fn a_model_of_more_dimensions_than_the_index_has_is_told() {
    let stores = stores(Exactness::default());
    let chunk = EmbeddedChunk { vector: vec![0.0; 13], ..chunks(1, "x").remove(0) };
    let error = stage(&stores, 1, &[chunk]).unwrap_err();
    let source = std::error::Error::source(&error).and_then(|it| it.downcast_ref::<super::super::IndexTooSmall>());
    assert_eq!(source, Some(&super::super::IndexTooSmall { index: INDEX_DIMENSIONS, vectors: 13 }));
}

#[test]
fn d1_scores_as_the_core_does() {
    let stores = stores(Exactness::default());
    let texts = ["apple banana cherry", "apple apple", "durian", "banana and a much longer text about it", "cherry"];
    let all = texts.iter().zip(0..).map(|(text, ordinal)| {
        let mut chunk = chunks(1, text).remove(0);
        chunk.chunk.ordinal = ordinal;
        chunk
    });
    stage(&stores, 1, &all.collect::<Vec<_>>()).unwrap();
    now(stores.publish(&acme(), version(1), &doc(&json!({})), &space(), 5, NOON)).unwrap().unwrap();
    let words = ["apple".to_owned(), "banana".to_owned(), "it".to_owned()];
    let statistics = Bm25::new(5, 15);
    let weights: Vec<_> =
        words.iter().zip([2, 2, 1]).map(|(word, containing)| (word, statistics.weight(containing))).collect();
    let mut statement = statements::matching(&acme(), &MetadataFilter::default(), &statistics, &weights, 10);
    statement.sql = statement.sql.replace("SELECT v.document,", "SELECT best.score, v.document,").into();
    let rows = now(stores.ask(statement)).unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let exactly = statements::score(&statistics, &weights, row.text("text").unwrap()).unwrap();
        let scored = row["score"].as_f64().unwrap();
        assert!((scored - exactly).abs() < 1e-8, "{scored} is not {exactly}");
    }
}

#[test]
fn d1_knows_every_way_in_which_a_word_can_occur() {
    let widths = (0..Occurrence::KINDS).filter_map(Occurrence::of_kind);
    for (chunks, words) in [(1, 1), (10, 1_000), (3, 30_000)] {
        let statistics = Bm25::new(chunks, words);
        assert!(widths.clone().all(|it| format!("{:.12}", statistics.score(1.0, it)).len() == 14));
    }
}

#[test]
fn questions_are_answered_from_indexes() {
    let stores = stores(Exactness::default());
    put(&stores, 1, 3, "word");
    let connection = stores.tables.0.lock().unwrap();
    let filter = MetadataFilter::from_json(&json!({ "lang": "en", "year": { "$gt": 1 } })).unwrap();
    let word = "word".to_owned();
    let weights = [(&word, 1.0)];
    let mut all = vec![
        statements::state(&acme(), 180),
        statements::documents(&acme(), None, 10).unwrap(),
        statements::vectors(&acme(), &filter, Among::All),
        statements::vectors(&acme(), &filter, Among::Recent(180)),
        statements::named_vectors(&acme(), &filter, &[("k", 0)]),
        statements::passages(&acme(), &[1]),
        statements::occurrences(&acme(), &["word".to_owned()]),
        statements::matching(&acme(), &filter, &Bm25::new(1, 1), &weights, 10),
        statements::outbox(&acme()),
    ];
    all.extend(statements::publish(&acme(), version(1), &doc(&json!({})), &space(), 1, NOON));
    all.extend(statements::delete(&acme(), &doc(&json!({})).id));
    all.extend(statements::sweep(&acme(), NOON));
    all.extend(statements::gone(&acme(), &[("k".to_owned(), 1)]));
    for statement in all {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", statement.sql)).unwrap();
        let steps = plan.query_map(params_from_iter(&statement.params), |row| row.get::<_, String>(3)).unwrap();
        for step in steps.map(Result::unwrap) {
            let reads_all = step.starts_with("SCAN")
                && !["j VIRTUAL", "json_each", "a ", "best", "asked"].iter().any(|it| step.contains(it));
            assert!(!reads_all, "{step}\n{}", statement.sql);
        }
        assert!(statement.sql.contains("tenant = ?1"), "{}", statement.sql);
    }
}
