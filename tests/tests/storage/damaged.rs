//! Files that are not what was written.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use enigma_conformance::client::session;
use enigma_conformance::{Api, Server};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::{Bench, assert_calm};

const PAGE: u64 = 4096;

/// A database with some turns, closed as it should be.
async fn written(bench: &Bench, turns: usize) -> (String, String) {
    let (acme, other) = (session(), session());
    let mut server = bench.start();
    // One after the other, so that their rows lie on pages of their own.
    for (tenant, session) in [("acme", &acme), ("other", &other)] {
        for turn in 0..turns {
            server.tenant(tenant).chat(session, &format!("turn {turn} {}", "x".repeat(900))).await.ok();
        }
    }
    server.terminate();
    assert!(server.ended(Duration::from_secs(10)).success());
    (acme, other)
}

fn damage(path: &Path, at: u64, bytes: &[u8]) {
    fs::File::options().write(true).open(path).unwrap().write_all_at(bytes, at).unwrap();
}

#[track_caller]
fn assert_refused(bench: &Bench, what: &str, reason: &str) {
    let before = fs::read(bench.database()).unwrap();
    let (status, said) = bench.config().refused();
    assert_eq!(status.code(), Some(1), "{what}: {said}");
    assert!(said.contains("cannot open") && said.contains("enigma.db"), "{what}: {said}");
    assert!(said.contains(reason), "{what}: no {reason:?} in {said}");
    assert!(!said.contains("panicked"), "{what}: {said}");
    assert!(fs::read(bench.database()).unwrap() == before, "{what}: the file was changed");
}

