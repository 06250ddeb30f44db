//! How documents come, are replaced, and go.

use std::time::Duration;

use enigma_core::ModelId;
use enigma_core::ports::Corpus;
use enigma_core::retrieval::{Document, DocumentSummary, EmbeddedChunk, EmbeddingSpace, PublishError, Staging};
use futures_util::future::join_all;
use serde_json::json;

use super::{DIMENSIONS, Desk, chunk, chunks, described, document, document_id, names, space, version};
use crate::fixture::{NOON, acme_eu, after};

/// Neither documents nor chunks nor the state show it.
pub async fn what_is_staged_is_unseen(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("old"), &chunks(["word one"])).await;
    let before = desk.everything("word").await;
    desk.stage(2, "old", &chunks(["word two", "word three"])).await;
    desk.stage(3, "new", &chunks(["word four"])).await;
    assert_eq!(desk.everything("word").await, before);
    desk.publish(3, &document("new"), 1).await.expect("it was staged");
    assert_eq!(names(&desk.matching("word").await).len(), 2);
}

/// The last word counts, and the version is none the larger for it.
pub async fn a_chunk_that_is_staged_again_replaces_itself(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.stage(1, "doc", &chunks(["first", "second", "third"])).await;
    desk.stage(1, "doc", &[chunk(1, "other", 90.0)]).await;
    desk.stage(1, "doc", &[chunk(1, "another", 120.0), chunk(2, "third", 2.0)]).await;
    desk.publish(1, &document("doc"), 3).await.expect("there are three");
    assert_eq!(desk.matching("second other").await, []);
    assert_eq!(names(&desk.matching("another").await), ["doc#1"]);
    assert_eq!(names(&desk.nearest(120.0, 100).await), ["doc#1", "doc#2", "doc#0"]);
}

/// When chunks are missing, or too many, nothing changes; and they can still come.
pub async fn a_version_is_published_whole_or_not_at_all(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("doc"), &chunks(["old"])).await;
    let before = desk.everything("old new").await;
    desk.stage(2, "doc", &chunks(["new", "new"])).await;
    for wrong in [1, 3, 0, 100] {
        assert_eq!(desk.publish(2, &document("doc"), wrong).await, Err(PublishError::NotStaged), "{wrong}");
        assert_eq!(desk.publish(3, &document("doc"), wrong).await, Err(PublishError::NotStaged), "never staged");
    }
    assert_eq!(desk.everything("old new").await, before);
    desk.stage(2, "doc", &[chunk(2, "new", 2.0)]).await;
    desk.publish(2, &document("doc"), 3).await.expect("now there are three");
    assert_eq!(names(&desk.matching("old new").await), ["doc#0", "doc#1", "doc#2"]);
}

/// Not for another one, and not in another space.
pub async fn a_version_is_published_for_the_document_it_was_staged_for(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.stage(1, "one", &chunks(["word"])).await;
    assert_eq!(desk.publish(1, &document("other"), 1).await, Err(PublishError::NotStaged));
    let larger = EmbeddingSpace { dimensions: DIMENSIONS + 1, ..space() };
    let published = corpus.publish(&desk.tenant, version(1), &document("one"), &larger, 1, NOON).await;
    assert_eq!(published.expect("the corpus answers"), Err(PublishError::NotStaged));
    assert_eq!(desk.documents(10).await, []);
    desk.publish(1, &document("one"), 1).await.expect("it was staged");
}

