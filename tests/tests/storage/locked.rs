//! Others who hold the database.

use enigma_conformance::client::{session, tag};
use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{Bench, assert_calm, until_answered};

/// Two servers would spend a budget twice.
#[tokio::test]
async fn a_second_server_is_refused_and_the_first_goes_on() {
    let bench = Bench::new();
    let server = bench.start();
    let (status, said) = bench.config().refused();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("cannot open") && said.contains("the database is in use"), "{said}");
    server.tenant("acme").chat(&session(), "hello").await.ok();
    server.kill();
    // The lock dies with its process, whose file stays.
    assert!(bench.directory.path().join("enigma.db.lock").exists());
    drop(bench.start());
}

/// Another program, such as a backup or a person with a shell, holds SQLite's own lock.
#[tokio::test]
async fn a_foreign_lock_is_waited_for_and_then_refused() {
    let bench = Bench::new();
    let server = bench.start();
    let (api, kept, tag) = (server.tenant("acme"), session(), tag());
    api.chat(&kept, "[[usage 3 4]]").await.ok();
    let foreign = Connection::open_with_flags(bench.database(), OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    // The budget is decided in memory. Only when the first cannot be written is it known that nothing can.
    for (name, calls) in [("first", 1), ("second", 0)] {
        let (started, tag) = (Instant::now(), format!("{name} {tag}"));
        let refused = api.chat(&session(), &format!("{tag} [[usage 3 4]]")).await;
        refused.error(503, "unavailable");
        let took = started.elapsed();
        assert!(took.as_secs() < 15, "nobody waits that long: {took:?}");
        assert_eq!(bench.upstream.calls(&tag).len(), calls, "a model was called");
    }
    assert_eq!(api.said(&kept).await.len(), 2, "reading goes on");
    foreign.execute_batch("ROLLBACK").unwrap();
    until_answered(&api, &kept, "[[usage 3 4]]").await;

    // A lock that is gone in time is not noticed.
    foreign.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn({
        let (api, kept) = (api.clone(), kept.clone());
        async move { api.chat(&kept, "[[usage 3 4]]").await }
    });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    foreign.execute_batch("ROLLBACK").unwrap();
    waiting.join_next().await.unwrap().unwrap().ok();
    assert_eq!(api.said(&kept).await.len(), 6);
    let account = bench.books().settled("acme").await;
    // The first one that was refused had cost as much as the others.
    assert_eq!((account.day, account.month), (28, 28));
    // 28 of the budget, to the token.
    let more = |tokens: u64| json!({ "max_tokens": tokens - 4 });
    let refused = api.complete("[[usage 0 0]]", &more(crate::BUDGET - 28 + 1)).await;
    refused.openai_error(429, "budget_exceeded", "insufficient_quota");
    api.complete("[[usage 0 0]]", &more(crate::BUDGET - 28)).await.object();
    assert_calm(&server);
}

/// Whoever reads for long, such as a backup, holds up nobody.
#[tokio::test]
async fn a_foreign_reader_disturbs_nobody() {
    let bench = Bench::new();
    let server = bench.start();
    let (api, session) = (server.tenant("acme"), session());
    api.chat(&session, "[[usage 3 4]]").await.ok();
    let foreign = bench.books().connect();
    foreign.execute_batch("BEGIN").unwrap();
    let count = || -> i64 { foreign.query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap() };
    assert_eq!(count(), 2);
    for _ in 0..5 {
        api.chat(&session, "[[usage 3 4]]").await.ok();
    }
    assert_eq!(count(), 2, "a reader sees one state");
    assert_eq!(api.said(&session).await.len(), 12);
}
