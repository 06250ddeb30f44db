use std::sync::mpsc;

use enigma_core::model::CallMetadata;
use futures_util::future::{FutureExt, join_all};

use super::*;

/// Takes a character for a token, and gives a text's first token and its length. Does a step when it is allowed to.
struct Gated {
    steps: mpsc::Receiver<()>,
    seen: mpsc::Sender<usize>,
}

impl Encoder for Gated {
    fn tokens(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        assert!(!text.contains('†'), "a text that the tokenizer panics at");
        Ok(text.chars().map(u32::from).collect())
    }

    fn vectors(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let _ = self.seen.send(texts.len());
        // When the test has ended, so has its sender.
        let _ = self.steps.recv();
        assert!(!texts.iter().any(|text| text[0] == u32::from('!')), "a text that the network panics at");
        if texts.iter().any(|text| text[0] == u32::from('?')) {
            return Err(ModelError::Interrupted { message: "a text that the network refuses".to_owned() });
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let vector = |text: &&[u32]| vec![text[0] as f32, text.len() as f32];
        Ok(texts.iter().map(vector).collect())
    }
}

/// An embedder, the right to let it do steps, and what it has begun.
fn gated(queue: usize) -> (OnDeviceEmbedder, mpsc::Sender<()>, mpsc::Receiver<usize>) {
    let (allow, steps) = mpsc::channel();
    let (seen, begun) = mpsc::channel();
    let options = OnDeviceEmbedderOptions { queue, ..OnDeviceEmbedderOptions::default() };
    (OnDeviceEmbedder::start(Gated { steps, seen }, 2, options).unwrap(), allow, begun)
}

/// An embedder that nobody holds up.
fn open() -> OnDeviceEmbedder {
    gated(8).0
}

fn call<T: Into<String>>(tenant: &str, inputs: impl IntoIterator<Item = T>) -> EmbeddingCall {
    EmbeddingCall {
        model: "m".parse().unwrap(),
        inputs: inputs.into_iter().map(Into::into).collect(),
        dimensions: None,
        metadata: CallMetadata {
            tenant: tenant.parse().unwrap(),
            trace: "test".parse().unwrap(),
            traceparent: None,
            session: None,
            route: "/search",
            gateway: None,
        },
    }
}

#[tokio::test]
async fn texts_come_back_in_their_order_whatever_the_steps() {
    let embedder = open();
    let texts = |from: char, count: usize| (0..count).map(move |n| from.to_string().repeat(1 + n * 37 % 300));
    let asked = [call("a", texts('x', 40)), call("b", texts('y', 7)), call("a", texts('z', 1))];
    for (call, answer) in asked.iter().zip(join_all(asked.iter().map(|call| embedder.embed(call))).await) {
        let answer = answer.unwrap();
        let lengths: Vec<_> = call.inputs.iter().map(|text| u16::try_from(text.len()).unwrap()).collect();
        assert_eq!(answer.prompt_tokens, Some(lengths.iter().map(|len| u32::from(*len)).sum()));
        let first = f32::from(call.inputs[0].as_bytes()[0]);
        let expected: Vec<_> = lengths.into_iter().map(|len| vec![first, f32::from(len)]).collect();
        assert_eq!(answer.vectors, expected);
    }
    assert!(embedder.embed(&call::<&str>("a", [])).await.unwrap().vectors.is_empty());
}

#[tokio::test]
async fn a_question_does_not_wait_until_documents_are_done() {
    let (embedder, allow, begun) = gated(8);
    let documents: Vec<_> = (0..4).map(|_| call("a", vec!["d".repeat(200); 16])).collect();
    let mut documents = join_all(documents.iter().map(|call| embedder.embed(call)));
    assert!((&mut documents).now_or_never().is_none());
    assert!(begun.recv().unwrap() <= 3, "a step is about 512 tokens");
    let (theirs, own) = (call("b", ["q"]), call("a", ["q"]));
    let mut questions = Box::pin(async { tokio::join!(embedder.embed(&theirs), embedder.embed(&own)) });
    assert!((&mut questions).now_or_never().is_none());
    for _ in 0..2 {
        allow.send(()).unwrap();
        begun.recv().unwrap();
    }
    let (theirs, own) = questions.await;
    assert_eq!((theirs.unwrap().vectors.len(), own.unwrap().vectors.len()), (1, 1), "after one step each");
    drop(allow);
    assert!(documents.await.into_iter().all(|answer| answer.unwrap().vectors.len() == 16));
}

#[tokio::test]
async fn a_full_line_refuses_whoever_holds_most_of_it() {
    let (embedder, allow, begun) = gated(3);
    let asked = call("a", ["x"]);
    let mut first = embedder.embed(&asked);
    assert!((&mut first).now_or_never().is_none());
    begun.recv().unwrap();
    let mut rest = [embedder.embed(&asked), embedder.embed(&asked)];
    assert!(rest.iter_mut().all(|call| call.now_or_never().is_none()));
    assert!(matches!(embedder.embed(&asked).await, Err(ModelError::Busy)));
    let other = call("b", ["y"]);
    let mut newcomer = embedder.embed(&other);
    assert!((&mut newcomer).now_or_never().is_none());
    let [stays, displaced] = rest;
    assert!(matches!(displaced.await, Err(ModelError::Busy)));
    drop(allow);
    assert!(first.await.is_ok() && stays.await.is_ok() && newcomer.await.is_ok());
}

#[tokio::test]
async fn who_goes_away_frees_the_place_and_ends_the_work() {
    let (embedder, allow, begun) = gated(1);
    let long = call("a", vec!["d".repeat(512); 16]);
    let mut gone = embedder.embed(&long);
    assert!((&mut gone).now_or_never().is_none());
    assert_eq!(begun.recv().unwrap(), 1);
    drop(gone);
    let next = call("b", ["y"]);
    let mut answer = embedder.embed(&next);
    assert!((&mut answer).now_or_never().is_none());
    drop(allow);
    assert_eq!(answer.await.unwrap().vectors, [[121.0, 1.0]]);
    drop(embedder);
    assert_eq!(begun.iter().sum::<usize>(), 1, "nothing more of the call that was dropped");
}

#[tokio::test]
async fn a_text_at_fault_fails_its_call_and_no_later_one() {
    let embedder = open();
    for wrong in ["!", "?", "†"] {
        let failed = embedder.embed(&call("a", ["x", wrong, "y"])).await;
        assert!(matches!(failed, Err(ModelError::Interrupted { .. })), "{wrong}: {failed:?}");
        assert_eq!(embedder.embed(&call("a", ["x"])).await.unwrap().vectors, [[120.0, 1.0]]);
    }
    let other = EmbeddingCall { dimensions: Some(3), ..call("a", ["x"]) };
    assert!(matches!(embedder.embed(&other).await, Err(ModelError::Unsupported { feature: "dimensions" })));
}

#[tokio::test]
async fn a_thread_that_has_ended_is_told_from_one_that_is_busy() {
    let embedder = open();
    embedder.shared.close();
    assert!(matches!(embedder.embed(&call("a", ["x"])).await, Err(ModelError::Unavailable { .. })));
}

#[tokio::test]
async fn a_text_of_any_length_is_kept_small() {
    let embedder = open();
    let answer = embedder.embed(&call("a", ["é".repeat(READ)])).await.unwrap();
    assert_eq!(answer.prompt_tokens, Some(u32::try_from(READ / 2).unwrap()), "cut between two characters");
}

#[test]
fn what_is_no_model_is_refused() {
    let folder = tempfile::TempDir::new().unwrap();
    let load = || OnDeviceEmbedder::load(folder.path(), OnDeviceEmbedderOptions::default()).err().unwrap();
    assert!(matches!(load(), LoadError::Open { .. }));
    let config = |change: (&str, serde_json::Value)| {
        let mut config = serde_json::json!({
            "model_type": "bert", "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12,
            "intermediate_size": 1536, "max_position_embeddings": 512, "vocab_size": 30522, "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
        });
        config[change.0] = change.1;
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    };
    config(("hidden_size", "many".into()));
    assert!(matches!(load(), LoadError::Config(_)));
    config(("vocab_size", 30522.into()));
    assert!(matches!(load(), LoadError::Open { path, .. } if path.ends_with("model.safetensors")));
    std::fs::write(folder.path().join("model.safetensors"), [8, 0, 0, 0, 0, 0, 0, 0]).unwrap();
    for (key, value) in [("model_type", "gpt2"), ("hidden_act", "relu"), ("position_embedding_type", "relative")] {
        config((key, value.into()));
        assert!(matches!(load(), LoadError::Unsupported { found, .. } if found == value), "{key}");
    }
    config(("num_attention_heads", 5.into()));
    assert!(matches!(load(), LoadError::Unsupported { what: "shape", .. }));
    config(("vocab_size", 30522.into()));
    assert!(matches!(load(), LoadError::Format(_)));
    std::fs::write(folder.path().join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}").unwrap();
    assert!(matches!(load(), LoadError::Tensor(name) if name.contains("embeddings") || name.contains("encoder")));
}
