//! Documents: ingestion, replacement, lists, deletion.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::Host;
use crate::client::{Answer, Api, tag};
use crate::tenant::Tenant;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let names =
        ["docs-in", "docs-replace", "docs-list", "docs-fail", "docs-repeat", "docs-race", "docs-steps", "docs-bad"];
    let mut tenants: Vec<_> = names.map(|id| Tenant::new(id).searches()).into();
    tenants.push(Tenant::new("docs-none"));
    tenants.push(Tenant::new("docs-poor").searches().with("tokenBudget", json!({ "daily": 40 })));
    tenants
}

/// Takes a document in.
pub(super) async fn ingest(api: &Api, id: &str, text: &str, more: &Value) -> Answer {
    let mut body = json!({ "docId": id, "text": text });
    for (name, value) in more.as_object().into_iter().flatten() {
        body[name] = value.clone();
    }
    api.post("/ingest", &body).await
}

/// The texts that the words of `query` find.
pub(super) async fn found(api: &Api, query: &str) -> Vec<String> {
    let data = api.post("/search", &json!({ "query": query, "mode": "keyword", "topK": 20 })).await.ok();
    let sources = data["sources"].as_array().unwrap();
    sources.iter().map(|source| source["text"].as_str().unwrap().to_owned()).collect()
}

/// Sentences that make a chunk each, with `word` in all of them.
fn sentences(word: &str, count: usize) -> String {
    (0..count).fold(String::new(), |text, n| text + &format!("Sentence {n} of them is about {word} and more. "))
}

/// So small that each sentence is a chunk.
fn small() -> Value {
    json!({ "chunking": { "maxChunkSize": 100, "overlap": 0 } })
}

/// What was taken in is found by its words and listed with its title.
pub async fn a_document_is_taken_in_and_found(host: &Host) {
    let (api, word) = (host.tenant("docs-in"), tag().replace('-', ""));
    let more = json!({ "title": "About it", "url": "https://example.com/it", "source": "handbook", "metadata": { "lang": "en" } });
    let answer = ingest(&api, "guides/It is here.md", &format!("# It\r\n\r\nThe word is {word}.\r\n"), &more).await;
    assert_eq!(
        answer.ok(),
        json!({ "status": "ingested", "docId": "guides/It is here.md", "chunks": 1, "embeddingModelId": "embed-64" })
    );
    assert_eq!(answer.header("x-model-id"), Some("embed-64"));
    answer.number("x-ratelimit-remaining");
    answer.secured();
    assert_eq!(found(&api, &word).await, [format!("# It\n\nThe word is {word}.")]);
    let listed = api.get("/documents").await.ok();
    let document = &listed["documents"][0];
    assert_eq!(document["docId"], "guides/It is here.md");
    assert_eq!((&document["title"], &document["metadata"]["lang"]), (&json!("About it"), &json!("en")));
    assert!(document["updatedAt"].as_u64().is_some_and(|at| at > 1_600_000_000_000), "{document}");
    // Its title is embedded with it.
    assert_eq!(host.upstream.embedded(&format!("About it\n\n# It\n\nThe word is {word}")), 1);
}

/// Nothing of the old version is left, even where the new one is shorter.
pub async fn a_repeat_replaces_a_document_whole(host: &Host) {
    let (api, old, new) = (host.tenant("docs-replace"), tag().replace('-', ""), tag().replace('-', ""));
    assert_eq!(ingest(&api, "d", &sentences(&old, 7), &small()).await.ok()["chunks"], 7);
    assert_eq!(found(&api, &old).await.len(), 7);
    assert_eq!(ingest(&api, "d", &sentences(&new, 2), &small()).await.ok()["chunks"], 2);
    assert!(found(&api, &old).await.is_empty(), "a part of the old version is left");
    assert_eq!(found(&api, &new).await.len(), 2);
    let listed = api.get("/documents").await.ok();
    assert_eq!(listed["documents"].as_array().unwrap().len(), 1);
    assert_eq!(listed["documents"][0]["chunks"], 2);
}

/// Pages of the list have every document once; what is deleted is neither listed nor found.
pub async fn documents_are_listed_by_name_and_deleted(host: &Host) {
    let (api, word) = (host.tenant("docs-list"), tag().replace('-', ""));
    for id in ["c", "a/b c", "b"] {
        ingest(&api, id, &format!("{word} of {id}"), &json!({})).await.ok();
    }
    let (mut seen, mut path) = (Vec::new(), "/documents?limit=2".to_owned());
    loop {
        let page = api.get(&path).await.ok();
        seen.extend(page["documents"].as_array().unwrap().iter().map(|it| it["docId"].as_str().unwrap().to_owned()));
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = format!("/documents?limit=2&cursor={}", next.replace(' ', "%20"));
    }
    assert_eq!(seen, ["a/b c", "b", "c"]);
    assert_eq!(api.delete("/documents/a/b%20c").await.ok(), json!({ "success": true, "docId": "a/b c" }));
    api.delete("/documents/a/b%20c").await.error(404, "not_found");
    api.delete("/documents/%5B").await.error(404, "not_found");
    assert_eq!(found(&api, &word).await.len(), 2);
    api.get("/documents?limit=0").await.error(400, "invalid_request");
}

