//! Traffic while the disk fails and recovers, and a server that is killed afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use enigma_conformance::client::session;
use enigma_conformance::system::{BROKEN, NO_SPACE, System};
use enigma_conformance::upstream::{PATIENCE, words};
use enigma_conformance::{Api, Server};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{BUDGET, Bench, assert_calm};

const WRITERS: usize = 6;
/// Tokens of a turn, as its model counts them.
const COST: u64 = 7;
/// More than any turn sets aside.
const MOST_RESERVED: u64 = 400;

#[derive(Default)]
struct Progress {
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
    over: AtomicBool,
}

#[derive(Default)]
struct Written {
    session: String,
    acknowledged: BTreeSet<usize>,
    refused: BTreeSet<usize>,
}

fn question(turn: usize) -> String {
    format!("turn {turn} [[usage 3 4]]")
}

/// Writes turn after turn, streamed and whole, and notes what was acknowledged. Whatever is not must be `unavailable`.
async fn write(api: Api, progress: Arc<Progress>) -> Written {
    let mut written = Written { session: session(), ..Written::default() };
    for turn in 1.. {
        if progress.over.load(Ordering::Relaxed) {
            break;
        }
        let body = json!({
            "sessionId": written.session, "message": question(turn), "stream": turn.is_multiple_of(2),
        });
        let answer = api.post("/chat", &body).await;
        let failed = answer.text.contains("event: error");
        if answer.status == 200 && !failed {
            written.acknowledged.insert(turn);
            progress.acknowledged.fetch_add(1, Ordering::Relaxed);
        } else {
            if failed {
                assert!(answer.text.contains("\"code\":\"unavailable\""), "{answer:?}");
                assert!(answer.text.trim_end().rsplit("\n\n").next().unwrap().starts_with("event: done"), "{answer:?}");
            } else {
                answer.error(503, "unavailable");
            }
            written.refused.insert(turn);
            progress.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    written
}

async fn reaches(what: &str, counter: &AtomicUsize, most: usize) {
    let end = Instant::now() + PATIENCE * 2;
    while counter.load(Ordering::Relaxed) < most {
        assert!(Instant::now() < end, "{what}: {} of {most}", counter.load(Ordering::Relaxed));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asserts that a session holds whole turns, each once and in order: all that were acknowledged, and none that was never asked.
async fn check(server: &Server, written: &Written) {
    let (mut kept, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/chat/{}/history?limit=200{before}", written.session);
        let page = server.tenant("acme").get(&path).await.ok();
        let messages = page["messages"].as_array().unwrap();
        let turns = messages.chunks(2).map(|turn| {
            let [asked, answered] = turn else { panic!("half a turn: {turn:?}") };
            let text = asked["content"].as_str().unwrap();
            let number: usize = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert_eq!(text, question(number));
            assert_eq!((&answered["role"], &answered["content"]), (&json!("assistant"), &json!(words(3))));
            assert!(answered.get("truncated").is_none(), "{answered}");
            number
        });
        kept.splice(0..0, turns.collect::<Vec<_>>());
        let Some(next) = page["nextBefore"].as_str() else { break };
        before = format!("&before={next}");
    }
    assert!(kept.is_sorted_by(|a, b| a < b), "out of order, or twice: {kept:?}");
    let kept: BTreeSet<_> = kept.into_iter().collect();
    let lost: Vec<_> = written.acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let known: BTreeSet<_> = written.acknowledged.union(&written.refused).copied().collect();
    assert!(kept.is_subset(&known), "never asked: {:?}", kept.difference(&known));
}

async fn weather(what: &str, refuses: bool, fail: impl Fn(&System), heal: impl Fn(&System)) {
    let bench = Bench::new();
    let server = bench.start();
    let progress = Arc::<Progress>::default();
    let mut tasks = JoinSet::new();
    for _ in 0..WRITERS {
        tasks.spawn(write(server.tenant("acme"), Arc::clone(&progress)));
    }
    reaches(what, &progress.acknowledged, 30).await;
    assert_eq!(progress.refused.load(Ordering::Relaxed), 0, "{what}: nothing has failed yet");
    fail(&bench.system);
    if refuses {
        reaches(what, &progress.refused, 20).await;
        assert!(bench.system.failed() > 0, "{what}: nothing has failed");
    } else {
        let so_far = progress.acknowledged.load(Ordering::Relaxed);
        reaches(what, &progress.acknowledged, so_far + 30).await;
        assert_eq!(progress.refused.load(Ordering::Relaxed), 0, "{what}");
    }
    // Who only reads notices nothing, and the process is not ended for what its disk does.
    server.tenant("acme").get("/sessions").await.ok();
    server.tenant("acme").get("/healthz").await.ok();
    heal(&bench.system);
    let so_far = progress.acknowledged.load(Ordering::Relaxed);
    reaches(what, &progress.acknowledged, so_far + 30).await;
    progress.over.store(true, Ordering::Relaxed);
    let written: Vec<Written> = tasks.join_all().await;
    server.tenant("acme").get("/readyz").await.ok();
    for one in &written {
        check(&server, one).await;
    }
    assert_calm(&server);
    // Whatever has been told is safe now: the server gets no chance to put anything in order.
    server.kill();

    let server = bench.start();
    bench.books().assert_whole();
    let (mut told, mut unsure) = (0, 0);
    for one in &written {
        check(&server, one).await;
        told += one.acknowledged.len() as u64;
        unsure += one.refused.len() as u64;
    }
    let account = bench.books().account("acme");
    let spent = account.day + account.held;
    let least = told * COST;
    // What could not be settled is held, and charged in full when that expires.
    assert!(spent >= least, "{what}: the ledger forgot {} of {least} tokens", least - spent);
    let most = least + unsure * MOST_RESERVED;
    assert!(spent <= most && spent <= BUDGET, "{what}: the ledger holds {spent}, and {most} is all there can be");
    let records = bench.books().recorded("acme");
    let finished = records.iter().filter(|record| record.ending == "finished").count() as u64;
    // Of those who were at the end of their turn when the disk failed, the record may be missing.
    let least = told - WRITERS as u64;
    assert!((least..=told + unsure).contains(&finished), "{what}: {finished} records of {told} finished turns");
    let charged: u64 = records.iter().map(|record| record.charged).sum();
    assert!(charged <= account.day, "{what}: {charged} tokens are on record, and {} were charged", account.day);
}

#[tokio::test]
async fn a_disk_that_is_full_at_once() {
    weather("full", true, |system| system.writes_fail(NO_SPACE, 0), |system| system.writes_fail(0, 0)).await;
}

/// The last write that fits is one of many of a transaction.
#[tokio::test]
async fn a_disk_that_fills_up() {
    weather("filling", true, |system| system.writes_fail(NO_SPACE, 100_000), |system| system.writes_fail(0, 0)).await;
}

#[tokio::test]
async fn a_disk_that_cannot_write() {
    weather("broken", true, |system| system.writes_fail(BROKEN, 0), |system| system.writes_fail(0, 0)).await;
}

/// What was written is not safe, so it is not acknowledged.
#[tokio::test]
async fn a_disk_that_cannot_keep() {
    weather("unsafe", true, |system| system.syncs_fail(BROKEN), |system| system.syncs_fail(0)).await;
}

/// A write that is done by half is done on, not taken for whole.
#[tokio::test]
async fn a_disk_that_writes_by_halves() {
    weather("torn", false, |system| system.writes_are_torn(true), |system| system.writes_are_torn(false)).await;
}

/// Many share the wait: nobody is refused, and nothing is acknowledged before its time.
#[tokio::test]
async fn a_disk_that_is_slow() {
    let slow = |system: &System| system.syncs_take(Duration::from_millis(100));
    weather("slow", false, slow, |system| system.syncs_take(Duration::ZERO)).await;
}
