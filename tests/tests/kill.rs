//! A server that is killed in the middle of its work forgets nothing that it has acknowledged.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this is test code: a panic is how it reports")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use enigma_conformance::client::{completion, session};
use enigma_conformance::upstream::PATIENCE;
use enigma_conformance::{Api, Books, Server, ServerConfig, Tenant, Upstream};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often the server dies in the middle of its work.
const ROUNDS: usize = 50;
/// After how many rounds the histories are read whole; they grow.
const READ_EVERY: usize = 10;
/// Turns that are acknowledged before the server dies, each round.
const TURNS: usize = 40;
/// Writers with a session of their own.
const ALONE: usize = 6;
/// Writers who share one.
const TOGETHER: usize = 3;
const BUDGET: u64 = 900_000;
/// Tokens of a turn, as its model counts them.
const COST: u64 = 7;
/// More than any turn sets aside: its answer's cap, and a prompt of a few short messages.
const MOST_RESERVED: u64 = 400;

/// What one writer knows.
#[derive(Default)]
struct Written {
    /// Turns that were begun.
    begun: usize,
    /// Turns that were acknowledged, and their answers.
    acknowledged: BTreeMap<usize, String>,
}

struct Writer {
    name: String,
    session: String,
    written: Mutex<Written>,
}

impl Writer {
    fn new(name: String, session: String) -> Arc<Self> {
        Arc::new(Self { name, session, written: Mutex::default() })
    }

    fn question(&self, turn: usize) -> String {
        format!("{} asks {turn} [[tokens {} every 1ms]][[usage 3 4]]", self.name, 1 + turn % 4)
    }

    /// Writes turn after turn until the server is gone.
    async fn write(self: Arc<Self>, api: Api, acknowledged: watch::Sender<usize>) {
        loop {
            let turn = {
                let mut written = self.written.lock().unwrap();
                written.begun += 1;
                written.begun
            };
            let answer = if turn.is_multiple_of(2) {
                streamed(&api, &self.session, &self.question(turn)).await
            } else {
                whole(&api, &self.session, &self.question(turn)).await
            };
            let Some(answer) = answer else { return };
            self.written.lock().unwrap().acknowledged.insert(turn, answer);
            acknowledged.send_modify(|count| *count += 1);
        }
    }
}

/// The answer, if all of it came.
async fn whole(api: &Api, session: &str, message: &str) -> Option<String> {
    let body = json!({ "sessionId": session, "message": message, "stream": false });
    let reply =
        api.begin(http::Method::POST, "/chat", Some(("application/json", body.to_string().into()))).await.ok()?;
    assert_eq!(reply.status, 200);
    let answer = reply.try_whole().await.ok()?;
    Some(answer.ok()["message"].as_str().unwrap().to_owned())
}

/// The answer, if `done` was seen.
async fn streamed(api: &Api, session: &str, message: &str) -> Option<String> {
    let body = json!({ "sessionId": session, "message": message });
    let mut reply =
        api.begin(http::Method::POST, "/chat", Some(("application/json", body.to_string().into()))).await.ok()?;
    assert_eq!(reply.status, 200);
    let mut text = String::new();
    loop {
        let event = reply.try_next().await.ok()??;
        match event.name.as_deref() {
            Some("done") => return Some(text),
            Some(other) => panic!("{other}: {event:?}"),
            None => text.extend(event.text()),
        }
    }
}

/// A session's whole history, page by page: role and content.
async fn history(api: &Api, session: &str) -> Vec<(String, String)> {
    let (mut messages, mut before) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/chat/{session}/history?limit=200{before}")).await.ok();
        let text = |message: &Value, name: &str| message[name].as_str().unwrap().to_owned();
        let older = page["messages"].as_array().unwrap().iter();
        messages.splice(
            0..0,
            older.map(|message| {
                assert!(message.get("truncated").is_none(), "{message}");
                (text(message, "role"), text(message, "content"))
            }),
        );
        let Some(next) = page["nextBefore"].as_str() else { return messages };
        before = format!("&before={next}");
    }
}

