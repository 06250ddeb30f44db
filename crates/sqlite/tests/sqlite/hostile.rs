//! What is given to the corpus by somebody who means harm, or by a part that is broken.

use crate::corpus::{chunk, document, matching, names, nearest, put, rows, space, stage, vector, version};
use crate::support::Fixture;
use enigma_contract::fixture::{NOON, acme, acme_eu, tenant};
use enigma_core::ports::{Corpus, KeywordQuery, VectorQuery};
use enigma_core::retrieval::{MetadataFilter, Staging};
use enigma_sqlite::SqliteCorpus;
use serde_json::json;

#[tokio::test]
async fn a_vector_without_a_direction_hides_no_others() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme(), 1, "doc", &[chunk(0, "words", 1), chunk(1, "words", 2)]).await;
    let size = vector(1).len();
    let filled = |number: f32| vec![number; size];
    let mut one_is_none = vector(3);
    one_is_none[5] = f32::NAN;
    let wrong =
        [Vec::new(), filled(0.0), filled(f32::NAN), filled(f32::INFINITY), filled(f32::MAX), filled(1.0), one_is_none];
    let (other, space, any) = (document("other"), space(), MetadataFilter::default());
    for wrong in wrong {
        let staging = Staging { document: &other.id, version: version(9), space: &space };
        let mut staged = chunk(1, "more words", 3);
        staged.vector.clone_from(&wrong);
        let chunks = [chunk(0, "more words", 3), staged];
        assert!(corpus.stage(&acme(), staging, &chunks, NOON).await.is_err(), "{wrong:?}");
        let query = VectorQuery { vector: &wrong, filter: &any, limit: 10 };
        assert!(corpus.nearest(&acme(), query).await.is_err(), "{wrong:?}");
    }
    assert_eq!(rows(&fixture.dir, "corpus_chunk"), 2, "nothing of them was written");
    assert_eq!(names(&nearest(&corpus, &acme(), &vector(2), 10).await), ["doc#1", "doc#0"]);
}

/// The index has words as `tenant:word`. A text that looks so is words like any other, and so is a question.
#[tokio::test]
async fn nobody_writes_or_reads_another_tenants_words() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme_eu(), 1, "doc", &[chunk(0, "kept secret", 1)]).await;
    let forged = "acme-eu:forged acme-eu:kept\0acme-eu:kept \"acme-eu:forged\" w0:acme-eu:forged {w0 w1}:forged*";
    for (number, name) in (1..).zip(["acme", "eu", "acme-e", "a"]) {
        put(&corpus, &tenant(name), number, "doc", &[chunk(0, forged, 1)]).await;
        for asked in ["secret", "eu:secret", "acme-eu:secret", "x acme-eu:secret", "-eu:secret", "u:kept", "secret*"] {
            assert_eq!(matching(&corpus, &tenant(name), &[asked], 10).await, [], "{name} {asked}");
        }
    }
    assert_eq!(matching(&corpus, &acme_eu(), &["forged"], 10).await, []);
    let found = matching(&corpus, &acme_eu(), &["kept"], 10).await;
    assert_eq!(names(&found), ["doc#0"]);
    assert_eq!(found[0].chunk.text, "kept secret");
}

#[tokio::test]
async fn a_question_is_never_a_statement() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme(), 1, "doc", &[chunk(0, "words of a document", 1)]).await;
    let long = "x".repeat(200_000);
    let asked = [
        "",
        "*",
        "\"",
        "'",
        "words OR document",
        "words*",
        "NEAR(words document)",
        "w0:words",
        "^words",
        "-words",
        "\0",
        "words\0",
        "%",
        "_____",
        "'; DROP TABLE corpus_words; --",
        "rank",
        "🦀",
        &long,
    ];
    for asked in asked {
        assert_eq!(matching(&corpus, &acme(), &[asked], 10).await, [], "{asked:.40}");
    }
    assert_eq!(matching(&corpus, &acme(), &asked, 10).await, []);
    assert_eq!(names(&matching(&corpus, &acme(), &["words"], 10).await), ["doc#0"]);
}

