use std::future::Future;
use std::pin::pin;
use std::sync::mpsc as blocking;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use enigma_core::ports::TokenLedger;
use enigma_core::tenant::TokenBudget;
use enigma_core::{RequestId, TenantId, Timestamp};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::options::Synchronous;
use crate::token_ledger::SqliteTokenLedger;

const NOW: Timestamp = Timestamp::from_millis(1_773_144_000_000);

fn open(dir: &TempDir, options: &Options) -> Database {
    Database::open(dir.path().join("enigma.db"), options).unwrap()
}

fn fast() -> Options {
    Options { synchronous: Synchronous::Off, ..Options::default() }
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

/// Lists a session of this number, as some row to write.
fn put(work: &Work<'_>, number: u128) -> Result<(), StoreError> {
    let session = Uuid::from_u128(number).into_bytes();
    let row = rusqlite::params!["acme", session, "alice", 0, 0, 0, 0];
    work.connection.execute(crate::sql::INDEX_PUT, row)?;
    Ok(())
}

async fn listed(database: &Database) -> i64 {
    database.read(|rows| Ok(rows.query_row("SELECT count(*) FROM session_index", [], |row| row.get(0))?)).await.unwrap()
}

/// Keeps the writer busy until the sender is dropped.
fn hold_up(database: &Database) -> blocking::Sender<()> {
    let (release, released) = blocking::channel::<()>();
    let (started, has_started) = blocking::channel();
    let work = database.write(move |_| {
        started.send(()).unwrap();
        released.recv().unwrap_err();
        Ok(())
    });
    assert!(queue(work).is_none());
    has_started.recv().unwrap();
    release
}

/// Sends a write on its way without waiting for its answer.
fn queue<T>(write: impl Future<Output = T>) -> Option<T> {
    match pin!(write).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn jobs_that_wait_together_share_a_transaction_and_a_failing_one_rolls_back_alone() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let held_up = hold_up(&database);
    let release = async {
        // Polled last: everything else is in the queue by then.
        drop(held_up);
    };
    let (first, failed, panicked, last, ()) = tokio::join!(
        database.write(|work| put(work, 1)),
        database.write(|work| {
            put(work, 2)?;
            work.connection.execute("INSERT INTO nowhere VALUES (1)", [])?;
            Ok(())
        }),
        database.write(|work| -> Result<(), StoreError> {
            put(work, 3)?;
            panic!("a defect")
        }),
        database.write(|work| put(work, 4)),
        release,
    );
    assert!(first.is_ok() && last.is_ok());
    assert!(matches!(failed, Err(StoreError::Sqlite(_))));
    assert!(matches!(panicked, Err(StoreError::Panicked)));
    assert_eq!(listed(&database).await, 2);
    let stats = database.stats();
    assert_eq!((stats.jobs, stats.failed_jobs, stats.commits, stats.failed_commits), (5, 2, 2, 0));
    assert_eq!(stats.largest_group, 4);
}

#[tokio::test]
async fn a_group_is_no_larger_than_it_may_be_and_a_full_queue_makes_wait() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &Options { queue_length: 2, group_size: 3, ..fast() });
    let held_up = hold_up(&database);
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..50 {
        let database = database.clone();
        writes.spawn(async move { database.write(move |work| put(work, number)).await });
    }
    tokio::task::yield_now().await;
    assert_eq!(database.stats().queued, 2);
    drop(held_up);
    assert!(writes.join_all().await.iter().all(Result::is_ok));
    assert_eq!(listed(&database).await, 50);
    assert!(database.stats().largest_group <= 3);
}

/// A piece of work that nothing but the end of its transaction shows to be wrong.
async fn spoil(database: &Database) -> Result<(), StoreError> {
    let spoil = database.write(|work| {
        work.connection.pragma_update(None, "defer_foreign_keys", true)?;
        // A message without a session.
        let row = rusqlite::params!["acme", [1u8; 16], 1, [2u8; 16], "user", 0, None::<u32>, false, "hi"];
        work.connection.execute(crate::sql::MESSAGE_ADD, row)?;
        Ok(())
    });
    spoil.await
}

