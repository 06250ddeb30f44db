//! Vectors that memory holds: searches are faster with them, and find the same.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::corpus::{chunk, document, names, nearest, put, rows, space, stage, vector, version};
use crate::support::{Fixture, open, open_with_vectors};
use enigma_contract::fixture::{NOON, acme, acme_eu};
use enigma_core::ports::Corpus;
use enigma_core::retrieval::{EmbeddedChunk, Staging, cosine};
use enigma_sqlite::{SqliteCorpus, SqliteMaintenance};
use tempfile::TempDir;

/// A chunk that says which vector it has.
fn telling(ordinal: u32, seed: u64) -> EmbeddedChunk {
    chunk(ordinal, &format!("vector {seed}"), seed)
}

/// The only number of a version in the file.
fn number(dir: &TempDir) -> i64 {
    let raw = rusqlite::Connection::open(dir.path().join("enigma.db")).unwrap();
    raw.query_row("SELECT number FROM corpus_version", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn what_is_found_does_not_depend_on_what_is_at_hand() {
    // Nothing, and a few versions of the many: the contract has all of them at hand.
    for vector_bytes in [0, 2_000] {
        let dir = TempDir::new().unwrap();
        let corpus = SqliteCorpus::new(open_with_vectors(&dir, vector_bytes));
        enigma_contract::corpus::random_interleavings_leave_what_was_published_last(&corpus).await;
    }
}

/// Not even when it was the newest of all, was removed from the file, and the file was written anew and opened again.
#[tokio::test]
async fn no_version_is_taken_for_one_that_was_before_it() {
    let dir = TempDir::new().unwrap();
    let mut last = 0;
    for round in 0..3u128 {
        let database = open(&dir);
        let corpus = SqliteCorpus::new(database.clone());
        for nth in 0..3u32 {
            let seed = u64::try_from(round).unwrap() * 10 + u64::from(nth);
            put(&corpus, &acme(), round * 10 + u128::from(nth) + 1, "doc", &[telling(0, seed)]).await;
            for _ in 0..2 {
                let found = nearest(&corpus, &acme(), &vector(seed), 10).await;
                assert_eq!(names(&found), ["doc#0"]);
                assert_eq!(found[0].chunk.text, format!("vector {seed}"));
                assert!(found[0].score > 0.999, "it is its own vector: {}", found[0].score);
            }
            let now = number(&dir);
            assert!(now > last, "{now} after {last}");
            last = now;
            assert!(corpus.delete(&acme(), &document("doc").id).await.unwrap());
            assert_eq!(rows(&dir, "corpus_version"), 0);
            assert_eq!(nearest(&corpus, &acme(), &vector(seed), 10).await, []);
            SqliteMaintenance::new(database.clone(), 30).rebuild().await.unwrap();
        }
        database.close().await;
    }
}

/// Numbers are given in transactions, and one that fails gives its number back: nobody may have seen it.
#[tokio::test]
async fn a_version_that_could_not_be_begun_leaves_nothing_to_its_successor() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let raw = rusqlite::Connection::open(fixture.dir.path().join("enigma.db")).unwrap();
    for seed in 0..5u64 {
        raw.execute_batch(
            "CREATE TRIGGER fault BEFORE INSERT ON corpus_codes BEGIN SELECT RAISE(ABORT, 'a fault'); END",
        )
        .unwrap();
        let (document, space) = (document("doc"), space());
        let staging = Staging { document: &document.id, version: version(99), space: &space };
        assert!(corpus.stage(&acme(), staging, &[telling(0, 1_000)], NOON).await.is_err());
        nearest(&corpus, &acme(), &vector(1_000), 1).await;
        raw.execute_batch("DROP TRIGGER fault").unwrap();
        put(&corpus, &acme(), u128::from(seed) + 1, "doc", &[telling(0, seed)]).await;
        let found = nearest(&corpus, &acme(), &vector(seed), 10).await;
        assert!(found.len() == 1 && found[0].score > 0.999, "{found:?}");
    }
}

#[tokio::test]
async fn what_is_staged_grows_unseen_and_is_found_whole() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme(), 1, "other", &[telling(0, 500)]).await;
    for ordinal in 0..130u32 {
        stage(&corpus, &acme(), 2, "doc", &[telling(ordinal, ordinal.into())]).await;
        assert_eq!(names(&nearest(&corpus, &acme(), &vector(ordinal.into()), 10).await), ["other#0"]);
    }
    let published = corpus.publish(&acme(), version(2), &document("doc"), &space(), 130, NOON).await;
    published.unwrap().unwrap();
    // What comes late changes nothing, neither in the file nor of what is at hand.
    for late in [0, 200] {
        for ordinal in 0..130u32 {
            let found = nearest(&corpus, &acme(), &vector(ordinal.into()), 1).await;
            assert_eq!(names(&found), [format!("doc#{ordinal}")]);
        }
        stage(&corpus, &acme(), 2, "doc", &[telling(late, 900), telling(late + 1, 901)]).await;
    }
    assert_eq!(nearest(&corpus, &acme(), &vector(900), 100).await.len(), 100);
    assert!(nearest(&corpus, &acme(), &vector(900), 1).await[0].score < 0.999);
}

