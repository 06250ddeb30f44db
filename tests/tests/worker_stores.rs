//! The stores of retrieval on the Worker: what a late index does, what happens when a binding fails, and what is told then.
//! `docs/architecture/failure-modes.md` and `docs/guides/vectorize.md` say the same.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::time::Duration;

use enigma_conformance::{Api, Tenant, Worker, WorkerConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

/// What a machine that is busy with other tests takes besides.
const SLACK: Duration = Duration::from_secs(10);

fn start(vectorize: Value, configure: impl FnOnce(WorkerConfig) -> WorkerConfig) -> Worker {
    let config = WorkerConfig::new().package("tests/worker").vectorize(vectorize).tenant(&Tenant::new("acme"));
    configure(config).start()
}

async fn ask(worker: &Worker, ask: Value) -> Value {
    let mut ask = ask;
    ask.as_object_mut().unwrap().entry("tenant").or_insert_with(|| json!("acme"));
    let answer = Api::patient(&worker.base_url, Duration::from_secs(120)).post("/stores", &ask).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.text).unwrap()
}

fn named(document: &str, count: u32) -> Value {
    (0..count).map(|ordinal| format!("{document}#{ordinal}")).collect()
}

/// For a while only words find what is new; nothing finds what is old. What is little is compared without the index.
#[tokio::test]
async fn a_late_index_is_made_up_for() {
    let late = Duration::from_secs(6);
    let worker =
        start(json!({ "dimensions": 8, "visibleAfterMs": u64::try_from(late.as_millis()).unwrap() }), |config| config);
    let near = || ask(&worker, json!({ "op": "near", "only_index": true }));
    let words = |text: &str| ask(&worker, json!({ "op": "words", "text": text }));
    let begun = Instant::now();
    assert_eq!(ask(&worker, json!({ "op": "put", "document": "doc", "text": "old", "count": 3 })).await, 1);
    let (by_index, by_words) = (near().await, words("old").await);
    let by_comparing = ask(&worker, json!({ "op": "near" })).await;
    if begun.elapsed() < late {
        assert_eq!(by_index, json!([]), "Vectorize does not know them yet");
    }
    assert_eq!((by_words, by_comparing), (named("doc", 3), named("doc", 3)));
    tokio::time::sleep(late).await;
    assert_eq!(near().await, named("doc", 3));

    let begun = Instant::now();
    assert_eq!(ask(&worker, json!({ "op": "put", "document": "doc", "text": "new", "count": 2 })).await, 2);
    let by_index = near().await;
    if begun.elapsed() < late {
        assert_eq!(by_index, json!([]), "the old ones are still in Vectorize, and do not count");
    }
    assert_eq!((words("old").await, words("new").await), (json!([]), named("doc", 2)));
    tokio::time::sleep(late).await;
    assert_eq!(near().await, named("doc", 2));
}

/// Also hundreds of chunks, in a namespace of the tenant's choice.
#[tokio::test]
async fn a_namespace_that_the_tenant_chose_has_its_vectors() {
    let worker = start(json!({ "dimensions": 1024 }), |config| {
        config
            .tenant(&Tenant::new("ours").with("vectorizeNamespace", json!("shared")))
            .tenant(&Tenant::new("theirs").with("vectorizeNamespace", json!("shared")))
    });
    for tenant in ["ours", "theirs"] {
        let put = json!({ "op": "put", "tenant": tenant, "document": tenant, "count": 320, "dimensions": 1024 });
        assert_eq!(ask(&worker, put).await, 1);
    }
    for tenant in ["ours", "theirs"] {
        let near = json!({ "op": "near", "tenant": tenant, "only_index": true, "dimensions": 1024 });
        let found = ask(&worker, near).await;
        let found = found.as_array().unwrap();
        // The hundred that are nearest are of both, and each sees its own only.
        assert!((1..=100).contains(&found.len()), "{}", found.len());
        assert!(found.iter().all(|it| it.as_str().unwrap().starts_with(&format!("{tenant}#"))), "{found:?}");
    }
}

/// In words that say what to do.
#[tokio::test]
async fn an_index_that_is_too_small_is_told() {
    let worker = start(json!({ "dimensions": 8 }), |config| config);
    let told = ask(&worker, json!({ "op": "put", "document": "doc", "dimensions": 9 })).await;
    let why = "the vector index has 8 dimensions, and the model makes vectors of 9: it needs an index of as many";
    assert_eq!(told, json!({ "failed": "unavailable", "port": "corpus", "why": why }));
    // Of fewer it can have them.
    assert_eq!(ask(&worker, json!({ "op": "put", "document": "doc", "dimensions": 3 })).await, 1);
    let near = json!({ "op": "near", "only_index": true, "dimensions": 3 });
    assert_eq!(ask(&worker, near).await, named("doc", 1));
}

