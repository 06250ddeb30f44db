//! What can and cannot be opened.

use std::fs;

use crate::support::{Fixture, open};
use enigma_contract::fixture::{NOON, acme, request, session, turn, user};
use enigma_core::PortError;
use enigma_core::ports::{SessionStore, TokenLedger};
use enigma_core::session::Retention;
use enigma_core::tenant::TokenBudget;
use enigma_sqlite::{Database, OpenError, Options, SqliteSessionStore, SqliteTokenLedger, Synchronous};
use tempfile::TempDir;

const MUCH: Retention = Retention { days: 30, max_messages: 1000 };

fn refusal(dir: &TempDir, options: &Options) -> OpenError {
    Database::open(dir.path().join("enigma.db"), options).unwrap_err()
}

#[tokio::test]
async fn a_database_is_opened_once_at_a_time() {
    let fixture = Fixture::new();
    assert!(matches!(refusal(&fixture.dir, &Options::default()), OpenError::InUse));
    #[cfg(unix)]
    {
        let link = fixture.dir.path().join("link.db");
        std::os::unix::fs::symlink(fixture.dir.path().join("enigma.db"), &link).unwrap();
        assert!(matches!(Database::open(&link, &Options::default()), Err(OpenError::InUse)), "by another name too");
    }
    fixture.close().await;
    open(&fixture.dir);
}

#[test]
fn a_newer_schema_is_refused() {
    let dir = TempDir::new().unwrap();
    drop(open(&dir));
    let raw = rusqlite::Connection::open(dir.path().join("enigma.db")).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    let error = refusal(&dir, &Options::default());
    assert!(matches!(error, OpenError::NewerSchema { found: 99, known: 5 }), "{error}");
}

#[test]
fn another_programs_database_is_refused_and_left_as_it_is() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("enigma.db");
    rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE notes (x)").unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(refusal(&dir, &Options::default()), OpenError::Foreign));
    assert_eq!(fs::read(&path).unwrap(), before);

    fs::write(&path, "not a database at all, but a text of some length, ".repeat(100)).unwrap();
    assert!(matches!(refusal(&dir, &Options::default()), OpenError::Foreign));
}

#[tokio::test]
async fn a_damaged_database_is_found_by_verification() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir);
    let store = SqliteSessionStore::new(database.clone());
    for number in 0..200 {
        let turn = turn(&user("alice"), 0..4, NOON);
        store.append_turn(&acme(), &session(number), &turn, &MUCH, NOON).await.unwrap();
    }
    database.close().await;
    let path = dir.path().join("enigma.db");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let error = refusal(&dir, &Options { verify: true, ..Options::default() });
    assert!(matches!(error, OpenError::Damaged(_)), "{error}");
}

#[test]
fn options_that_make_no_sense_and_places_that_are_not_there_are_refused() {
    let dir = TempDir::new().unwrap();
    let error = refusal(&dir, &Options { readers: 0, ..Options::default() });
    assert!(matches!(error, OpenError::Option("readers")), "{error}");
    let error = Database::open(dir.path().join("none/enigma.db"), &Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::File(_)), "{error}");
}

#[test]
fn every_degree_of_safety_opens() {
    for synchronous in [Synchronous::Off, Synchronous::Normal, Synchronous::Full, Synchronous::Extra] {
        let dir = TempDir::new().unwrap();
        Database::open(dir.path().join("enigma.db"), &Options { synchronous, ..Options::default() }).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn nobody_but_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let fixture = Fixture::new();
    for entry in fs::read_dir(fixture.dir.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[tokio::test]
async fn rows_that_cannot_be_ours_are_corrupt_and_name_the_port() {
    let fixture = Fixture::new();
    let store = SqliteSessionStore::new(fixture.database.clone());
    let ledger = SqliteTokenLedger::new(fixture.database.clone());
    store.append_turn(&acme(), &session(1), &turn(&user("alice"), 0..2, NOON), &MUCH, NOON).await.unwrap();
    let raw = rusqlite::Connection::open(fixture.dir.path().join("enigma.db")).unwrap();
    raw.execute_batch(
        "UPDATE message SET role = 'nobody';
         INSERT INTO ledger_account VALUES ('acme', 0, -1, 0, 0, 0, 0)",
    )
    .unwrap();
    let error = store.recent(&acme(), &session(1), 10, &MUCH, NOON).await.unwrap_err();
    assert!(matches!(error, PortError::Corrupt { port: "session store", .. }), "{error:?}");
    let lifetime = std::time::Duration::from_secs(60);
    let reserved = ledger.reserve(&acme(), request(1), 1, &TokenBudget::default(), lifetime, NOON).await;
    assert!(matches!(reserved, Err(PortError::Corrupt { port: "token ledger", .. })), "{reserved:?}");
}

#[tokio::test]
async fn a_closed_database_is_unavailable() {
    let fixture = Fixture::new();
    fixture.close().await;
    let ledger = SqliteTokenLedger::new(fixture.database.clone());
    let error = ledger.balance(&acme(), NOON).await.unwrap_err();
    assert!(matches!(error, PortError::Unavailable { port: "token ledger", .. }), "{error:?}");
    let store = SqliteSessionStore::new(fixture.database.clone());
    let error = store.recent(&acme(), &session(1), 1, &MUCH, NOON).await.unwrap_err();
    assert!(matches!(error, PortError::Unavailable { port: "session store", .. }), "{error:?}");
}
