//! How well search finds what it should, as users ask it: the native server, its database, and the embedder that runs in it, over the
//! judged corpus of `tests/retrieval`. Every mode is held to what it has reached before, and hybrid to the better of the other two.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::{Api, Server, ServerConfig, Tenant, Upstream};
use enigma_retrieval_eval::{Scores, TestCollection, evaluate};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// The first start may have to fetch the weights.
const WITH_WEIGHTS: Duration = Duration::from_secs(600);
const TENANT: &str = "quality";
/// As many as nDCG@10 looks at.
const PLACES: usize = 10;
/// What may be lost without anybody having to say why.
const TOLERANCE: f64 = 0.02;
/// Requests at once.
const AT_ONCE: usize = 4;

fn start(upstream: &Upstream) -> Server {
    let tenant = Tenant::new(TENANT)
        .searches()
        .with("aiModels", json!({ "chat": "quality-model", "embeddings": "all-minilm-l6-v2" }))
        .with("rateLimit", json!({ "perMinute": 100_000 }))
        .with("tokenBudget", json!({}));
    let config = ServerConfig::new()
        .upstream(&upstream.base_url())
        .set("ondevice.model_id", "none")
        .set("ondevice.embedding_model_id", "all-minilm-l6-v2")
        .tenant(&tenant);
    let directory = Arc::new(tempfile::tempdir().unwrap());
    config.stored_in(&directory).start_within(WITH_WEIGHTS)
}

/// Takes every passage in as a document of its own.
async fn ingest(api: &Api, collection: &TestCollection) {
    stream::iter(&collection.passages)
        .map(|passage| async {
            let body = json!({ "docId": passage.id, "title": passage.title, "text": passage.text });
            api.post("/ingest", &body).await.ok();
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

/// The documents that are found, the best first, each once.
async fn ranking(api: &Api, mode: &str, question: &str) -> Vec<String> {
    let body = json!({ "query": question, "mode": mode, "topK": 20 });
    let data = api.post("/search", &body).await.ok();
    let mut found: Vec<String> = Vec::new();
    for source in data["sources"].as_array().unwrap() {
        let document = source["docId"].as_str().unwrap();
        if !found.iter().any(|known| known == document) {
            found.push(document.to_owned());
        }
    }
    found.truncate(PLACES);
    found
}

async fn scores(api: &Api, mode: &str, collection: &TestCollection) -> Scores {
    let rankings: BTreeMap<&str, Vec<String>> = stream::iter(&collection.questions)
        .map(|question| async { (question.id.as_str(), ranking(api, mode, &question.question).await) })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    evaluate(&collection.questions, &rankings).unwrap()
}

/// What a mode has reached, from `baseline.json`.
fn baseline(mode: &str) -> Scores {
    let all: Value = serde_json::from_str(include_str!("../retrieval/data/baseline.json")).unwrap();
    let of = |name: &str| all[mode][name].as_f64().unwrap();
    Scores { ndcg_at_10: of("ndcgAt10"), recall_at_5: of("recallAt5"), mrr: of("mrr") }
}

/// The three numbers, with their names.
fn named(scores: Scores) -> [(&'static str, f64); 3] {
    [("nDCG@10", scores.ndcg_at_10), ("recall@5", scores.recall_at_5), ("MRR", scores.mrr)]
}

#[tokio::test]
async fn search_finds_what_it_should() {
    let (upstream, collection) = (Upstream::start(), TestCollection::committed().unwrap());
    let server = start(&upstream);
    let api = server.tenant(TENANT);
    ingest(&api, &collection).await;
    let mut reached = BTreeMap::new();
    for mode in ["keyword", "vector", "hybrid"] {
        let scores = scores(&api, mode, &collection).await;
        // What `just eval-retrieval` is for.
        println!("{mode:<8} {scores}");
        reached.insert(mode, scores);
    }
    for (mode, scores) in &reached {
        for ((name, now), (_, before)) in named(*scores).into_iter().zip(named(baseline(mode))) {
            assert!(now >= before - TOLERANCE, "{name} of {mode} has dropped from {before:.4} to {now:.4}");
            // A baseline that is left behind would let later changes lose what was won.
            assert!(now <= before + TOLERANCE, "{name} of {mode} has risen to {now:.4}: write it into baseline.json");
        }
    }
    let best = |of: fn(Scores) -> f64| of(reached["keyword"]).max(of(reached["vector"]));
    let hybrid = reached["hybrid"];
    assert!(hybrid.ndcg_at_10 >= best(|it| it.ndcg_at_10), "hybrid is worse than one of its parts: {hybrid}");
    assert!(hybrid.recall_at_5 >= best(|it| it.recall_at_5), "hybrid is worse than one of its parts: {hybrid}");
    assert!(hybrid.mrr >= best(|it| it.mrr), "hybrid is worse than one of its parts: {hybrid}");
}