/// No chunk, no word and no metadata, also when it has fewer chunks.
pub async fn a_new_version_leaves_nothing_of_the_old_one(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let old = Document { title: Some("Old".into()), ..described("doc", &json!({ "lang": "en" })) };
    let new = Document { url: Some("https://example.com".into()), ..described("doc", &json!({ "year": 2026 })) };
    desk.put(1, &old, &chunks(["alpha common", "beta common", "gamma common", "delta common"])).await;
    desk.put(2, &new, &[chunk(0, "epsilon common", 180.0), chunk(1, "alpha", 181.0)]).await;
    assert_eq!(desk.matching("beta gamma delta").await, []);
    assert_eq!(names(&desk.matching("common").await), ["doc#0"]);
    assert_eq!(names(&desk.matching("alpha").await), ["doc#1"]);
    let near = desk.nearest(0.0, 100).await;
    assert_eq!(names(&near), ["doc#1", "doc#0"]);
    assert!(near.iter().all(|it| it.document == new && it.score < 0.0));
    let listed = desk.documents(10).await;
    assert_eq!(listed.iter().map(|it| (&it.document, it.chunks)).collect::<Vec<_>>(), [(&new, 2)]);
}

/// Whoever ingests may vanish at any step; nobody sees that, and the next one starts anew.
pub async fn what_ends_half_way_leaves_the_old_version(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("doc"), &chunks(["old", "old"])).await;
    let before = desk.everything("old new").await;
    desk.stage(2, "doc", &chunks(["new"])).await;
    desk.stage(3, "doc", &chunks(["new", "new", "new"])).await;
    desk.discard(3).await;
    assert_eq!(desk.everything("old new").await, before);
    desk.put(4, &document("doc"), &chunks(["new"])).await;
    assert_eq!(names(&desk.matching("old new").await), ["doc#0"]);
}

/// It cannot be published any more; and one that was published cannot be discarded.
pub async fn a_discarded_version_is_gone(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.stage(1, "doc", &chunks(["word"])).await;
    desk.discard(1).await;
    desk.discard(1).await;
    assert_eq!(desk.publish(1, &document("doc"), 1).await, Err(PublishError::NotStaged));
    assert_eq!(desk.sweep(after(1)).await, 0, "nothing is left of it");
    desk.put(2, &document("doc"), &chunks(["word"])).await;
    let before = desk.everything("word").await;
    desk.discard(2).await;
    assert_eq!(desk.everything("word").await, before);
}

/// For whoever did not hear the answer. Only while it is the document's version.
pub async fn a_publication_that_is_asked_again_says_so_again(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let first = desk.put(1, &document("doc"), &chunks(["word"])).await;
    let before = desk.everything("word").await;
    assert_eq!(desk.publish(1, &document("doc"), 1).await, Ok(first));
    assert_eq!(desk.everything("word").await, before, "asking again is no change");
    let second = desk.put(2, &document("other"), &chunks(["word"])).await;
    assert_eq!(desk.publish(1, &document("doc"), 1).await, Ok(second), "as of now");

    desk.put(3, &document("doc"), &chunks(["word"])).await;
    assert_eq!(desk.publish(1, &document("doc"), 1).await, Err(PublishError::NotStaged), "another one has come");
    desk.delete("doc").await;
    assert_eq!(desk.publish(3, &document("doc"), 1).await, Err(PublishError::NotStaged), "it was deleted");
}

/// A chunk that comes late, or twice, does not touch what is found.
pub async fn what_is_staged_for_a_published_version_changes_nothing(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("doc"), &chunks(["word", "word"])).await;
    let before = desk.everything("word late").await;
    desk.stage(1, "doc", &[chunk(1, "late", 0.0), chunk(2, "late", 0.0)]).await;
    assert_eq!(desk.everything("word late").await, before);
    desk.publish(1, &document("doc"), 2).await.expect("it is published");
    assert_eq!(desk.everything("word late").await, before);
}

/// Whichever was begun first.
pub async fn the_version_that_was_published_last_is_found(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.stage(1, "doc", &chunks(["one"])).await;
    desk.stage(2, "doc", &chunks(["two", "two"])).await;
    desk.publish(2, &document("doc"), 2).await.expect("it was staged");
    assert_eq!(names(&desk.matching("one two").await), ["doc#0", "doc#1"]);
    desk.publish(1, &document("doc"), 1).await.expect("it was staged");
    assert_eq!(names(&desk.matching("one two").await), ["doc#0"]);
    assert_eq!(desk.matching("two").await, []);
}

