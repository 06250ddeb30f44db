//! One request at a time on a disk that fails.

use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::system::{BROKEN, NO_SPACE, READ_ONLY};
use enigma_conformance::upstream::words;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Bench, assert_calm, until_answered};

/// The answer goes out; then the client is told that it was not kept.
#[tokio::test]
async fn an_answer_that_cannot_be_kept_is_given_and_told() {
    let bench = Bench::new();
    let server = bench.start();
    let (api, kept, lost, tag) = (server.tenant("acme"), session(), session(), tag());
    api.chat(&kept, "[[usage 3 4]]").await.ok();
    let mut reply = api.chat_stream(&lost, &format!("{tag}[[tokens 1]][[gate {tag}]][[tokens 2]][[usage 3 4]]")).await;
    assert_eq!(reply.text().await, words(1));
    bench.system.writes_fail(NO_SPACE, 0);
    bench.upstream.open(&tag);
    let finished = reply.finish().await;
    assert_eq!(finished.text, words(2));
    assert_eq!(finished.error.as_ref().unwrap()["code"], "unavailable", "{finished:?}");
    assert_eq!(finished.done["finishReason"], "error");

    // New requests are refused before a model is called; what is there can be read, and nothing can be taken away.
    let refused = enigma_conformance::client::tag();
    for tenant in ["acme", "other"] {
        server.tenant(tenant).chat(&session(), &refused).await.error(503, "unavailable");
    }
    assert!(bench.upstream.calls(&refused).is_empty());
    assert_eq!(api.said(&kept).await.len(), 2);
    assert_eq!(api.get("/sessions").await.ok()["sessions"].as_array().unwrap().len(), 1);
    api.assert_unknown(&lost).await;
    api.delete(&format!("/chat/{kept}")).await.error(503, "unavailable");
    assert_eq!(api.said(&kept).await.len(), 2);

    bench.system.writes_fail(0, 0);
    until_answered(&api, &lost, "[[usage 3 4]]").await;
    until_answered(&server.tenant("other"), &session(), "hello").await;
    assert_eq!(api.said(&lost).await.len(), 2, "what was not kept does not come back");
    assert_calm(&server);
    server.kill();

    let server = bench.start();
    let api = server.tenant("acme");
    assert_eq!((api.said(&kept).await.len(), api.said(&lost).await.len()), (2, 2));
    // Two answers of seven tokens are settled. The one that could not be settled is charged, or held until it is.
    let account = bench.books().account("acme");
    assert!(account.day >= 14, "{account:?}");
    assert!((14..=14 + 400).contains(&(account.day + account.held)), "{account:?}");
    bench.books().assert_whole();
}

/// A database that cannot be read refuses what needs it, and nothing else.
#[tokio::test]
async fn what_cannot_be_read_is_not_guessed() {
    let bench = Bench::new();
    let (old, tag) = (session(), tag());
    let server = bench.start();
    server.tenant("acme").chat(&old, "[[usage 3 4]]").await.ok();
    let mut server = server;
    server.terminate();
    assert!(server.ended(Duration::from_secs(10)).success());

    // Nothing of the file is in anybody's memory now.
    let server = bench.start();
    let api = server.tenant("acme");
    bench.system.reads_fail(BROKEN);
    api.history(&old).await.error(503, "unavailable");
    api.chat(&old, &tag).await.error(503, "unavailable");
    assert!(bench.upstream.calls(&tag).is_empty(), "a model was called without the history");
    bench.system.reads_fail(0);
    assert_eq!(api.said(&old).await.len(), 2);
    until_answered(&api, &old, &tag).await;
    assert_eq!(api.said(&old).await.len(), 4);
    assert_calm(&server);
}

/// Nothing is acknowledged before it is safe, however long that takes; and readiness tells that it takes too long.
#[tokio::test]
async fn a_disk_that_hardly_moves_is_not_ready() {
    let bench = Bench::new();
    let server = bench.start();
    let api = server.tenant("acme");
    let session = session();
    api.chat(&session, "[[usage 3 4]]").await.ok();
    bench.system.syncs_take(Duration::from_secs(3));
    let started = Instant::now();
    let mut asking = JoinSet::new();
    asking.spawn({
        let (api, session) = (api.clone(), session.clone());
        async move { api.chat(&session, "[[usage 3 4]]").await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let ready = server.tenant("acme").get("/readyz").await;
    ready.error(503, "unavailable");
    let alive = Instant::now();
    server.tenant("acme").get("/healthz").await.ok();
    assert_eq!(api.said(&session).await.len(), 2, "reads do not wait for writes");
    assert!(alive.elapsed() < Duration::from_secs(2), "others wait for the disk");
    asking.join_next().await.unwrap().unwrap().ok();
    assert!(started.elapsed() >= Duration::from_secs(3), "it was acknowledged before it was safe");
    bench.system.syncs_take(Duration::ZERO);
    until_answered(&api, &session, "[[usage 3 4]]").await;
    assert_eq!(api.said(&session).await.len(), 6);
}

/// A directory that may not be written: there is no server, and it says why.
#[test]
fn a_read_only_directory_is_refused_at_the_start() {
    let bench = Bench::new();
    bench.system.opens_fail(READ_ONLY);
    let (status, said) = bench.config().refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot open") && said.contains("enigma.db"), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    bench.system.opens_fail(0);
    drop(bench.start());
}

/// A disk that is full when the server starts for the first time.
#[test]
fn a_new_database_on_a_full_disk_is_refused_at_the_start() {
    let bench = Bench::new();
    bench.system.writes_fail(NO_SPACE, 0);
    let (status, said) = bench.config().refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot open") && said.contains("disk is full"), "{said}");
    bench.system.writes_fail(0, 0);
    drop(bench.start());
    bench.books().assert_whole();
}
