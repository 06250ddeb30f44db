//! What tenants have to do with each other: nothing.

use enigma_core::ports::Corpus;
use enigma_core::retrieval::{EmbeddingSpace, Staging};
use serde_json::json;

use super::{Desk, chunk, chunks, described, document, document_id, names, space, version};
use crate::fixture::{NOON, acme_eu, after, tenant};

/// The same names, versions and texts are others.
pub async fn tenants_are_isolated(corpus: &dyn Corpus) {
    let ours = Desk::new(corpus);
    let theirs = Desk { corpus, tenant: acme_eu() };
    ours.put(1, &described("doc", &json!({ "of": "us" })), &chunks(["shared ours", "shared ours"])).await;
    assert_eq!(theirs.everything("shared ours").await.1, []);
    assert_eq!(theirs.nearest(0.0, 100).await, []);
    assert_eq!(theirs.matching("shared ours").await, []);
    assert!(theirs.publish(1, &document("doc"), 2).await.is_err(), "it is not their version");

    theirs.stage(1, "doc", &chunks(["shared theirs"])).await;
    ours.stage(2, "doc", &chunks(["never"])).await;
    theirs.discard(2).await;
    assert_eq!(theirs.sweep(NOON).await, 0);
    let before = ours.everything("shared ours theirs").await;
    theirs.publish(1, &described("doc", &json!({ "of": "them" })), 1).await.expect("it was staged");
    assert_eq!(ours.everything("shared ours theirs").await, before);
    assert_eq!(names(&theirs.matching("shared ours").await), ["doc#0"]);
    assert_eq!(theirs.matching("shared").await[0].chunk.text, "shared theirs");

    assert!(ours.delete("doc").await);
    assert_eq!(names(&theirs.nearest(0.0, 100).await), ["doc#0"]);
    assert_eq!(theirs.sweep(after(1)).await, 0, "what we have staged is not theirs to sweep");
    ours.publish(2, &document("doc"), 1).await.expect("it is still there");
    assert!(theirs.delete("doc").await);
    assert_eq!(names(&ours.matching("never").await), ["doc#0"]);

    // Each has a space of its own.
    let (id, other) = (document_id("doc"), EmbeddingSpace { dimensions: 3, ..space() });
    let staging = Staging { document: &id, version: version(9), space: &other };
    let mut wide = chunk(0, "wide", 0.0);
    wide.vector.truncate(3);
    corpus.stage(&theirs.tenant, staging, &[wide], NOON).await.expect("the corpus takes it");
    let published = corpus.publish(&theirs.tenant, version(9), &document("doc"), &other, 1, NOON).await;
    published.expect("the corpus answers").expect("they have no other");
    assert_eq!((ours.state().await.space, theirs.state().await.space), (Some(space()), Some(other)));
}

/// However many documents they have, with the same words or others: not to the last digit.
pub async fn other_tenants_change_no_scores(corpus: &dyn Corpus) {
    let ours = Desk::new(corpus);
    ours.put(1, &document("one"), &chunks(["apple banana cherry", "apple apple", "durian"])).await;
    ours.put(2, &document("two"), &chunks(["banana and a much longer text about it", "cherry"])).await;
    let questions = ["apple", "banana cherry", "durian apple and"];
    let mut before = Vec::new();
    for question in questions {
        before.push((ours.matching(question).await, ours.nearest(1.5, 100).await));
    }
    for (number, text) in (10u128..).zip(["apple", "durian durian", "banana cherry", "something else entirely"]) {
        let theirs = Desk { corpus, tenant: tenant(&format!("other-{number}")) };
        let many: Vec<_> = (0..60).map(|ordinal| chunk(ordinal, text, f64::from(ordinal))).collect();
        theirs.put(number, &document("one"), &many).await;
        theirs.stage(number + 100, "two", &many).await;
    }
    for (question, before) in questions.iter().zip(before) {
        assert_eq!((ours.matching(question).await, ours.nearest(1.5, 100).await), before);
    }
    // Nor do versions of their own that nobody sees.
    let before = ours.matching("apple").await;
    ours.stage(3, "one", &chunks(["apple", "apple", "apple", "durian"])).await;
    assert_eq!(ours.matching("apple").await, before);
    ours.discard(3).await;
    assert_eq!(ours.matching("apple").await, before);
}