/// Of many who replace one document at once, each is told that it did; one was the last.
pub async fn concurrent_versions_leave_one_whole(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let doc = document("doc");
    let texts: Vec<String> = (0..8).map(|number| format!("word of{number}")).collect();
    let versions: Vec<Vec<EmbeddedChunk>> =
        (1..).zip(&texts).map(|(count, text)| chunks(std::iter::repeat_n(text.as_str(), count))).collect();
    let replaced = join_all((1..).zip(&versions).map(|(number, chunks)| desk.put(number, &doc, chunks))).await;
    assert_eq!(desk.state().await.generation, *replaced.iter().max().expect("there were some"));
    let found = desk.matching("word").await;
    let text = &found[0].chunk.text;
    let whole = texts.iter().position(|it| it == text).expect("it is one of them") + 1;
    assert!(found.iter().all(|it| it.chunk.text == *text) && found.len() == whole, "{found:?}");
    assert_eq!(desk.nearest(0.0, 100).await.len(), whole);
    assert_eq!(desk.documents(10).await.len(), 1);
}

/// Hundreds of chunks in batches, by hundreds of others.
pub async fn long_documents_are_replaced_whole(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    for (number, count, text) in [(1, 700u32, "old"), (2, 600, "new"), (3, 3, "last")] {
        let all: Vec<_> = (0..count).map(|it| chunk(it, text, f64::from(it) / 4.0)).collect();
        for batch in all.chunks(128) {
            desk.stage(number, "doc", batch).await;
        }
        desk.publish(number, &document("doc"), all.len()).await.expect("it was staged");
        let listed = desk.documents(10).await;
        assert_eq!(listed.iter().map(|it| it.chunks).collect::<Vec<_>>(), [count]);
        let found = desk.matching("old new last").await;
        assert_eq!(found.len(), all.len().min(100));
        let near = desk.nearest(150.0, 100).await;
        assert_eq!(near.len(), all.len().min(100));
        assert!(found.iter().chain(&near).all(|it| it.chunk.text == text), "{text}");
        if count > 600 {
            assert_eq!(near[0].chunk.ordinal, 600);
        }
    }
}

/// The chunks as they were given, from any place on, of what is published and nothing else; and nobody else's.
pub async fn a_document_is_read_in_parts_of_one_version(corpus: &dyn Corpus) {
    let (desk, theirs) = (Desk::new(corpus), Desk { corpus, tenant: acme_eu() });
    assert_eq!(desk.read("doc", 0, 10).await, None);
    let given = chunks(["first", "second \0 Grüße 🦀", "third", "fourth"]);
    desk.stage(1, "doc", &given[2..]).await;
    desk.stage(1, "doc", &given[..2]).await;
    assert_eq!(desk.read("doc", 0, 10).await, None, "nobody sees it yet");
    let whole = described("doc", &json!({ "lang": "de" }));
    desk.publish(1, &whole, 4).await.expect("it was staged");
    desk.put(2, &document("doc-2"), &chunks(["another"])).await;
    let summary = DocumentSummary { document: whole, chunks: 4, updated_at: NOON };
    for (from, limit) in [(0, 10), (0, 1), (1, 2), (3, 1), (4, 10), (u32::MAX, 1)] {
        let part = desk.read("doc", from, limit).await.expect("it is there");
        assert_eq!((&part.summary, part.version), (&summary, version(1)));
        let expected: Vec<_> = given.iter().skip(from as usize).take(limit as usize).map(|it| &it.chunk).collect();
        assert_eq!(part.chunks.iter().collect::<Vec<_>>(), expected, "{limit} from {from}");
    }
    assert_eq!(theirs.read("doc", 0, 10).await, None, "it is another tenant's");

    desk.stage(3, "doc", &chunks(["new"])).await;
    assert_eq!(desk.read("doc", 0, 10).await.map(|part| part.version), Some(version(1)), "it is still the old one");
    theirs.put(3, &document("doc"), &chunks(["theirs"])).await;
    desk.publish(3, &document("doc"), 1).await.expect("it was staged");
    let part = desk.read("doc", 0, 10).await.expect("it is there");
    assert_eq!((part.version, part.chunks.len(), &*part.chunks[0].text), (version(3), 1, "new"));
    assert!(desk.delete("doc").await);
    assert_eq!(desk.read("doc", 0, 10).await, None);
    assert_eq!(theirs.read("doc", 0, 10).await.map(|part| part.chunks[0].text.clone()).as_deref(), Some("theirs"));
}