/// A new version that cannot be embedded changes nothing.
pub async fn a_failure_half_way_leaves_the_old_version(host: &Host) {
    let (api, old, new) = (host.tenant("docs-fail"), tag().replace('-', ""), tag().replace('-', ""));
    ingest(&api, "d", &sentences(&old, 3), &small()).await.ok();
    // Beyond a batch of any provider's, so that something of it is kept before it fails.
    let text = sentences(&new, 250) + "And this has [[no embedding]] at all.";
    ingest(&api, "d", &text, &small()).await.error(502, "ai_error");
    assert_eq!(found(&api, &old).await.len(), 3);
    assert!(found(&api, &new).await.is_empty(), "a part of the new version is there");
    // Nothing stands in the way of the next try.
    ingest(&api, "d", &sentences(&new, 4), &small()).await.ok();
    assert_eq!(found(&api, &new).await.len(), 4);
}

/// An idempotency key works as it does in a chat.
pub async fn a_repeated_request_is_carried_out_once(host: &Host) {
    let (api, word) = (host.tenant("docs-repeat").with("idempotency-key", &tag()), tag());
    let first = ingest(&api, "d", &word, &json!({})).await;
    let again = ingest(&api, "d", &word, &json!({})).await;
    assert_eq!(first.ok(), again.ok());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(host.upstream.embedded(&word), 1);
    ingest(&api, "e", &word, &json!({})).await.error(422, "idempotency_mismatch");
}

/// Versions that come side by side never mix.
pub async fn of_two_at_once_one_is_left_whole(host: &Host) {
    let (api, word) = (host.tenant("docs-race"), tag().replace('-', ""));
    let texts: Vec<_> = (2..7).map(|count| (count, sentences(&format!("{word} v{count}"), count))).collect();
    for answer in join_all(texts.iter().map(|(_, text)| async { ingest(&api, "d", text, &small()).await })).await {
        answer.ok();
    }
    let left = found(&api, &word).await;
    let (count, _) = texts.iter().find(|(count, _)| *count == left.len()).expect("a mixture of versions");
    assert!(left.iter().all(|text| text.contains(&format!("v{count} "))), "{left:?}");
}

/// An event stream counts the chunks that are done.
pub async fn a_long_document_tells_how_far_it_is(host: &Host) {
    let (api, word) = (host.tenant("docs-steps").with("accept", "text/event-stream"), tag().replace('-', ""));
    let mut body = small();
    body["docId"] = "d".into();
    body["text"] = sentences(&word, 250).into();
    let events = api.open("/ingest", &body).await.rest().await;
    let named: Vec<_> = events.iter().filter(|event| event.comment.is_none()).collect();
    let (last, steps) = named.split_last().unwrap();
    assert_eq!(last.name.as_deref(), Some("done"));
    assert_eq!((&last.json()["status"], &last.json()["chunks"]), (&json!("ingested"), &json!(250)));
    let done: Vec<u64> = steps.iter().map(|step| step.json()["chunksDone"].as_u64().unwrap()).collect();
    assert!(!done.is_empty() && done.is_sorted() && done.iter().all(|done| *done < 250), "{done:?}");
    assert!(steps.iter().all(|step| step.name.as_deref() == Some("progress") && step.json()["chunksTotal"] == 250));
}

/// Every fault of a body is told, and too long ones are refused.
pub async fn faults_of_a_document_are_named(host: &Host) {
    let api = host.tenant("docs-bad");
    let body = json!({
        "docId": "a#b", "text": "\u{feff} \n", "title": 7, "metadata": { "long": "x".repeat(11_000) },
        "chunking": { "maxChunkSize": 100, "overlap": 51 },
    });
    let details = api.post("/ingest", &body).await.error(400, "invalid_request");
    let paths: Vec<_> = details["issues"].as_array().unwrap().iter().map(|issue| issue["path"].to_string()).collect();
    for path in ["[\"docId\"]", "[\"text\"]", "[\"title\"]", "[\"metadata\"]", "[\"chunking\",\"overlap\"]"] {
        assert!(paths.contains(&path.to_owned()), "{path} is not among {paths:?}");
    }
    api.post("/ingest", &json!({ "docId": "d", "text": "x".repeat(2_100_000) })).await.error(413, "payload_too_large");
    // As much as is allowed is read, though other routes take less.
    ingest(&api, "d", &"One more sentence of it. ".repeat(20_000), &json!({ "chunking": { "maxChunkSize": 8000 } }))
        .await
        .ok();
    ingest(&host.tenant("docs-none"), "d", "text", &json!({})).await.error(403, "feature_disabled");
}

/// Embedding is reserved from the budget before it is done.
pub async fn what_is_embedded_is_paid_for(host: &Host) {
    let (api, word) = (host.tenant("docs-poor"), tag());
    let refused = ingest(&api, "d", &format!("{word} {}", "x".repeat(400)), &json!({})).await;
    assert_eq!(refused.error(429, "budget_exceeded")["period"], "daily");
    assert_eq!(host.upstream.embedded(&word), 0);
    // Eight words, counted as eight tokens.
    ingest(&api, "d", "one two three four five six seven eight", &json!({})).await.ok();
    // 32 are left.
    ingest(&api, "d", &"x".repeat(33 * 4), &json!({})).await.error(429, "budget_exceeded");
    ingest(&api, "d", &"x".repeat(32 * 4), &json!({})).await.ok();
}