/// A chunk has words as many as it likes, as often as it likes and as long as it likes; and it goes again with all of them.
#[tokio::test]
async fn texts_of_any_shape_come_and_go() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let texts = [
        "word ".repeat(200_000),
        (0..50_000).map(|number| format!("w{number}")).collect::<Vec<_>>().join(" "),
        "y".repeat(1_000_000),
        "世".repeat(100_000),
        "\0\u{1}\u{7f}\u{fffd}\u{202e}".repeat(1_000),
        String::new(),
    ];
    let chunks: Vec<_> = (0..).zip(&texts).map(|(ordinal, text)| chunk(ordinal, text, ordinal.into())).collect();
    put(&corpus, &acme(), 1, "doc", &chunks).await;
    for (word, ordinal) in [("word", 0), ("w49999", 1), ("世", 3)] {
        let found = matching(&corpus, &acme(), &[word], 10).await;
        assert_eq!(names(&found), [format!("doc#{ordinal}")]);
        assert!(found[0].score.is_finite() && found[0].chunk.text == texts[ordinal]);
    }
    assert_eq!(nearest(&corpus, &acme(), &vector(5), 10).await[0].chunk.text, "");
    assert!(corpus.delete(&acme(), &document("doc").id).await.unwrap());
    for table in ["corpus_chunk", "corpus_places", "corpus_counts", "corpus_vectors", "corpus_codes"] {
        assert_eq!(rows(&fixture.dir, table), 0, "{table}");
    }
}

/// The names of fields and the values of a filter are compared, and never part of a statement.
#[tokio::test]
async fn the_largest_filters_are_only_filters() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    put(&corpus, &acme(), 1, "doc", &[chunk(0, "words", 1)]).await;
    let values: Vec<_> = (0..64).map(|number| format!("') OR 1=1 --{number}{}", "z".repeat(400))).collect();
    let fields = (0..8).map(|number| (format!("{number}{}", "') OR 1=1 --".repeat(42)), json!({ "$in": &values })));
    let filter = MetadataFilter::from_json(&fields.collect::<serde_json::Map<_, _>>().into()).unwrap();
    let asked = vector(1);
    let query = VectorQuery { vector: &asked, filter: &filter, limit: 100 };
    assert_eq!(corpus.nearest(&acme(), query).await.unwrap(), []);
    let words = ["words".to_owned()];
    let query = KeywordQuery { words: &words, filter: &filter, limit: 100 };
    assert_eq!(corpus.matching(&acme(), query).await.unwrap(), []);
}

/// The largest document that fits has a part for each row, and each is found and removed.
#[tokio::test]
async fn a_document_of_very_many_chunks_is_replaced_by_one_of_one() {
    let fixture = Fixture::new();
    let corpus = SqliteCorpus::new(fixture.database.clone());
    let count = 10_000u32;
    for first in (0..count).step_by(2_000) {
        let chunks: Vec<_> = (first..first + 2_000).map(|it| chunk(it, "many words", it.into())).collect();
        stage(&corpus, &acme(), 1, "doc", &chunks).await;
    }
    corpus.publish(&acme(), version(1), &document("doc"), &space(), count, NOON).await.unwrap().unwrap();
    for ordinal in [0, 63, 64, 5_000, 9_999] {
        let found = nearest(&corpus, &acme(), &vector(ordinal), 1).await;
        assert_eq!(names(&found), [format!("doc#{ordinal}")]);
    }
    put(&corpus, &acme(), 2, "doc", &[chunk(0, "one", 1)]).await;
    assert_eq!(names(&nearest(&corpus, &acme(), &vector(5_000), 100).await), ["doc#0"]);
    for (table, left) in [("corpus_chunk", 1), ("corpus_places", 1), ("corpus_codes", 1), ("corpus_version", 1)] {
        assert_eq!(rows(&fixture.dir, table), left, "{table}");
    }
}