async fn holds(database: &Database) -> i64 {
    database.read(|rows| Ok(rows.query_row("SELECT count(*) FROM ledger_hold", [], |row| row.get(0))?)).await.unwrap()
}

const BUDGET: TokenBudget = TokenBudget { daily: Some(100), monthly: None };

async fn reserve(ledger: &SqliteTokenLedger, number: u128) -> Result<bool, StoreError> {
    let request = RequestId::new(Uuid::from_u128(number));
    let reserved = ledger.reserve_tokens(&tenant(), request, 30, &BUDGET, Duration::from_secs(60), NOW).await;
    reserved.map(|reserved| reserved.is_ok())
}

#[tokio::test]
async fn a_failed_commit_fails_every_job_and_what_changed_of_the_books_is_written_with_the_next() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let ledger = SqliteTokenLedger::new(database.clone());
    // What is not awaited is told at once, whatever becomes of it.
    assert!(reserve(&ledger, 1).await.unwrap());
    let held_up = hold_up(&database);
    let settled = async {
        let request = RequestId::new(Uuid::from_u128(1));
        ledger.end(&tenant(), |ledger| (ledger.settle(&request, 20, &BUDGET, NOW), None)).await
    };
    let (settled, put_too, broken, ()) =
        tokio::join!(settled, database.write(|work| put(work, 1)), spoil(&database), async { drop(held_up) });
    assert!(matches!(settled, Err(StoreError::Transaction(_))));
    assert!(matches!(put_too, Err(StoreError::Transaction(_))));
    assert!(matches!(broken, Err(StoreError::Transaction(_))));
    assert_eq!((listed(&database).await, database.stats().failed_commits), (0, 1));
    assert!(database.is_failing());

    // The next reservation waits, and what was left goes with it.
    assert!(reserve(&ledger, 2).await.unwrap());
    assert!(!database.is_failing());
    assert_eq!(holds(&database).await, 1);
    database.close().await;
    let again = SqliteTokenLedger::new(open(&dir, &fast()));
    let balance = again.balance(&tenant(), NOW).await.unwrap();
    assert_eq!((balance.day.settled, balance.held_today), (20, 30));
}

#[tokio::test]
async fn while_nothing_can_be_written_nothing_is_reserved() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let ledger = SqliteTokenLedger::new(database.clone());
    // So that it is in memory.
    ledger.balance(&tenant(), NOW).await.unwrap();
    let held_up = hold_up(&database);
    spoil_and_reserve(&database, &ledger, held_up).await;
    assert!(database.is_failing());
    let balance = ledger.balance(&tenant(), NOW).await.unwrap();
    assert_eq!((balance.day.settled, balance.held_today), (0, 0), "it was given back");
    assert_eq!(holds(&database).await, 0);
}

/// One transaction that fails, with a reservation in it.
async fn spoil_and_reserve(database: &Database, ledger: &SqliteTokenLedger, held_up: blocking::Sender<()>) {
    // Held up, the writer has not succeeded since.
    database.inner.counters.is_failing.store(true, Ordering::Relaxed);
    let (broken, reserved, ()) = tokio::join!(spoil(database), reserve(ledger, 1), async { drop(held_up) });
    assert!(matches!(broken, Err(StoreError::Transaction(_))));
    assert!(matches!(reserved, Err(StoreError::Transaction(_))));
}

#[tokio::test]
async fn a_hold_that_was_made_and_ended_in_between_is_never_written() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let ledger = SqliteTokenLedger::new(database.clone());
    let held_up = hold_up(&database);
    assert!(reserve(&ledger, 1).await.unwrap());
    assert!(reserve(&ledger, 2).await.unwrap());
    let request = RequestId::new(Uuid::from_u128(1));
    let acme = tenant();
    let settled = ledger.end(&acme, |ledger| (ledger.settle(&request, 20, &BUDGET, NOW), None));
    let (settled, ()) = tokio::join!(settled, async { drop(held_up) });
    assert_eq!(settled.unwrap().unwrap().charged, 20);
    assert_eq!(holds(&database).await, 1);
}