/// There is no server on half a database.
#[tokio::test]
async fn a_file_that_is_damaged_or_foreign_is_refused_at_the_start() {
    let bench = Bench::new();
    written(&bench, 20).await;
    let path = bench.database();
    let good = fs::read(&path).unwrap();
    assert!(good.len() as u64 > 8 * PAGE, "{}", good.len());
    let database = || Connection::open_with_flags(&path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap();

    damage(&path, 0, b"this was once a database");
    assert_refused(&bench, "garbage in the head", "the file is not a database of this program");
    fs::write(&path, &good).unwrap();
    damage(&path, 100, &[0xff; 1000]);
    assert_refused(&bench, "garbage in the first page", "the database is damaged");
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert_refused(&bench, "half of the file", "the database is damaged");
    fs::write(&path, &good[..700]).unwrap();
    assert_refused(&bench, "less than a page", "the database is damaged");
    fs::write(&path, &good).unwrap();
    database().execute_batch("PRAGMA user_version = 99").unwrap();
    assert_refused(&bench, "a newer schema", "schema 99");
    fs::write(&path, &good).unwrap();
    database().execute_batch("PRAGMA application_id = 1").unwrap();
    assert_refused(&bench, "another program's", "the file is not a database of this program");

    fs::write(&path, &good).unwrap();
    drop(bench.start());
    bench.books().assert_whole();
}

/// The page that a session's first message lies on.
fn page_of_message(path: &Path, tenant: &str) -> u64 {
    let file = fs::read(path).unwrap();
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let (content, id): (String, Vec<u8>) = connection
        .query_row("SELECT content, id FROM message WHERE tenant = ? AND seq = 11", [tenant], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert!(content.starts_with("turn"), "{content}");
    let place = file.windows(16).position(|window| window == id).unwrap();
    place as u64 / PAGE
}

async fn status_of(api: &Api, session: &str) -> (u16, Value) {
    let answer = api.history(session).await;
    (answer.status, answer.json()["error"]["code"].clone())
}

/// A page that has gone bad is an error for who needs it. Everybody else is served.
#[tokio::test]
async fn a_damaged_page_is_told_to_whom_it_belongs() {
    let bench = Bench::new();
    let (acme, other) = written(&bench, 20).await;
    let page = page_of_message(&bench.database(), "acme");
    assert_ne!(page, page_of_message(&bench.database(), "other"), "both lie on one page");
    damage(&bench.database(), page * PAGE, &[0xa5; 64]);

    let server = bench.start();
    let (status, code) = status_of(&server.tenant("acme"), &acme).await;
    assert_eq!((status, code.as_str()), (500, Some("internal_error")));
    let chatting = server.tenant("acme").chat(&acme, "are you there?").await;
    assert!([200, 500].contains(&chatting.status), "{chatting:?}");
    for text in [&chatting.text, &server.tenant("acme").history(&acme).await.text] {
        assert!(!text.contains("malformed") && !text.contains("sqlite"), "{text}");
    }
    // The tenant's other sessions, and other tenants.
    let fresh = session();
    server.tenant("acme").chat(&fresh, "hello").await.ok();
    assert_eq!(server.tenant("acme").said(&fresh).await.len(), 2);
    assert_eq!(server.tenant("other").said(&other).await.len(), 40);
    server.tenant("other").chat(&other, "hello").await.ok();
    server.tenant("acme").get("/readyz").await.ok();
    assert!(server.output().contains("malformed"), "the log has no word of it: {}", server.output());
    assert_calm(&server);
}

/// A server that died, and what it has left in its log.
async fn killed(bench: &Bench, turns: usize) -> String {
    let session = session();
    let server = bench.start();
    for turn in 0..turns {
        server.tenant("acme").chat(&session, &format!("turn {turn} [[usage 3 4]]")).await.ok();
    }
    server.kill();
    session
}

/// How many turns are there: the first ones, whole and in order.
async fn first_turns(server: &Server, session: &str) -> usize {
    let answer = server.tenant("acme").history(session).await;
    if answer.status == 404 {
        return 0;
    }
    let messages = answer.ok()["messages"].as_array().unwrap().clone();
    assert!(messages.len().is_multiple_of(2), "half a turn: {messages:?}");
    for (n, turn) in messages.chunks(2).enumerate() {
        assert_eq!(turn[0]["content"], format!("turn {n} [[usage 3 4]]"));
        assert_eq!(turn[1]["role"], "assistant");
    }
    messages.len() / 2
}

/// Who takes the log away takes away what only it has; what is left is one whole state from before, and its books fit it.
#[tokio::test]
async fn a_log_that_is_lost_or_cut_leaves_an_older_whole_state() {
    type Harm = fn(&Path);
    const TURNS: usize = 20;
    let wal = |bench: &Bench| bench.directory.path().join("enigma.db-wal");
    let harms: [(&str, Harm, std::ops::RangeInclusive<usize>); 4] = [
        ("untouched", |_| {}, TURNS..=TURNS),
        ("deleted", |wal| fs::remove_file(wal).unwrap(), 0..=TURNS),
        (
            "cut",
            |wal| {
                let file = fs::File::options().write(true).open(wal).unwrap();
                file.set_len(file.metadata().unwrap().len() * 2 / 3 + 17).unwrap();
            },
            1..=TURNS - 1,
        ),
        (
            "a bit flipped",
            |wal| {
                let place = fs::metadata(wal).unwrap().len() / 2;
                damage(wal, place, &[0x5a; 8]);
            },
            1..=TURNS - 1,
        ),
    ];
    for (what, harm, expected) in harms {
        let bench = Bench::new();
        let session = killed(&bench, TURNS).await;
        assert!(fs::metadata(wal(&bench)).unwrap().len() > 10 * PAGE, "{what}: nothing is in the log");
        harm(&wal(&bench));
        let server = bench.start();
        let kept = first_turns(&server, &session).await;
        assert!(expected.contains(&kept), "{what}: {kept} turns");
        bench.books().assert_whole();
        let account = bench.books().account("acme");
        // The last one may still be held, for more than it needed.
        assert!(account.holds <= 1, "{what}: {account:?}");
        assert!(account.day + account.held >= kept as u64 * 7, "{what}: {kept} turns and {account:?}");
        assert!(account.day <= (kept as u64 + 1) * 7, "{what}: {kept} turns and {account:?}");
        assert!(account.day + 7 >= kept as u64 * 7, "{what}: {kept} turns and {account:?}");
        server.tenant("acme").chat(&session, "on we go").await.ok();
        assert_calm(&server);
    }
}

/// The index of the log is made anew from the log.
#[tokio::test]
async fn an_index_of_the_log_that_is_lost_or_garbage_does_no_harm() {
    for garbage in [None, Some([0x5a; 4096])] {
        let bench = Bench::new();
        let session = killed(&bench, 5).await;
        let shm = bench.directory.path().join("enigma.db-shm");
        match garbage {
            None => fs::remove_file(shm).unwrap(),
            Some(bytes) => fs::write(shm, bytes).unwrap(),
        }
        let server = bench.start();
        assert_eq!(first_turns(&server, &session).await, 5);
        bench.books().assert_whole();
    }
}