/// Asserts that a session holds whole turns only, every one that was acknowledged among them, and each writer's in order.
/// Returns how many turns it holds.
async fn check(api: &Api, session: &str, writers: &[&Arc<Writer>]) -> usize {
    let messages = history(api, session).await;
    let turns: Vec<_> = messages.chunks(2).collect();
    let mut seen: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for turn in &turns {
        let [(user, question), (assistant, answer)] = turn else { panic!("half a turn at the end: {turn:?}") };
        assert_eq!((user.as_str(), assistant.as_str()), ("user", "assistant"), "{turn:?}");
        let (name, number) = question.split_once(" [[").unwrap().0.split_once(" asks ").unwrap();
        let (name, number) = (name, number.parse().unwrap());
        let writer = writers.iter().find(|writer| writer.name == name).expect("a writer of this session");
        assert_eq!(*question, writer.question(number));
        assert_eq!(*answer, enigma_conformance::upstream::words(1 + number % 4), "{question}");
        let written = writer.written.lock().unwrap();
        if let Some(told) = written.acknowledged.get(&number) {
            assert_eq!(told, answer, "another answer than the one that was given: {question}");
        }
        seen.entry(&writer.name).or_default().push(number);
    }
    for writer in writers {
        let kept = seen.remove(writer.name.as_str()).unwrap_or_default();
        assert!(kept.is_sorted_by(|a, b| a < b), "{}: out of order: {kept:?}", writer.name);
        let kept: BTreeSet<_> = kept.into_iter().collect();
        let written = writer.written.lock().unwrap();
        let lost: Vec<_> = written.acknowledged.keys().filter(|turn| !kept.contains(turn)).collect();
        assert!(lost.is_empty(), "{}: acknowledged and lost: {lost:?}", writer.name);
    }
    turns.len()
}

/// What of the budget can still be reserved, to the token. The question costs nothing: its model counts no tokens.
async fn available(api: &Api) -> u64 {
    let free = "[[usage 0 0]]";
    let prompt = free.len().div_ceil(4) as u64;
    let (mut granted, mut refused) = (0, BUDGET + 1);
    while refused - granted > 1 {
        let middle = granted.midpoint(refused);
        let answer = api.post("/v1/chat/completions", &completion(free, &json!({ "max_tokens": middle }))).await;
        match answer.status {
            200 => granted = middle,
            429 => refused = middle,
            _ => panic!("{answer:?}"),
        }
    }
    granted + prompt
}

#[tokio::test]
async fn what_was_acknowledged_survives_being_killed() {
    let upstream = Upstream::start();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let tenant = Tenant::new("acme")
        .with("maxMessagesPerSession", json!(1_000_000))
        .with("tokenBudget", json!({ "daily": BUDGET }));
    let start = || -> Server {
        ServerConfig::new()
            .upstream(&upstream.base_url())
            .set("chat.max_tokens", 1_000_000)
            .set("log.level", "warn")
            .tenant(&tenant)
            .stored_in(&directory)
            .start()
    };
    let shared = session();
    let alone: Vec<_> = (0..ALONE).map(|n| Writer::new(format!("alone-{n}"), session())).collect();
    let together: Vec<_> = (0..TOGETHER).map(|n| Writer::new(format!("together-{n}"), shared.clone())).collect();
    let writers = || alone.iter().chain(&together);

    for round in 1..=ROUNDS {
        let server = start();
        let (acknowledged, mut count) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for writer in writers() {
            tasks.spawn(Arc::clone(writer).write(server.tenant("acme"), acknowledged.clone()));
        }
        drop(acknowledged);
        let enough = tokio::time::timeout(PATIENCE * 2, count.wait_for(|count| *count >= TURNS)).await;
        enough.expect("the traffic is too slow").expect("all writers have given up");
        server.kill();
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }

        let told: usize = writers().map(|writer| writer.written.lock().unwrap().acknowledged.len()).sum();
        let least = told as u64 * COST;
        // What the dead server has written down, before another one opens it.
        let books = Books::of(directory.path());
        let account = books.account("acme");
        assert!(
            account.day + account.held >= least,
            "round {round}: the ledger forgot {} of {least} tokens",
            least - account.day - account.held
        );
        assert!(account.holds <= u64::try_from(round * (ALONE + TOGETHER)).unwrap(), "{account:?}");
        if round % READ_EVERY != 0 {
            continue;
        }

        let server = start();
        let api = server.tenant("acme");
        let mut kept = 0;
        for writer in &alone {
            kept += check(&api, &writer.session, &[writer]).await;
        }
        kept += check(&api, &shared, &together.iter().collect::<Vec<_>>()).await;
        // Each writer had one turn under way whenever the server died.
        let unsure = round * (ALONE + TOGETHER);
        assert!((told..=told + unsure).contains(&kept), "{kept} turns are kept and {told} were told");
        let spent = BUDGET - available(&api).await;
        let most = least + unsure as u64 * MOST_RESERVED;
        assert!(spent >= least, "round {round}: the ledger forgot {} of {least} tokens", least - spent);
        assert!(spent <= most, "round {round}: the ledger holds {spent} tokens, and {most} is all there can be");
        server.kill();
    }

    // What died with its server is charged when its time is over, and held no longer. The time is made to be over.
    let books = Books::of(directory.path());
    let before = books.account("acme");
    books.expire_all();
    let mut server = start();
    let api = server.tenant("acme");
    assert_eq!(api.post("/v1/chat/completions", &completion("[[usage 0 0]]", &json!({}))).await.status, 200);
    server.terminate();
    assert!(server.ended(PATIENCE).success());
    let after = books.account("acme");
    assert_eq!((after.holds, after.held), (0, 0));
    assert_eq!(after.day, before.day + before.held, "each was charged in full, once");
    books.assert_whole();
}
