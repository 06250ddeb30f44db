//! Attacks on time and memory.

use std::time::Duration;

use bytes::Bytes;
use enigma_conformance::client::{Answer, session, tag};
use enigma_conformance::raw;
use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use crate::Stage;

/// How many slow clients there are.
const SLOW_CLIENTS: usize = 300;
/// How long a slow client may keep its place, when the server is told two seconds.
const MOST_SLOWNESS: Duration = Duration::from_secs(12);
/// The longest answer to a request that is refused.
const MOST_REFUSAL: usize = 16 * 1024;

/// Sends a byte now and then until the host has had enough. Returns how long that took, and what it said.
async fn trickle(base_url: &str, first: &str, more: &str) -> (Duration, String) {
    let began = Instant::now();
    let stream = raw::connect(base_url).await;
    let (mut reader, mut writer) = stream.into_split();
    let writing = async {
        let _ = writer.write_all(first.as_bytes()).await;
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            if writer.write_all(more.as_bytes()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let mut read = Vec::new();
    let reading = async {
        let _ = reader.read_to_end(&mut read).await;
    };
    tokio::select! {
        () = writing => {}
        () = reading => {}
        () = tokio::time::sleep(MOST_SLOWNESS * 2) => {}
    }
    (began.elapsed(), String::from_utf8_lossy(&read).into_owned())
}

/// Slow heads, slow bodies of a known and of an unknown length, all at the same time.
#[tokio::test]
async fn three_hundred_slow_clients_lose_their_places() {
    let stage = Stage::with(|config| {
        config.set("server.header_read_timeout_seconds", 2).set("server.body_read_timeout_seconds", 2)
    });
    let base_url = &stage.server.base_url;
    let sized = stage.head("/chat", &[("content-length", "1000")]);
    let chunked = stage.head("/chat", &[("transfer-encoding", "chunked")]);
    let slow = (0..SLOW_CLIENTS).map(|n| match n % 4 {
        0 => trickle(base_url, "GET /health HTTP/1.1\r\nhost: x\r\nx: ", "x"),
        1 => trickle(base_url, "", "G"),
        2 => trickle(base_url, &sized, " "),
        _ => trickle(base_url, &chunked, "1\r\n \r\n"),
    });
    let before = stage.neighbour.answered();
    for (took, read) in join_all(slow).await {
        assert!(took < MOST_SLOWNESS, "a slow client kept its place for {took:?}: {read}");
        assert!(!read.contains("HTTP/1.1 2"), "{read}");
    }
    assert!(stage.neighbour.answered() > before, "the neighbour had to wait for the slow ones");
    stage.end().await;
}

/// Connections that are opened and left alone, or begin a long head and leave it.
#[tokio::test]
async fn heads_that_are_begun_and_left_cost_little() {
    let stage = Stage::new();
    let begun = format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}", "x".repeat(30_000));
    let connections = join_all((0..SLOW_CLIENTS).map(async |_| {
        let mut stream = raw::connect(&stage.server.base_url).await;
        stream.write_all(begun.as_bytes()).await.unwrap();
        stream
    }))
    .await;
    let before = stage.neighbour.answered();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stage.neighbour.answered() > before, "the neighbour had to wait for them");
    drop(connections);
    stage.end().await;
}

/// Bodies without an end, with a length that says so and without one.
#[tokio::test]
async fn bodies_without_an_end_are_cut() {
    let stage = Stage::new();
    let chunk = format!("{:x}\r\n{}\r\n", 65_536, "x".repeat(65_536));
    let sized = stage.head("/chat", &[("content-length", "10000000000")]);
    let chunked = stage.head("/v1/chat/completions", &[("transfer-encoding", "chunked")]);
    let uploads = [&sized, &chunked].into_iter().cycle().take(16).map(async |head: &String| {
        let stream = raw::connect(&stage.server.base_url).await;
        let (mut reader, mut writer) = stream.into_split();
        let (mut sent, mut read) = (0_usize, Vec::new());
        let writing = async {
            let _ = writer.write_all(head.as_bytes()).await;
            while writer.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
            }
        };
        let reading =
            async { tokio::time::timeout(Duration::from_secs(20), reader.read_to_end(&mut read)).await.is_ok() };
        let (ended, ()) = tokio::join!(reading, writing);
        assert!(ended, "the connection stays open");
        (sent, String::from_utf8_lossy(&read).into_owned())
    });
    for (sent, read) in join_all(uploads).await {
        assert!(sent < 64 << 20, "{sent} bytes were taken in");
        // A client that goes on sending may lose the answer to the reset of its connection.
        assert!(read.is_empty() || raw::statuses(&read) == [413], "{read}");
    }
    stage.end().await;
}

