//! Faults in the middle of an answer: what was said is told, kept and charged, and nothing is tried again.

use std::time::Duration;

use bytes::Bytes;
use enigma_conformance::client::session;
use enigma_conformance::wire::Move;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{Bench, MESSAGE, ask, assert_discreet, assert_well, body, estimate, name};

const SAID: &str = "Hello there";

/// What a client is told after the pieces.
enum End {
    /// An error and its code.
    Error(&'static str),
    /// All is well: what went wrong came after the answer.
    Whole,
}

/// After `SAID`.
fn faults() -> Vec<(&'static str, Vec<Move>, End)> {
    let soon = Duration::from_millis(50);
    let error = || End::Error("ai_error");
    let timeout = || End::Error("ai_timeout");
    vec![
        ("reset", vec![Move::Pause(soon), Move::Reset], error()),
        ("closed", vec![], error()),
        ("closed within an event", vec![Move::text("data: {\"choices\":[{\"delta\":{\"content\":\"mo")], error()),
        ("silent", vec![Move::Hang], timeout()),
        ("silent within an event", vec![Move::text("data: {\"choices\""), Move::Hang], timeout()),
        ("comments for ever", vec![Move::Repeat(Bytes::from_static(b": ping\n\n"), soon)], timeout()),
        ("byte by byte for ever", vec![Move::text("data: "), Move::Repeat(Bytes::from_static(b" "), soon)], timeout()),
        ("half of JSON", vec![Move::text("data: {\"choices\": [secret\n\n")], error()),
        ("JSON of another shape", vec![Move::text("data: [\"secret\"]\n\n")], error()),
        (
            "not UTF-8",
            vec![Move::Send(Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n"))],
            error(),
        ),
        ("a line without end", vec![Move::Repeat(Bytes::from(vec![b'x'; 65_536]), Duration::ZERO)], error()),
        ("an error", vec![Move::event(&json!({ "error": { "message": "secret", "code": 500 } }))], error()),
        ("reset after the end", vec![Move::finish(), Move::Pause(soon), Move::Reset], End::Whole),
        ("noise after the end", vec![Move::finish(), Move::done(), Move::text("data: {secret\n\n")], End::Whole),
        ("silent after the end", vec![Move::finish(), Move::Hang], End::Whole),
        ("no finish reason", vec![Move::done()], End::Whole),
        ("no last word", vec![Move::finish()], End::Whole),
    ]
}

async fn kept(bench: &Bench, tenant: &str, session: &str) -> Vec<Value> {
    let history = bench.server.tenant(tenant).history(session).await.ok();
    history["messages"].as_array().unwrap().clone()
}

fn assert_kept(what: &str, messages: &[Value], answer: &str, is_whole: bool) {
    assert_eq!(messages.len(), 2, "{what}: {messages:?}");
    assert_eq!((&messages[0]["role"], &messages[0]["content"]), (&json!("user"), &json!(MESSAGE)), "{what}");
    assert_eq!((&messages[1]["role"], &messages[1]["content"]), (&json!("assistant"), &json!(answer)), "{what}");
    assert_eq!(messages[1].get("truncated").is_none(), is_whole, "{what}: {messages:?}");
}

#[tokio::test]
async fn what_fails_within_an_answer_is_told_kept_and_charged() {
    let faults = faults();
    let bench = &Bench::new("during", faults.len());
    join_all(faults.into_iter().enumerate().map(async |(fault, (what, after, end))| {
        let model = name(fault, "during");
        let mut moves = vec![Move::events(), Move::piece("Hello "), Move::piece("there")];
        moves.extend(after);
        bench.wire.script(&model, [moves]);
        let api = bench.server.tenant(&model);
        let (streamed, whole) = (session(), session());

        let finished = api.open("/chat", &body(&streamed, &model, true)).await.finish().await;
        assert_eq!((finished.text.as_str(), finished.pieces), (SAID, 2), "{what}");
        let answer = ask(&api, &whole, &model, false).await;
        let ending = match end {
            End::Error(code) => {
                assert_eq!(finished.error.as_ref().expect(what)["code"], code, "{what}");
                assert_eq!(finished.done["finishReason"], "error", "{what}");
                let status = if code == "ai_timeout" { 504 } else { 502 };
                answer.error(status, code);
                assert_discreet(&answer);
                if code == "ai_timeout" { "timed_out" } else { "failed" }
            }
            End::Whole => {
                assert!(finished.error.is_none(), "{what}: {finished:?}");
                assert_eq!(finished.done["finishReason"], "stop", "{what}");
                assert_eq!(answer.ok()["message"], SAID, "{what}");
                "finished"
            }
        };
        assert_eq!(finished.done["usage"]["tokensOut"], estimate(SAID), "{what}");
        for session in [&streamed, &whole] {
            assert_kept(what, &kept(bench, &model, session).await, SAID, matches!(end, End::Whole));
        }
        assert_eq!(bench.wire.calls(&model).len(), 2, "{what}: a piece was seen already");
        bench.wire.all_ended(&model).await;
        let cost = estimate(MESSAGE) + estimate(SAID);
        bench.books.settled(&model).await;
        let records = bench.books.recorded(&model);
        assert_eq!(records.len(), 2, "{what}");
        for record in records {
            assert_eq!((record.ending.as_str(), record.charged, record.overrun), (ending, cost, 0), "{what}");
            assert_eq!(record.tokens, (estimate(MESSAGE), estimate(SAID)), "{what}");
        }
        bench.assert_spent(&model, 2 * cost).await;
    }))
    .await;
    assert_well(&bench.server, "during-0").await;
}

/// A model that never stops is stopped: by the size of its answer when it is fast, by the request's time when it is slow.
#[tokio::test]
async fn an_answer_without_end_is_ended() {
    let bench = &Bench::new("endless", 2);
    let (fast, slow) = (name(0, "endless"), name(1, "endless"));
    let Move::Send(piece) = Move::piece("more ") else { unreachable!("a piece is bytes") };
    bench.wire.script(&fast, [vec![Move::events(), Move::Repeat(piece.clone(), Duration::ZERO)]]);
    bench.wire.script(&slow, [vec![Move::events(), Move::Repeat(piece, Duration::from_millis(500))]]);
    let ended = async |model: &str, reason: &str, code: Option<&str>, ending: &str| {
        let session = session();
        let finished = bench.server.tenant(model).open("/chat", &body(&session, model, true)).await.finish().await;
        assert_eq!(finished.done["finishReason"], reason, "{finished:?}");
        assert_eq!(finished.error.as_ref().map(|error| &error["code"]), code.map(|code| json!(code)).as_ref());
        // 16 bytes for each token of its cap of 100, 4 KiB, and the piece that was too many.
        assert!(finished.text.len() <= 16 * 100 + 4096 + 5, "{} bytes", finished.text.len());
        bench.wire.all_ended(model).await;
        let messages = kept(bench, model, &session).await;
        assert_kept(model, &messages, &finished.text, code.is_none());
        let cost = estimate(MESSAGE) + estimate(&finished.text);
        let account = bench.books.settled(model).await;
        assert_eq!((account.day, account.month), (cost, cost), "{model}");
        let records = bench.books.recorded(model);
        let [record] = &records[..] else { panic!("{records:?}") };
        assert_eq!((record.ending.as_str(), record.charged), (ending, cost), "{model}");
        bench.assert_spent(model, cost).await;
    };
    tokio::join!(ended(&fast, "length", None, "finished"), ended(&slow, "error", Some("ai_timeout"), "timed_out"),);
    assert_well(&bench.server, &fast).await;
}
