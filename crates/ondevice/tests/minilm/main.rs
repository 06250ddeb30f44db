//! The real embedder against the reference implementation. Its files are fetched as an operator would, into the same place, and the
//! tests fail where they cannot be had. The texts and what they have to become were written by `reference.py`.
#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy takes for other code")]

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use enigma_core::model::{CallMetadata, Embedder, EmbeddingCall, Embeddings, ModelError};
use enigma_ondevice::weights::{ALL_MINILM_L6_V2, Sources, default_dir, pull};
use enigma_ondevice::{OnDeviceEmbedder, OnDeviceEmbedderOptions};
use serde::Deserialize;
use tokio::sync::OnceCell;

#[derive(Deserialize)]
struct Reference {
    sentences: Vec<Sentence>,
}

#[derive(Deserialize)]
struct Sentence {
    text: String,
    vector: String,
}

fn reference() -> (Vec<String>, Vec<Vec<f32>>) {
    let reference: Reference = serde_json::from_str(include_str!("reference.json")).unwrap();
    let floats = |bytes: &[u8]| bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let pairs = reference.sentences.into_iter().map(|sentence| {
        let bytes = BASE64_STANDARD.decode(sentence.vector).unwrap();
        (sentence.text, floats(&bytes))
    });
    pairs.unzip()
}

/// One embedder for all tests.
async fn embedder() -> &'static OnDeviceEmbedder {
    static EMBEDDER: OnceCell<OnDeviceEmbedder> = OnceCell::const_new();
    let load = || async {
        let dir = default_dir().expect("a home directory, or ENIGMA_MODELS_DIR");
        let path = pull(&ALL_MINILM_L6_V2, &dir, &Sources::default(), &|_| ()).await.expect("the weights");
        OnDeviceEmbedder::load(&path, OnDeviceEmbedderOptions::default()).expect("an embedder")
    };
    EMBEDDER.get_or_init(load).await
}

fn call<T: Into<String>>(inputs: impl IntoIterator<Item = T>) -> EmbeddingCall {
    EmbeddingCall {
        model: "minilm".parse().unwrap(),
        inputs: inputs.into_iter().map(Into::into).collect(),
        dimensions: None,
        metadata: CallMetadata {
            tenant: "acme".parse().unwrap(),
            trace: "test".parse().unwrap(),
            traceparent: None,
            session: None,
            route: "/search",
            gateway: None,
        },
    }
}

async fn embed<T: Into<String>>(inputs: impl IntoIterator<Item = T>) -> Embeddings {
    embedder().await.embed(&call(inputs)).await.unwrap()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

macro_rules! run {
    ($case:ident) => {
        #[tokio::test]
        async fn $case() {
            enigma_contract::embedder::$case(embedder().await, "minilm").await;
        }
    };
}

enigma_contract::embedder_cases!(run);

#[tokio::test]
async fn fifty_sentences_are_where_the_reference_implementation_puts_them() {
    let (texts, expected) = reference();
    assert_eq!(texts.len(), 50);
    let together = embed(texts.clone()).await;
    let mut worst: f64 = 1.0;
    for ((text, expected), vector) in texts.iter().zip(&expected).zip(&together.vectors) {
        assert_eq!(vector.len(), 384);
        let alike = cosine(vector, expected);
        assert!(alike >= 0.999, "{alike}: {text:?}");
        worst = worst.min(alike);
        // The test of the test: no vector would do for another text.
        let other = expected.iter().rev().copied().collect::<Vec<_>>();
        assert!(cosine(vector, &other) < 0.9);
        let length = vector.iter().map(|x| x * x).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    println!("the least alike has a cosine of 1 - {:.1e}", 1.0 - worst);
    // As the reference's tokenizer counts: 256 at most.
    assert_eq!(embed([texts[48].as_str()]).await.prompt_tokens, Some(256));
    assert_eq!(embed([texts[0].as_str()]).await.prompt_tokens, Some(8));
}

#[tokio::test]
async fn a_text_has_the_same_vector_alone_and_in_company() {
    let (texts, _) = reference();
    let together = embed(texts.clone()).await;
    for (text, expected) in texts.iter().zip(&together.vectors) {
        let alone = embed([text.as_str()]).await;
        assert!(cosine(&alone.vectors[0], expected) > 0.999_999, "{text:?}");
    }
}

#[tokio::test]
async fn what_means_the_same_is_near() {
    let question = "How do I get my money back?";
    let answers = [
        "Refunds are paid within two weeks after we have received the goods.",
        "Our office in Oslo is open from nine to five.",
        "The lamp of the lighthouse turns once every ten seconds.",
    ];
    let vectors = embed([question].into_iter().chain(answers)).await.vectors;
    let near: Vec<f64> = vectors[1..].iter().map(|vector| cosine(&vectors[0], vector)).collect();
    assert!(near[0] > near[1] + 0.1 && near[0] > near[2] + 0.1, "{near:?}");
}

#[tokio::test]
async fn texts_of_any_length_are_cut_and_not_refused() {
    let long = "word ".repeat(200_000);
    let embedded = embed([long.as_str(), &long[..2000], "", "\u{0}"]).await;
    assert!(cosine(&embedded.vectors[0], &embedded.vectors[1]) > 0.999_999);
    assert_eq!(embedded.vectors.len(), 4);
    let other = EmbeddingCall { dimensions: Some(256), ..call(["x"]) };
    let refused = embedder().await.embed(&other).await;
    assert!(matches!(refused, Err(ModelError::Unsupported { feature: "dimensions" })));
    let same = EmbeddingCall { dimensions: Some(384), ..call(["x"]) };
    assert_eq!(embedder().await.embed(&same).await.unwrap().vectors[0].len(), 384);
}