/// JSON that is deep, long or large in one respect, within the bytes that are allowed.
fn bombs() -> Vec<(&'static str, String)> {
    const ROOM: usize = 60_000;
    let (chat, id) = (|more: &str| format!("{{\"sessionId\":\"{}\",\"message\":\"x\",{more}}}", session()), session());
    let completion = |more: &str| {
        format!("{{\"model\":\"scripted\",\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}],{more}}}")
    };
    let times = |text: &str| text.repeat(ROOM / text.len() - 4);
    let list = |text: &str| times(&format!("{text},")).trim_end_matches(',').to_owned();
    let deep = |open: &str, close: &str, inner: &str| {
        let depth = ROOM / (open.len() + close.len()) - 10;
        format!("{}{inner}{}", open.repeat(depth), close.repeat(depth))
    };
    vec![
        ("open brackets", times("[")),
        ("open braces", times("{\"a\":")),
        ("deep lists", deep("[", "]", "0")),
        ("deep objects", chat(&format!("\"tool_params\":{}", deep("{\"a\":", "}", "0")))),
        ("a deep schema", completion(&format!("\"response_format\":{}", deep("{\"json_schema\":", "}", "0")))),
        ("deep parts", completion(&format!("\"tools\":{}", deep("[{\"function\":", "}]", "0")))),
        ("a long number", chat(&format!("\"stream\":{}", times("9")))),
        ("a long fraction", completion(&format!("\"temperature\":0.{}", times("3") + "e400"))),
        ("a large exponent", completion("\"temperature\":1e999999999")),
        ("a huge cap", completion("\"max_tokens\":18446744073709551615")),
        ("messages that are none", format!("{{\"model\":\"m\",\"messages\":[{}]}}", list("0"))),
        ("empty messages", format!("{{\"model\":\"m\",\"messages\":[{}]}}", list("{}"))),
        ("messages of robots", format!("{{\"model\":\"m\",\"messages\":[{}]}}", list("{\"role\":\"robot\"}"))),
        (
            "empty parts",
            format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"user\",\"content\":[{}]}}]}}", list("{}")),
        ),
        (
            "calls that are none",
            format!("{{\"model\":\"m\",\"messages\":[{{\"role\":\"assistant\",\"tool_calls\":[{}]}}]}}", list("{}")),
        ),
        ("tools that are none", completion(&format!("\"tools\":[{}]", list("{}")))),
        (
            "thousands of tools",
            completion(&format!("\"tools\":[{}]", list("{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"))),
        ),
        ("stops", completion(&format!("\"stop\":[{}]", list("\"x\"")))),
        ("the same name", format!("{{{}}}", list(&format!("\"sessionId\":\"{id}\"")))),
        ("many names", format!("{{{}}}", (0..6000).map(|n| format!("\"{n}\":0")).collect::<Vec<_>>().join(","))),
        ("escapes", format!("{{\"message\":\"{}\"}}", times("\\u0000"))),
        ("half a character", chat("\"userId\":\"\\ud800\"")),
        ("a long model", completion(&format!("\"model\":\"{}\"", times("m")))),
    ]
}

async fn both_faces(stage: &Stage, body: &Bytes) -> [Answer; 2] {
    let api = stage.attacker();
    let send = async |path| api.send(Method::POST, path, Some(("application/json", body.clone()))).await;
    [send("/chat").await, send("/v1/chat/completions").await]
}

/// Each is refused at once, and the refusal is short.
#[tokio::test]
async fn json_bombs_are_refused_in_a_few_words() {
    let stage = Stage::new();
    for (what, body) in bombs() {
        assert!(body.len() <= 65_536, "{what} is {} bytes", body.len());
        let (body, began) = (Bytes::from(body), Instant::now());
        for answer in both_faces(&stage, &body).await {
            assert_eq!(answer.status, 400, "{what}: {:.300}", answer.text);
            assert!(answer.text.len() <= MOST_REFUSAL, "{what}: an answer of {} bytes", answer.text.len());
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{what} took {:?}", began.elapsed());
    }
    stage.end().await;
}

/// All of them, many times, at once.
#[tokio::test]
async fn many_json_bombs_at_once_take_little_memory() {
    let stage = Stage::new();
    let bombs: Vec<_> = bombs().into_iter().map(|(_, body)| Bytes::from(body)).collect();
    let all = bombs.iter().cycle().take(bombs.len() * 8).map(|body| both_faces(&stage, body));
    for answers in join_all(all).await {
        assert!(answers.iter().all(|answer| answer.status == 400), "{answers:?}");
    }
    stage.end().await;
}

/// What looks deep and is within bounds is served: the bound is the parser's, and not a rule of thumb.
#[tokio::test]
async fn a_deep_schema_within_bounds_reaches_the_model() {
    let (stage, tag) = (Stage::new(), tag());
    let deep = |depth| (0..depth).fold(json!(0), |inner, _| json!({ "a": inner }));
    let tools = json!([{ "type": "function", "function": { "name": "f", "parameters": deep(100) } }]);
    stage.attacker().complete(&tag, &json!({ "tools": tools })).await.object();
    let call = stage.upstream.call(&tag).await;
    assert_eq!(call.body["tools"], tools);
    stage.end().await;
}

/// A tenant that uses up all that it may takes nothing from the others.
#[tokio::test]
async fn a_tenant_that_takes_all_it_may_takes_nothing_of_others() {
    let stage = Stage::new();
    let api = stage.attacker();
    let hanging: Vec<_> = join_all((0..64).map(async |_| {
        let mut reply = api.chat_stream(&session(), "[[tokens 1]][[hang]]").await;
        reply.text().await;
        reply
    }))
    .await;
    api.chat(&session(), "one more").await.error(429, "too_many_streams");
    stage.victim().chat(&session(), "hello").await.ok();
    let floods = (0..300).map(async |_| api.chat(&session(), "flood").await.status);
    for status in join_all(floods).await {
        assert_eq!(status, 429);
    }
    drop(hanging);
    stage.end().await;
}

/// Names without end: users, sessions and keys of requests.
#[tokio::test]
async fn names_without_end_fill_the_attackers_own_room() {
    let stage = Stage::new();
    let chat = async |n: usize| {
        let name = format!("{n}-{}", "n".repeat(200));
        let body = json!({ "sessionId": session(), "message": "x", "stream": false, "userId": name });
        stage.attacker().with("idempotency-key", &name).post("/chat", &body).await.status
    };
    let mut statuses = Vec::new();
    // As many at a time as a tenant may have answers under way.
    for some in (0..600).collect::<Vec<_>>().chunks(50) {
        statuses.extend(join_all(some.iter().map(|n| chat(*n))).await);
    }
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let list: Value = stage.victim().get("/sessions").await.ok();
    assert_eq!(list["sessions"], json!([]));
    stage.end().await;
}