#[tokio::test]
async fn a_full_queue_refuses_reservations_and_makes_endings_wait() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &Options { queue_length: 2, ..fast() });
    let ledger = SqliteTokenLedger::new(database.clone());
    let held_up = hold_up(&database);
    assert!(reserve(&ledger, 1).await.unwrap() && reserve(&ledger, 2).await.unwrap());
    assert!(matches!(reserve(&ledger, 3).await, Err(StoreError::Busy)));
    let request = RequestId::new(Uuid::from_u128(1));
    let acme = tenant();
    let ending = ledger.end(&acme, |ledger| (ledger.release(&request), None));
    let (released, ()) = tokio::join!(ending, async { drop(held_up) });
    assert!(released.unwrap());
}

#[tokio::test]
async fn what_was_queued_is_written_though_everybody_has_gone() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let held_up = hold_up(&database);
    for number in 0..100 {
        assert!(queue(database.write(move |work| put(work, number))).is_none());
    }
    drop(held_up);
    drop(database);
    assert_eq!(listed(&open(&dir, &fast())).await, 100);
}

#[tokio::test]
async fn closing_writes_what_is_queued_and_refuses_what_comes_later() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let held_up = hold_up(&database);
    let (before, (), ()) = tokio::join!(database.write(|work| put(work, 1)), database.close(), async { drop(held_up) });
    assert!(before.is_ok());
    assert!(matches!(database.write(|work| put(work, 2)).await, Err(StoreError::Closed)));
    assert!(matches!(database.read(|_| Ok(())).await, Err(StoreError::Closed)));
    assert!(matches!(database.keep_up(Upkeep::Checkpoint).await, Err(StoreError::Closed)));
    database.close().await;
    assert_eq!(listed(&open(&dir, &fast())).await, 1);
}

#[tokio::test]
async fn more_reads_than_may_wait_are_refused_and_a_panic_loses_no_connection() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &Options { readers: 1, waiting_reads: 1, ..fast() });
    let (release, released) = blocking::channel::<()>();
    let busy = database.read(move |_| {
        released.recv().unwrap_err();
        Ok(())
    });
    let refused = async {
        let refused = database.read(|_| Ok(())).await;
        drop(release);
        refused
    };
    let (busy, waiting, refused) = tokio::join!(busy, database.read(|_| Ok(())), refused);
    assert!(busy.is_ok() && waiting.is_ok());
    assert!(matches!(refused, Err(StoreError::Busy)));

    let defect = database.read(|_| -> Result<(), StoreError> { panic!("a defect") }).await;
    assert!(matches!(defect, Err(StoreError::Panicked)));
    assert_eq!(listed(&database).await, 0);
}

#[tokio::test]
async fn a_read_that_waits_for_too_long_is_refused() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &Options { readers: 1, waiting_timeout: Duration::from_millis(50), ..fast() });
    let (release, released) = blocking::channel::<()>();
    let busy = database.read(move |_| {
        released.recv().unwrap_err();
        Ok(())
    });
    let refused = async {
        let refused = database.read(|_| Ok(())).await;
        drop(release);
        refused
    };
    let (busy, refused) = tokio::join!(busy, refused);
    assert!(busy.is_ok());
    assert!(matches!(refused, Err(StoreError::Busy)));
    assert_eq!(listed(&database).await, 0);
}

#[tokio::test]
async fn a_reader_cannot_write() {
    let dir = TempDir::new().unwrap();
    let database = open(&dir, &fast());
    let written = database.read(|rows| Ok(rows.execute("DELETE FROM session_index", [])?)).await;
    assert!(matches!(written, Err(StoreError::Sqlite(_))));
}
