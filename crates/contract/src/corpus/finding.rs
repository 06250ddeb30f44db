//! What vectors and words find.

use enigma_core::ports::Corpus;
use enigma_core::retrieval::Passage;
use serde_json::{Value, json};

use super::{Desk, chunk, chunks, described, document, filter, names, towards};

/// With the cosine as their score, from one end of the space to the other.
pub async fn the_nearest_chunks_come_first(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("a"), &[chunk(0, "x", 10.0), chunk(1, "x", 170.0), chunk(2, "x", 95.0)]).await;
    desk.put(2, &document("b"), &[chunk(0, "x", 50.0), chunk(1, "x", 0.0), chunk(2, "x", 181.0)]).await;
    let near = desk.nearest(0.0, 100).await;
    assert_eq!(names(&near), ["b#1", "a#0", "b#0", "a#2", "a#1", "b#2"]);
    for (passage, degrees) in near.iter().zip([0.0f64, 10.0, 50.0, 95.0, 170.0, 181.0]) {
        let cosine = degrees.to_radians().cos();
        assert!((passage.score - cosine).abs() < 1e-6, "{} is not {cosine}", passage.score);
        assert!((-1.0..=1.0).contains(&passage.score));
    }
    assert_eq!(names(&desk.nearest(50.4, 3).await), ["b#0", "a#0", "a#2"]);
}

/// Whole words, whichever of them; of more of them a chunk is not worse.
pub async fn chunks_with_any_of_the_words_are_found(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("pets"), &chunks(["The cat sat.", "a dog, a DOG!", "cats and dogs", "category"])).await;
    desk.put(2, &document("both"), &chunks(["one cat, one dog", "nothing of it"])).await;
    assert_eq!(names(&desk.matching("cat dog").await)[0], "both#0", "both words beat one");
    let found = |question: &'static str| {
        let desk = desk.clone();
        async move {
            let found = desk.matching(question).await;
            assert!(found.iter().all(|it| it.score >= 0.0));
            assert!(found.is_sorted_by(|one, other| one.score >= other.score));
            let mut names = names(&found);
            names.sort();
            names
        }
    };
    assert_eq!(found("cat").await, ["both#0", "pets#0"]);
    assert_eq!(found("dog unheard of").await, ["both#0", "both#1", "pets#1"]);
    assert_eq!(found("ca og").await, [""; 0], "parts of words are none");
    assert_eq!(found("DOGS").await, ["pets#2"]);
}

/// One rare word weighs more than one that is everywhere; and more of it weighs more.
pub async fn rare_words_count_more(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    for number in 0..20u128 {
        let text = format!("the common filler of number {number}");
        desk.put(number + 1, &document(&format!("doc-{number:02}")), &chunks([text.as_str()])).await;
    }
    desk.put(100, &document("rare"), &chunks(["one unicorn of six words here"])).await;
    desk.put(101, &document("twice"), &chunks(["one unicorn and another unicorn here"])).await;
    let long = format!("unicorn {}", "other ".repeat(200));
    desk.put(102, &document("long"), &chunks([long.as_str()])).await;
    let found = names(&desk.matching("common unicorn").await);
    assert_eq!(found[..3], ["twice#0", "rare#0", "long#0"]);
    assert_eq!(found.len(), 23);
}

/// In any case, and where no blanks tell words apart.
pub async fn words_are_found_in_every_script(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let texts =
        ["Grüße aus ÖSTERREICH", "Мир и ВОЙНА", "ΟΔΟΣ Ελλάδος", "東京都は日本の首都です", "한국어 문서", "naïve café"];
    for (number, text) in (1..).zip(texts) {
        desk.put(number, &document(&format!("doc-{number}")), &chunks([text])).await;
    }
    let expected = [
        ("grüße", "doc-1#0"),
        ("österreich", "doc-1#0"),
        ("война", "doc-2#0"),
        ("МИР", "doc-2#0"),
        ("οδος", "doc-3#0"),
        ("日本", "doc-4#0"),
        ("한국어", "doc-5#0"),
        ("CAFÉ", "doc-6#0"),
    ];
    for (word, name) in expected {
        assert_eq!(names(&desk.matching(word).await), [name], "{word}");
    }
}

