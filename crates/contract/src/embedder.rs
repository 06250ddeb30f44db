//! [`Embedder`].
//!
//! Each case takes the embedder, and the name of a model of it.

use enigma_core::model::{CallMetadata, Embedder, EmbeddingCall, Embeddings, ModelError, check_vectors};
use enigma_core::{ModelId, TraceId};
use futures_util::FutureExt;
use futures_util::future::join_all;

use crate::fixture::acme;

/// Lists the cases of this port.
#[macro_export]
macro_rules! embedder_cases {
    ($run:ident) => {
        $run!(there_is_a_vector_for_each_text_in_their_order);
        $run!(a_text_has_the_same_vector_in_any_company);
        $run!(what_has_words_in_common_is_nearer_than_what_has_none);
        $run!(texts_of_all_kinds_are_embedded);
        $run!(a_long_text_is_cut_and_not_refused);
        $run!(dimensions_are_asked_for_in_vain_or_given);
        $run!(a_call_that_is_dropped_harms_no_other);
        $run!(calls_at_the_same_time_get_their_own_vectors);
    };
}

/// No embedder has so many: it is a prime.
const ODD: u32 = 7919;

fn call<T: Into<String>>(model: &str, texts: impl IntoIterator<Item = T>) -> EmbeddingCall {
    EmbeddingCall {
        model: ModelId::new(model).expect("a valid model"),
        inputs: texts.into_iter().map(Into::into).collect(),
        dimensions: None,
        metadata: CallMetadata {
            tenant: acme(),
            trace: TraceId::new("contract").expect("a valid trace"),
            traceparent: None,
            session: None,
            route: "/contract",
            gateway: None,
        },
    }
}

/// The vectors of a call, checked, each of length 1.
async fn embed<T: Into<String>>(
    embedder: &dyn Embedder,
    model: &str,
    texts: impl IntoIterator<Item = T> + Send,
) -> Vec<Vec<f32>> {
    let call = call(model, texts);
    let answer = embedder.embed(&call).await.expect("the embedder answers");
    checked(answer, call.inputs.len())
}

fn checked(answer: Embeddings, texts: usize) -> Vec<Vec<f32>> {
    let Embeddings { mut vectors, .. } = answer;
    assert_eq!(check_vectors(&mut vectors, texts), Ok(()));
    vectors
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "all vectors of a model have the same dimensions");
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

#[track_caller]
fn assert_same(a: &[f32], b: &[f32]) {
    let alike = cosine(a, b);
    assert!(alike > 0.999, "not the same vector: their cosine is {alike}");
}

const TEXTS: [&str; 4] = [
    "The harbour master writes the names of all ships into a book.",
    "Sourdough bread needs flour, water, salt and a day.",
    "Wolken ziehen über die Berge.",
    "x",
];

/// As many vectors as texts, all of the same dimensions, and each at the place of its text.
pub async fn there_is_a_vector_for_each_text_in_their_order(embedder: &dyn Embedder, model: &str) {
    let forth = embed(embedder, model, TEXTS).await;
    let back = embed(embedder, model, TEXTS.into_iter().rev()).await;
    for (a, b) in forth.iter().zip(back.iter().rev()) {
        assert_same(a, b);
    }
    for (n, a) in forth.iter().enumerate() {
        assert!(forth[..n].iter().all(|b| cosine(a, b) < 0.99), "other texts have other vectors");
    }
}

/// Alone, or beside longer and shorter ones.
pub async fn a_text_has_the_same_vector_in_any_company(embedder: &dyn Embedder, model: &str) {
    let together = embed(embedder, model, TEXTS).await;
    for (text, expected) in TEXTS.iter().zip(&together) {
        let alone = embed(embedder, model, [*text]).await;
        assert_same(&alone[0], expected);
    }
    let twice = embed(embedder, model, [TEXTS[0], TEXTS[1], TEXTS[0]]).await;
    assert_same(&twice[0], &twice[2]);
}

/// Near means alike.
pub async fn what_has_words_in_common_is_nearer_than_what_has_none(embedder: &dyn Embedder, model: &str) {
    let texts = [
        "The ferry to the island leaves the harbour at noon.",
        "When does the ferry leave the harbour for the island?",
        "Sourdough bread needs flour, water, salt and patience.",
    ];
    let vectors = embed(embedder, model, texts).await;
    let (near, far) = (cosine(&vectors[0], &vectors[1]), cosine(&vectors[0], &vectors[2]));
    assert!(near > far + 0.1, "{near} {far}");
}

/// White space, marks, other scripts, and what looks like markup or JSON.
pub async fn texts_of_all_kinds_are_embedded(embedder: &dyn Embedder, model: &str) {
    let texts = [
        " \t\n",
        "?",
        "☔🌍👩‍👩‍👧",
        "日本語のテキスト",
        "עברית וعربي",
        "{\"text\": [\"\\u0000\"]}",
        "[CLS] <b>bold</b> [SEP]",
        "line\r\nline\u{0}\u{7f}",
        "e\u{301} \u{202e}x",
    ];
    embed(embedder, model, texts).await;
}

/// A text far beyond what any model reads has a vector, and the texts beside it have theirs.
pub async fn a_long_text_is_cut_and_not_refused(embedder: &dyn Embedder, model: &str) {
    let long = "A sentence about nothing in particular. ".repeat(2000);
    let vectors = embed(embedder, model, [TEXTS[0], long.as_str(), TEXTS[1]]).await;
    let alone = embed(embedder, model, [TEXTS[0], TEXTS[1]]).await;
    assert_same(&vectors[0], &alone[0]);
    assert_same(&vectors[2], &alone[1]);
}

/// Who asks for dimensions gets them, or the model's own, or is refused for good.
pub async fn dimensions_are_asked_for_in_vain_or_given(embedder: &dyn Embedder, model: &str) {
    let own = embed(embedder, model, [TEXTS[0]]).await[0].len();
    for asked in [ODD, u32::try_from(own).expect("vectors are short")] {
        let call = EmbeddingCall { dimensions: Some(asked), ..call(model, [TEXTS[0]]) };
        let answer = embedder.embed(&call).await;
        if matches!(answer, Err(ModelError::Unsupported { feature: "dimensions" })) {
            assert_ne!(asked as usize, own, "these it has");
            continue;
        }
        let len = checked(answer.expect("the embedder answers, or refuses the dimensions"), 1)[0].len();
        assert!(len == own || len == asked as usize, "{len} dimensions");
    }
}

/// Whether it had begun or not.
pub async fn a_call_that_is_dropped_harms_no_other(embedder: &dyn Embedder, model: &str) {
    let expected = embed(embedder, model, [TEXTS[1]]).await;
    for _ in 0..3 {
        let asked = call(model, TEXTS);
        drop(embedder.embed(&asked).now_or_never());
        let vectors = embed(embedder, model, [TEXTS[1]]).await;
        assert_same(&vectors[0], &expected[0]);
    }
}

/// No call gets another's.
pub async fn calls_at_the_same_time_get_their_own_vectors(embedder: &dyn Embedder, model: &str) {
    let expected = embed(embedder, model, TEXTS).await;
    let pairs: Vec<[usize; 2]> = (0..4).flat_map(|a| (0..4).map(move |b| [a, b])).collect();
    let calls = pairs.iter().map(|pair| embed(embedder, model, pair.map(|n| TEXTS[n])));
    for (pair, vectors) in pairs.iter().zip(join_all(calls).await) {
        for (n, vector) in pair.iter().zip(&vectors) {
            assert_same(vector, &expected[*n]);
        }
    }
}
