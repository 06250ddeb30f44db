//! What is removed is gone, from the files too.

use std::fs;
use std::time::Duration;

use crate::support::{Fixture, chance};
use enigma_contract::fixture::{DAY, NOON, acme, acme_eu, after, message, request, session, turn, user};
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::limit::Subject;
use enigma_core::ports::{IdempotencyStore, SessionIndex, SessionStore, Telemetry};
use enigma_core::session::{Retention, StoredMessage, Turn};
use enigma_core::usage::{Ending, UsageRecord};
use enigma_core::{ModelId, TenantId, Timestamp, TraceId};
use enigma_sqlite::{
    SqliteIdempotencyStore, SqliteMaintenance, SqliteSessionIndex, SqliteSessionStore, SqliteTelemetry, Swept,
};
use tempfile::TempDir;

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };

/// How often a text stands in the files of the database.
fn count_in_files(dir: &TempDir, text: &str) -> usize {
    let files = fs::read_dir(dir.path()).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
    files.map(|bytes| bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()).sum()
}

fn saying(text: &str, length: usize) -> Turn {
    let content = format!("{text} ").repeat(length / (text.len() + 1) + 1);
    Turn { user: user("alice"), messages: vec![StoredMessage { content, ..message(0, NOON) }] }
}

#[tokio::test]
async fn deleted_texts_are_in_no_file_any_more() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    // Texts of many lengths, on pages shared with others and on pages of their own.
    for round in 0..6u128 {
        for number in 0..150u128 {
            let (text, length) = (["kept-words", "gone-words"][usize::from(number % 3 > 0)], [30, 400, 2_000, 20_000]);
            let turn = saying(text, length[((number * 7 + round) % 4) as usize]);
            store.append_turn(&acme(), &session(number), &turn, &MUCH, NOON).await.unwrap();
        }
    }
    assert!(count_in_files(&fixture.dir, "gone-words") > 0);
    for number in (0..150).filter(|number| number % 3 > 0) {
        assert!(store.delete(&acme(), &session(number)).await.unwrap());
    }
    maintenance.compact().await.unwrap();
    assert_eq!(count_in_files(&fixture.dir, "gone-words"), 0);
    assert!(count_in_files(&fixture.dir, "kept-words") > 0);
    let kept = store.recent(&acme(), &session(0), 10, &MUCH, NOON).await.unwrap().messages;
    assert_eq!(kept.len(), 6);
}

#[tokio::test]
async fn what_retention_ends_is_in_no_file_any_more() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    let three = Retention { days: 30, max_messages: 3 };
    for number in 0..60u128 {
        store.append_turn(&acme(), &session(number % 5), &saying("gone-words", 3_000), &three, NOON).await.unwrap();
    }
    for number in 0..15u128 {
        store.append_turn(&acme(), &session(number % 5), &saying("kept-words", 3_000), &three, NOON).await.unwrap();
    }
    store.append_turn(&acme(), &session(9), &saying("gone-words", 300), &MUCH, NOON).await.unwrap();
    let later = NOON.saturating_add(10 * DAY);
    let week = Retention { days: 7, max_messages: 3 };
    store.append_turn(&acme(), &session(9), &turn(&user("alice"), [1], later), &week, later).await.unwrap();
    maintenance.compact().await.unwrap();
    assert_eq!(count_in_files(&fixture.dir, "gone-words"), 0);
    assert!(count_in_files(&fixture.dir, "kept-words") > 0);
}

/// Many deletions here and there make SQLite move rows, of which secure deletion alone leaves copies behind.
#[tokio::test]
async fn a_rebuild_leaves_no_copy_of_what_was_deleted() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    let ten = Retention { days: 30, max_messages: 10 };
    for step in 0..1_500u64 {
        let number = chance(step);
        let to = session((number % 97).into());
        if (number >> 32).is_multiple_of(8) {
            store.delete(&acme(), &to).await.unwrap();
            continue;
        }
        let text = if (number % 97).is_multiple_of(3) { "kept-words" } else { "gone-words" };
        let length = [20, 60, 200, 700, 1_500, 3_900, 4_200, 9_000][(number >> 40 & 7) as usize];
        store.append_turn(&acme(), &to, &saying(text, length), &ten, NOON).await.unwrap();
    }
    for number in (0..97).filter(|number| number % 3 > 0) {
        store.delete(&acme(), &session(number)).await.unwrap();
    }
    maintenance.rebuild().await.unwrap();
    assert_eq!(count_in_files(&fixture.dir, "gone-words"), 0);
    assert!(count_in_files(&fixture.dir, "kept-words") > 0);
    assert!(store.recent(&acme(), &session(0), 10, &ten, NOON).await.unwrap().user.is_some());
}

