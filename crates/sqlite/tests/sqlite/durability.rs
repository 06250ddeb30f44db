//! What survives: an orderly end, and the death of the process.

use std::fs;
use std::time::Duration;

use crate::support::{Fixture, open};
use enigma_contract::fixture::{DAY, NOON, acme, after, request, session, turn, user};
use enigma_core::Timestamp;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::limit::Subject;
use enigma_core::ports::{IdempotencyStore, SessionIndex, SessionStore, TokenLedger};
use enigma_core::session::Retention;
use enigma_core::tenant::TokenBudget;
use enigma_sqlite::{Database, SqliteIdempotencyStore, SqliteSessionIndex, SqliteSessionStore, SqliteTokenLedger};
use tempfile::TempDir;

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };
const BUDGET: TokenBudget = TokenBudget { daily: Some(100), monthly: Some(1000) };
const MINUTE: Duration = Duration::from_secs(60);

fn key(text: &str) -> IdempotencyKey {
    IdempotencyKey::new(&Subject::new("user", "alice"), "/chat", text).unwrap()
}

async fn fill(database: &Database) {
    let store = SqliteSessionStore::new(database.clone());
    let index = SqliteSessionIndex::new(database.clone());
    let ledger = SqliteTokenLedger::new(database.clone());
    let idempotency = SqliteIdempotencyStore::new(database.clone());
    for first in [0, 2, 4] {
        let turn = turn(&user("alice"), [first, first + 1], after(first.into()));
        let summary = store.append_turn(&acme(), &session(1), &turn, &MUCH, after(first.into())).await.unwrap();
        index.record(&acme(), &summary).await.unwrap();
    }
    for number in [1, 2] {
        ledger.reserve(&acme(), request(number), 40, &BUDGET, MINUTE, NOON).await.unwrap().unwrap();
    }
    ledger.settle(&acme(), &request(1), 30, &BUDGET, NOON).await.unwrap().unwrap();
    for (text, answer) in [("done", Some("answer")), ("running", None)] {
        let (ask, later) = (Fingerprint::of(&[b"hi"]), NOON.saturating_add(DAY));
        let begun = idempotency.begin(&acme(), &key(text), &ask, request(1), later, NOON).await.unwrap();
        assert_eq!(begun, Begin::First);
        if let Some(answer) = answer {
            idempotency.finish(&acme(), &key(text), &request(1), answer, later).await.unwrap();
        }
    }
}

async fn check(database: &Database) {
    let store = SqliteSessionStore::new(database.clone());
    let messages = store.recent(&acme(), &session(1), 10, &MUCH, after(10)).await.unwrap().messages;
    assert_eq!(messages.len(), 6);
    let turn = turn(&user("bob"), [6, 7], after(20));
    let summary = store.append_turn(&acme(), &session(1), &turn, &MUCH, after(20)).await.unwrap();
    assert_eq!((summary.user, summary.message_count, summary.token_count), (user("alice"), 8, 28));

    let index = SqliteSessionIndex::new(database.clone());
    let page = index.list(&acme(), None, Timestamp::default(), None, 10).await.unwrap();
    assert_eq!(page.sessions.iter().map(|summary| summary.message_count).collect::<Vec<_>>(), [6]);

    let ledger = SqliteTokenLedger::new(database.clone());
    let balance = ledger.balance(&acme(), NOON).await.unwrap();
    assert_eq!((balance.day.settled, balance.month.settled), (30, 30));
    assert_eq!((balance.held_today, balance.held_this_month), (40, 40));
    assert!(ledger.reserve(&acme(), request(3), 31, &BUDGET, MINUTE, NOON).await.unwrap().is_err());
    let expired = ledger.balance(&acme(), NOON.saturating_add(MINUTE)).await.unwrap();
    assert_eq!((expired.day.settled, expired.held_today), (70, 0), "the lost request is charged in full");

    let idempotency = SqliteIdempotencyStore::new(database.clone());
    for (text, expected) in [("done", Begin::Replay("answer".into())), ("running", Begin::InProgress)] {
        let ask = Fingerprint::of(&[b"hi"]);
        let begun = idempotency.begin(&acme(), &key(text), &ask, request(2), after(90_000), after(1)).await.unwrap();
        assert_eq!(begun, expected);
    }
}

#[tokio::test]
async fn everything_is_there_after_a_close() {
    let fixture = Fixture::new();
    fill(&fixture).await;
    fixture.close().await;
    check(&open(&fixture.dir)).await;
}

#[tokio::test]
async fn everything_is_there_after_the_last_handle_was_dropped() {
    let Fixture { database, dir } = Fixture::new();
    fill(&database).await;
    drop(database);
    check(&open(&dir)).await;
}

/// The files, as they are while the database is open, are all that a process leaves that is killed.
#[tokio::test]
async fn everything_acknowledged_is_there_after_the_process_was_killed() {
    let fixture = Fixture::new();
    fill(&fixture).await;
    let dead = TempDir::new().unwrap();
    for name in ["enigma.db", "enigma.db-wal"] {
        fs::copy(fixture.dir.path().join(name), dead.path().join(name)).unwrap();
    }
    check(&open(&dead)).await;
}