/// Only that one, and it can come again.
pub async fn a_deleted_document_is_gone(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("doc"), &chunks(["word", "word"])).await;
    desk.put(2, &document("doc-2"), &chunks(["word"])).await;
    assert!(!desk.delete("Doc").await);
    assert!(desk.delete("doc").await);
    assert!(!desk.delete("doc").await);
    assert_eq!(names(&desk.matching("word").await), ["doc-2#0"]);
    assert_eq!(names(&desk.nearest(0.0, 100).await), ["doc-2#0"]);
    assert_eq!(desk.documents(10).await.len(), 1);
    assert_eq!(desk.publish(1, &document("doc"), 2).await, Err(PublishError::NotStaged));
    desk.put(3, &document("doc"), &chunks(["other"])).await;
    assert_eq!(names(&desk.nearest(0.0, 100).await), ["doc#0", "doc-2#0"]);
}

/// Also through a corpus that is empty in between.
pub async fn the_generation_grows_with_each_change_and_with_nothing_else(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let generation = async || desk.state().await.generation;
    let mut last = generation().await;
    for number in 0..3u128 {
        desk.stage(10 + number, "doc", &chunks(["word"])).await;
        desk.stage(20 + number, "doc", &chunks(["word"])).await;
        assert!(desk.publish(10 + number, &document("doc"), 2).await.is_err());
        desk.discard(20 + number).await;
        assert!(!desk.delete("other").await);
        desk.sweep(NOON).await;
        desk.nearest(0.0, 1).await;
        desk.matching("word").await;
        assert_eq!(generation().await, last);

        let told = desk.publish(10 + number, &document("doc"), 1).await.expect("it was staged");
        assert!(told > last);
        assert_eq!(generation().await, told);
        assert!(desk.delete("doc").await);
        last = generation().await;
        assert!(last > told);
    }
}

/// Another one comes only when nothing is left of the first; then it can.
pub async fn all_vectors_are_of_one_space(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let larger = EmbeddingSpace { dimensions: 12, ..space() };
    let other = EmbeddingSpace { model: ModelId::new("other").expect("it is a name"), ..space() };
    desk.put(1, &document("doc"), &chunks(["word"])).await;
    let publish = async |number, space: &EmbeddingSpace, name: &str| {
        let (id, mut chunk) = (document_id(name), chunk(0, "word", 0.0));
        chunk.vector.resize(space.dimensions as usize, 0.0);
        let staging = Staging { document: &id, version: version(number), space };
        corpus.stage(&desk.tenant, staging, &[chunk], NOON).await.expect("the corpus takes it");
        corpus.publish(&desk.tenant, version(number), &document(name), space, 1, NOON).await.expect("it answers")
    };
    let before = desk.everything("word").await;
    for (number, wrong) in [(2, &larger), (3, &other)] {
        for name in ["doc", "new"] {
            let refused = Err(PublishError::OtherSpace { has: space() });
            assert_eq!(publish(number, wrong, name).await, refused, "{wrong}, {name}");
            desk.discard(number).await;
            let missing = corpus.publish(&desk.tenant, version(number), &document(name), wrong, 1, NOON).await;
            assert_eq!(missing.expect("the corpus answers"), refused, "that is the first reason");
        }
    }
    assert_eq!(desk.everything("word").await, before);

    assert!(desk.delete("doc").await);
    assert_eq!(desk.state().await.space, None);
    publish(4, &larger, "doc").await.expect("there is nothing else");
    assert_eq!(desk.state().await.space, Some(larger.clone()));
    let mut vector = super::towards(0.0);
    vector.resize(12, 0.0);
    let near = desk.nearest_among(&enigma_core::retrieval::MetadataFilter::default(), &vector, 10).await;
    assert_eq!(names(&near), ["doc#0"]);
    assert_eq!(publish(5, &space(), "doc").await, Err(PublishError::OtherSpace { has: larger }));
}