#[tokio::test]
async fn compacting_gives_room_back() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 30);
    for number in 0..1_500u128 {
        store.append_turn(&acme(), &session(number), &saying("words", 5_000), &MUCH, NOON).await.unwrap();
    }
    maintenance.compact().await.unwrap();
    let size = || fs::metadata(fixture.dir.path().join("enigma.db")).unwrap().len();
    let full = size();
    for number in 0..1_500u128 {
        store.delete(&acme(), &session(number)).await.unwrap();
    }
    maintenance.compact().await.unwrap();
    assert!(size() < full / 10, "{} of {full}", size());
    assert_eq!(fs::metadata(fixture.dir.path().join("enigma.db-wal")).unwrap().len(), 0);
}

fn usage(number: u128, at: Timestamp) -> UsageRecord {
    UsageRecord {
        request: request(number),
        trace: TraceId::new("trace").unwrap(),
        route: "/chat".into(),
        user: user("alice"),
        session: None,
        model: ModelId::new("model").unwrap(),
        provider: None,
        at,
        latency: Duration::from_millis(5),
        first_token: None,
        tokens_in: 1,
        tokens_out: 1,
        characters: None,
        estimated: false,
        charged: 2,
        overrun: 0,
        ending: Ending::Finished,
    }
}

#[tokio::test]
async fn a_sweep_removes_what_has_had_its_time_and_nothing_of_others() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let index = SqliteSessionIndex::new(fixture.database.clone());
    let idempotency = SqliteIdempotencyStore::new(fixture.database.clone());
    let telemetry = SqliteTelemetry::new(fixture.database.clone());
    let maintenance = SqliteMaintenance::new(fixture.database.clone(), 5);
    let recently = NOON.saturating_add(9 * DAY);
    let fill = async |tenant: &TenantId| {
        for (numbers, at) in [(0..1_300u32, NOON), (2_000..2_010, recently)] {
            for number in numbers {
                let turn = turn(&user("alice"), [0, 1], at);
                let summary = store.append_turn(tenant, &session(number.into()), &turn, &MUCH, at).await.unwrap();
                index.record(tenant, &summary).await.unwrap();
                telemetry.record_usage(tenant, &usage(number.into(), at)).await.unwrap();
                let key = IdempotencyKey::new(&Subject::new("user", "alice"), "/chat", &number.to_string()).unwrap();
                let (ask, until) = (Fingerprint::of(&[b"hi"]), at.saturating_add(5 * DAY));
                // All at one time, so that none removes another that has expired.
                let begun = idempotency.begin(tenant, &key, &ask, request(1), until, NOON).await.unwrap();
                assert_eq!(begun, Begin::First);
            }
        }
    };
    fill(&acme()).await;
    fill(&acme_eu()).await;

    let week = Retention { days: 7, max_messages: 1000 };
    let now = NOON.saturating_add(10 * DAY);
    let swept = maintenance.sweep(&acme(), &week, now).await.unwrap();
    let expected = Swept {
        messages: 2_600,
        listed_sessions: 1_300,
        idempotency_keys: 1_300,
        usage_records: 1_300,
        ..Swept::default()
    };
    assert_eq!(swept, expected);
    assert_eq!(maintenance.sweep(&acme(), &week, now).await.unwrap(), Swept::default());
    let left = async |tenant: &TenantId| {
        let listed = index.list(tenant, None, Timestamp::default(), None, 10_000).await.unwrap().sessions.len();
        let recorded = telemetry.usage(tenant, Timestamp::default(), now, 10_000).await.unwrap().len();
        (listed, recorded)
    };
    assert_eq!(left(&acme()).await, (10, 10));
    assert_eq!(left(&acme_eu()).await, (1_310, 1_310));
    assert_eq!(store.recent(&acme_eu(), &session(0), 10, &MUCH, now).await.unwrap().messages.len(), 2);
}

#[tokio::test]
async fn expired_idempotency_keys_go_as_new_ones_come() {
    let fixture = Fixture::new();
    let store = SqliteIdempotencyStore::new(fixture.database.clone());
    let begin = async |number: u64, now: Timestamp| {
        let key = IdempotencyKey::new(&Subject::new("user", "alice"), "/chat", &number.to_string()).unwrap();
        let (ask, until) = (Fingerprint::of(&[b"hi"]), now.saturating_add(Duration::from_secs(1)));
        store.begin(&acme(), &key, &ask, request(1), until, now).await.unwrap();
    };
    for number in 0..100 {
        begin(number, NOON).await;
    }
    for number in 100..130 {
        begin(number, after(1_000)).await;
    }
    let raw = rusqlite::Connection::open(fixture.dir.path().join("enigma.db")).unwrap();
    let rows: i64 = raw.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 30);
}