/// What an index would take for an operator, a column or a placeholder is a word like any other.
pub async fn no_word_is_a_command(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("logic"), &chunks(["this and that or not near", "plain", "tenant text rowid rank"])).await;
    let words = ["and", "or", "not", "near", "tenant", "text", "rowid", "rank"];
    for word in words {
        assert_eq!(desk.matching(word).await.len(), 1, "{word}");
    }
    assert_eq!(desk.matching("plain AND unheard").await.len(), 2, "and is a word, and plain is another");
    assert_eq!(names(&desk.matching("plain NOT plain").await).len(), 2);
    for question in
        ["\"plain", "plain*", "pla*", "^plain", "text : plain", "(plain", "plain' OR 1=1 --", "{plain}", "-plain"]
    {
        let found = names(&desk.matching(question).await);
        assert_eq!(found.contains(&"logic#1".to_owned()), question.contains("plain"), "{question}");
    }
}

/// From one to a hundred.
pub async fn no_more_is_found_than_was_asked_for(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    for number in 0..30u32 {
        let of = |ordinal: u32| chunk(ordinal, "word", f64::from(number * 5 + ordinal) / 2.0);
        let all: Vec<_> = (0..5).map(of).collect();
        desk.put(u128::from(number) + 1, &document(&format!("doc-{number:02}")), &all).await;
    }
    for limit in [1, 2, 7, 99, 100] {
        let near = desk.nearest(0.0, limit).await;
        let expected: Vec<String> = (0..limit).map(|it| format!("doc-{:02}#{}", it / 5, it % 5)).collect();
        assert_eq!(names(&near), expected);
        let found = desk.matching_among(&filter(&json!({})), "word", limit).await;
        assert_eq!(names(&found), expected, "they fit alike");
    }
}

/// Also where only some of them are wanted, and whenever they came.
pub async fn what_fits_alike_is_in_the_order_of_document_and_chunk(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let order = [7u32, 3, 11, 0, 9, 1, 10, 2, 8, 4, 6, 5];
    for number in order {
        let all: Vec<_> = (0..20).rev().map(|ordinal| chunk(ordinal, "the same words", 30.0)).collect();
        desk.put(u128::from(number) + 1, &document(&format!("doc-{number:02}")), &all).await;
    }
    let expected: Vec<String> = (0..100).map(|it| format!("doc-{:02}#{}", it / 20, it % 20)).collect();
    for limit in [1u32, 19, 21, 100] {
        let near = desk.nearest(29.0, limit).await;
        assert_eq!(names(&near), expected[..limit as usize]);
        assert!(near.windows(2).all(|two| two[0].score.to_bits() == two[1].score.to_bits()));
        let found = desk.matching_among(&filter(&json!({})), "same", limit).await;
        assert_eq!(names(&found), expected[..limit as usize]);
    }
}