/// And nothing else; who comes back to what was swept away has to begin anew.
pub async fn a_sweep_removes_what_was_staged_long_ago(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let hour = Duration::from_secs(3600);
    let (before, now) = (NOON.saturating_add(hour), NOON.saturating_add(2 * hour));
    desk.put(1, &document("doc"), &chunks(["word", "word"])).await;
    desk.stage_at(2, "doc", &chunks(["old", "old", "old"]), NOON).await;
    desk.stage_at(3, "new", &chunks(["old", "old"]), NOON).await;
    desk.stage_at(4, "new", &chunks(["word"]), before).await;
    desk.stage_at(5, "new", &chunks(["word"]), NOON).await;
    desk.stage_at(5, "new", &[chunk(1, "word", 1.0)], now).await;
    let seen = desk.everything("word old").await;
    assert_eq!(desk.sweep(before).await, 5);
    assert_eq!(desk.sweep(before).await, 0);
    assert_eq!(desk.everything("word old").await, seen);
    assert_eq!(desk.publish(2, &document("doc"), 3).await, Err(PublishError::NotStaged));
    desk.stage_at(3, "new", &[chunk(2, "late", 0.0)], now).await;
    assert_eq!(desk.publish(3, &document("new"), 3).await, Err(PublishError::NotStaged));
    desk.publish(4, &document("new"), 1).await.expect("it was young enough");
    desk.publish(5, &document("new"), 2).await.expect("somebody was still at it");
}

/// In the order of bytes, each once, with what is known of it.
pub async fn pages_lead_through_all_documents_by_name(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let in_order = ["0", "A", "B b", "a", "a-", "a/b", "aa", "z", "~", "ä", "日本"];
    for (number, name) in (1..).zip(in_order.iter().rev()) {
        let count = usize::try_from(number).expect("a few") % 3 + 1;
        desk.put(number, &document(name), &chunks(std::iter::repeat_n("word", count))).await;
    }
    for limit in [1, 2, 3, 10, 11, 12] {
        let all = desk.documents(limit).await;
        let names: Vec<&str> = all.iter().map(|it| it.document.id.as_str()).collect();
        assert_eq!(names, in_order, "{limit} a page");
        assert!(all.iter().rev().zip(1u32..).all(|(it, number)| it.chunks == number % 3 + 1));
    }
    let page = corpus.documents(&desk.tenant, Some(&document_id("a")), 2).await.expect("the corpus answers");
    assert_eq!(page.documents.iter().map(|it| it.document.id.as_str()).collect::<Vec<_>>(), ["a-", "a/b"]);
    let last = corpus.documents(&desk.tenant, Some(&document_id("日本")), 2).await.expect("the corpus answers");
    assert_eq!((last.documents, last.next), (vec![], None));
}

/// A page begins after a name, whether that is there or not.
pub async fn paging_goes_on_when_documents_come_and_go(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    for (number, name) in [(1, "b"), (2, "d"), (3, "f")] {
        desk.put(number, &document(name), &chunks(["word"])).await;
    }
    let first = corpus.documents(&desk.tenant, None, 2).await.expect("the corpus answers");
    assert_eq!(first.next, Some(document_id("d")));
    desk.delete("d").await;
    desk.put(4, &document("a"), &chunks(["word"])).await;
    desk.put(5, &document("e"), &chunks(["word"])).await;
    let rest = corpus.documents(&desk.tenant, first.next.as_ref(), 5).await.expect("the corpus answers");
    assert_eq!(rest.documents.iter().map(|it| it.document.id.as_str()).collect::<Vec<_>>(), ["e", "f"]);
    assert_eq!(rest.next, None);
}