#[tokio::test]
async fn tenants_with_the_same_documents_have_their_own_vectors() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let seed = |nth: u64, name: u64, ordinal: u32| nth * 1_000 + name * 10 + u64::from(ordinal);
    for (nth, tenant) in (0..).zip([acme(), acme_eu()]) {
        for name in 0..20u64 {
            let chunks: Vec<_> = (0..5).map(|it| telling(it, seed(nth, name, it))).collect();
            put(&corpus, &tenant, u128::from(name) + 1, &format!("doc-{name:02}"), &chunks).await;
        }
    }
    for _ in 0..2 {
        for name in 0..20u64 {
            for (nth, tenant) in (0..).zip([acme(), acme_eu()]) {
                let asked = seed(nth, name, 3);
                let found = nearest(&corpus, &tenant, &vector(asked), 100).await;
                assert_eq!(found.len(), 100);
                assert_eq!(found[0].chunk.text, format!("vector {asked}"));
                let is_own = |text: &str| text[7..].parse::<u64>().unwrap() / 1_000 == nth;
                assert!(found.iter().all(|it| is_own(&it.chunk.text)));
                let theirs = nearest(&corpus, &tenant, &vector(seed(1 - nth, name, 3)), 1).await;
                assert!(theirs[0].score < 0.999, "it is the other tenant's");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn searches_beside_replacements_see_one_version_whole() {
    const CHUNKS: u32 = 70;
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let is_done = AtomicBool::new(false);
    let version_of = async |round: u64| {
        let chunks: Vec<_> = (0..CHUNKS).map(|it| telling(it, round * 1_000 + u64::from(it))).collect();
        put(&corpus, &acme(), u128::from(round) + 1, "doc", &chunks).await;
    };
    version_of(0).await;
    let replacing = async {
        for round in 1..60 {
            version_of(round).await;
        }
        is_done.store(true, Ordering::Relaxed);
    };
    let searching = async {
        let (mut newest, mut count) = (0, 0);
        while !is_done.load(Ordering::Relaxed) {
            let asked = vector(7_000_000 + count);
            let found = nearest(&corpus, &acme(), &asked, 100).await;
            let seeds: Vec<u64> = found.iter().map(|it| it.chunk.text[7..].parse().unwrap()).collect();
            assert_eq!(found.len(), CHUNKS as usize);
            assert!(seeds.iter().all(|seed| seed / 1_000 == seeds[0] / 1_000), "chunks of two versions");
            for (it, seed) in found.iter().zip(&seeds) {
                assert!((it.score - cosine(&asked, &vector(*seed))).abs() < 1e-9, "the score is of another vector");
            }
            assert!(seeds[0] / 1_000 >= newest, "an old version has come back");
            (newest, count) = (seeds[0] / 1_000, count + 1);
        }
        count
    };
    let ((), one, other) = tokio::join!(replacing, searching, searching_again(&corpus, &is_done));
    assert!(one > 10 && other > 10, "{one} {other}");
}

/// Somebody else who asks meanwhile, for the few best.
async fn searching_again(corpus: &SqliteCorpus, is_done: &AtomicBool) -> u64 {
    let mut count = 0;
    while !is_done.load(Ordering::Relaxed) {
        let asked = vector(8_000_000 + count);
        for it in nearest(corpus, &acme(), &asked, 5).await {
            let seed = it.chunk.text[7..].parse().unwrap();
            assert!((it.score - cosine(&asked, &vector(seed))).abs() < 1e-9);
        }
        count += 1;
    }
    count
}