/// What Vectorize could not forget when it had to is forgotten later; in between nobody sees it.
#[tokio::test]
async fn an_index_that_begins_to_fail_is_got_over() {
    let worker = start(json!({ "dimensions": 8 }), |config| config);
    let vectors = || {
        let rows = worker.tell(&json!({ "op": "d1.query", "sql": "SELECT COUNT(*) AS n FROM corpus_outbox" }));
        rows["rows"][0]["n"].clone()
    };
    assert_eq!(ask(&worker, json!({ "op": "put", "document": "doc", "text": "word", "count": 150 })).await, 1);
    worker.tell(&json!({ "op": "fault", "binding": "VECTORIZE", "fault": "error" }));
    let failed = ask(&worker, json!({ "op": "put", "document": "doc", "text": "word", "count": 2 })).await;
    assert_eq!(failed["failed"], "unavailable", "{failed}");
    assert_eq!(ask(&worker, json!({ "op": "words", "text": "word" })).await.as_array().unwrap().len(), 100);
    assert_eq!(ask(&worker, json!({ "op": "delete", "document": "doc" })).await, true);
    assert_eq!(ask(&worker, json!({ "op": "words", "text": "word" })).await, json!([]));
    assert_eq!(ask(&worker, json!({ "op": "sweep" })).await["failed"], "unavailable");
    assert_eq!(vectors(), 2, "the deleted version, and the one that was never published");
    worker.tell(&json!({ "op": "fault", "binding": "VECTORIZE", "fault": null }));
    assert_eq!(ask(&worker, json!({ "op": "sweep" })).await, 0);
    assert_eq!(vectors(), 0);
    assert_eq!(ask(&worker, json!({ "op": "put", "document": "doc", "text": "word", "count": 2 })).await, 3);
    assert_eq!(ask(&worker, json!({ "op": "near", "only_index": true })).await, named("doc", 2));
}

/// Each of the bindings, in both ways: an error that names the port, within its time.
async fn fails(binding: &'static str, how: &'static str) {
    let worker = start(json!({ "dimensions": 8 }), |config| config.breaks(binding, how));
    let seconds = Duration::from_secs;
    let cases = match binding {
        "CACHE" => vec![
            (json!({ "op": "cache.get", "key": "k" }), "cache", seconds(2)),
            (json!({ "op": "cache.put", "key": "k", "value": "v" }), "cache", seconds(2)),
        ],
        "DB" => vec![
            (json!({ "op": "state" }), "corpus", seconds(5)),
            (json!({ "op": "near" }), "corpus", seconds(5)),
            (json!({ "op": "words", "text": "word" }), "corpus", seconds(5)),
            (json!({ "op": "put", "document": "doc" }), "corpus", seconds(25)),
        ],
        _ => vec![(json!({ "op": "put", "document": "doc" }), "vector index", seconds(5))],
    };
    let (kind, waits) = if how == "hangs" { ("timeout", true) } else { ("unavailable", false) };
    for (what, port, limit) in cases {
        let begun = Instant::now();
        let told = ask(&worker, what.clone()).await;
        assert_eq!((&told["failed"], &told["port"]), (&json!(kind), &json!(port)), "{what}: {told}");
        let most = if waits { limit } else { Duration::ZERO } + SLACK;
        assert!(begun.elapsed() < most, "{what} took {:?}", begun.elapsed());
    }
    if binding != "DB" {
        // What does not need it goes on.
        assert_eq!(ask(&worker, json!({ "op": "words", "text": "word" })).await, json!([]));
        assert_eq!(ask(&worker, json!({ "op": "near" })).await, json!([]));
    }
}

macro_rules! fails {
    ($($name:ident: $binding:literal $how:literal;)*) => {
        $(#[tokio::test] async fn $name() { fails($binding, $how).await; })*
    };
}

fails! {
    a_cache_that_throws: "CACHE" "throws";
    a_cache_that_hangs: "CACHE" "hangs";
    an_index_that_throws: "VECTORIZE" "throws";
    an_index_that_hangs: "VECTORIZE" "hangs";
    a_database_that_throws: "DB" "throws";
    a_database_that_hangs: "DB" "hangs";
}