/// By every operator, for words and vectors alike.
pub async fn filters_say_which_documents_count(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let all = [
        ("a", json!({ "lang": "en", "year": 2020, "draft": false, "owner": { "team": "red" } })),
        ("b", json!({ "lang": "de", "year": 2021.5, "draft": true, "owner": { "team": "blue" } })),
        ("c", json!({ "lang": null, "year": "2022", "owner.team": "red", "tags": ["en"] })),
        ("d", json!({})),
        ("e", json!({ "lang": "EN", "year": -1, "owner": "red", "quote'd \\ %_": "x' OR 1=1 --" })),
    ];
    for (number, (name, metadata)) in (1..).zip(&all) {
        desk.put(number, &described(name, metadata), &chunks(["word"])).await;
    }
    let expected: &[(Value, &str)] = &[
        (json!({}), "abcde"),
        (json!({ "lang": "en" }), "a"),
        (json!({ "lang": { "$eq": "en" } }), "a"),
        (json!({ "lang": null }), "c"),
        (json!({ "draft": true }), "b"),
        (json!({ "lang": { "$ne": "en" } }), "bcde"),
        (json!({ "lang": { "$in": ["en", "de", "fr"] } }), "ab"),
        (json!({ "lang": { "$nin": ["en", null] } }), "bde"),
        (json!({ "year": 2020 }), "a"),
        (json!({ "year": 2020.0 }), "a"),
        (json!({ "year": { "$gte": 2020 } }), "ab"),
        (json!({ "year": { "$gt": 2020 } }), "b"),
        (json!({ "year": { "$gt": -5, "$lte": 2020 } }), "ae"),
        (json!({ "year": { "$gte": "2000" } }), "c"),
        (json!({ "lang": { "$lt": "en" } }), "be"),
        (json!({ "owner.team": "red" }), "ac"),
        (json!({ "owner.team": { "$ne": "red" } }), "bde"),
        (json!({ "owner": "red" }), "e"),
        (json!({ "tags": "en" }), ""),
        (json!({ "tags": { "$ne": "en" } }), "abcde"),
        (json!({ "lang": "en", "year": { "$lt": 2000 } }), ""),
        (json!({ "draft": false, "owner.team": { "$in": ["red"] } }), "a"),
        (json!({ "quote'd \\ %_": "x' OR 1=1 --" }), "e"),
        (json!({ "no such": { "$nin": [1] } }), "abcde"),
        (json!({ "no such": 1 }), ""),
    ];
    for (json, documents) in expected {
        let filter = filter(json);
        let expected: Vec<String> = documents.chars().map(|name| format!("{name}#0")).collect();
        assert_eq!(names(&desk.nearest_among(&filter, &towards(0.0), 10).await), expected, "{json}");
        assert_eq!(names(&desk.matching_among(&filter, "word", 10).await), expected, "{json}");
    }
}

/// Although hundreds of others fit better.
pub async fn the_few_documents_that_a_filter_leaves_are_found_among_many(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    let many: Vec<_> = (0..400).map(|ordinal| chunk(ordinal, "word word word", 0.0)).collect();
    desk.put(1, &described("many", &json!({ "kind": "many" })), &many).await;
    let few = [chunk(0, "one word among several others", 80.0), chunk(1, "word", 100.0), chunk(2, "none", 179.0)];
    desk.put(2, &described("few", &json!({ "kind": "few" })), &few).await;
    desk.put(3, &described("more", &json!({ "kind": "many" })), &many).await;
    let filter = filter(&json!({ "kind": { "$ne": "many" } }));
    assert_eq!(names(&desk.nearest_among(&filter, &towards(0.0), 5).await), ["few#0", "few#1", "few#2"]);
    assert_eq!(names(&desk.nearest_among(&filter, &towards(0.0), 1).await), ["few#0"]);
    assert_eq!(names(&desk.matching_among(&filter, "word", 5).await), ["few#1", "few#0"]);
}

/// What a word counts, it counts among all documents of the tenant.
pub async fn a_filter_does_not_change_scores(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    for number in 0..10u32 {
        let text = if number < 3 { "rare and common" } else { "only common here" };
        let metadata = json!({ "number": number });
        let all = [chunk(0, text, f64::from(number))];
        desk.put(u128::from(number) + 1, &described(&format!("doc-{number}"), &metadata), &all).await;
    }
    let filter = filter(&json!({ "number": { "$in": [1, 2, 7] } }));
    let kept = |all: Vec<Passage>| -> Vec<Passage> {
        let is_kept = |it: &Passage| ["doc-1", "doc-2", "doc-7"].contains(&it.document.id.as_str());
        all.into_iter().filter(is_kept).collect()
    };
    for question in ["common", "rare common"] {
        let all = desk.matching(question).await;
        assert_eq!(desk.matching_among(&filter, question, 10).await, kept(all));
    }
    let all = desk.nearest(1.2, 10).await;
    assert_eq!(desk.nearest_among(&filter, &towards(1.2), 10).await, kept(all));
}

/// As when the corpus has moved to another model while somebody asked.
pub async fn nothing_is_near_to_a_vector_of_another_size(corpus: &dyn Corpus) {
    let desk = Desk::new(corpus);
    desk.put(1, &document("doc"), &chunks(["word"])).await;
    let any = filter(&json!({}));
    for size in [1, 7, 9, 384] {
        let mut vector = vec![0.0; size];
        vector[0] = 1.0;
        assert_eq!(desk.nearest_among(&any, &vector, 10).await, [], "{size}");
    }
}
