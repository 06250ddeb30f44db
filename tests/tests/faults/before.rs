//! Faults before the first piece of an answer: nothing was said, so nothing is kept and nothing is charged.

use std::time::Duration;

use bytes::Bytes;
use enigma_conformance::client::session;
use enigma_conformance::wire::{Move, cancelled};
use futures_util::future::join_all;

use crate::{Bench, ask, assert_discreet, assert_well, name};

const ERROR: (u16, &str) = (502, "ai_error");
const TIMEOUT: (u16, &str) = (504, "ai_timeout");

/// A fault: its name, what the provider does, what the client is told, and how often the provider was called for it.
type Fault = (&'static str, Vec<Move>, (u16, &'static str), usize);

fn noise(length: usize) -> Bytes {
    // Bytes of all kinds, line ends among them.
    let mut state = 0x2545_f491_u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    (0..length).map(next).collect()
}

/// What goes wrong on the wire.
fn of_the_wire() -> Vec<Fault> {
    let events = Move::events;
    let json = || Move::head(200, &[("content-type", "application/json")]);
    let now = Duration::ZERO;
    let soon = Duration::from_millis(50);
    let kibibytes = |byte: u8| Bytes::from(vec![byte; 64 * 1024]);
    vec![
        ("reset before the head", vec![Move::Reset], ERROR, 2),
        ("closed before the head", vec![], ERROR, 2),
        ("reset within the head", vec![Move::text("HTTP/1.1 200 OK\r\ncontent-t"), Move::Reset], ERROR, 2),
        ("reset after the head", vec![events(), Move::Reset], ERROR, 2),
        ("closed after the head", vec![events()], ERROR, 2),
        ("silent before the head", vec![Move::Hang], TIMEOUT, 2),
        ("silent within the head", vec![Move::text("HTTP/1.1 200 OK\r\n"), Move::Hang], TIMEOUT, 2),
        ("silent after the head", vec![events(), Move::Hang], TIMEOUT, 2),
        ("comments for ever", vec![events(), Move::Repeat(Bytes::from_static(b": ping\n\n"), soon)], TIMEOUT, 2),
        ("empty events for ever", vec![events(), Move::Repeat(Bytes::from_static(b"data: {}\n\n"), soon)], TIMEOUT, 2),
        (
            "an event byte by byte",
            vec![events(), Move::text("data: "), Move::Repeat(Bytes::from_static(b"x"), soon)],
            TIMEOUT,
            2,
        ),
        ("a head without end", vec![Move::text("HTTP/1.1 200 OK\r\n"), Move::Repeat(kibibytes(b'x'), now)], ERROR, 2),
        (
            "headers without end",
            vec![Move::text("HTTP/1.1 200 OK\r\n"), Move::Repeat("x-more: secret\r\n".repeat(4096).into(), now)],
            ERROR,
            2,
        ),
        ("a line without end", vec![events(), Move::Repeat(kibibytes(b'x'), now)], ERROR, 2),
        ("not HTTP", vec![Move::text("SSH-2.0-OpenSSH_9.9\r\n"), Move::Hang], ERROR, 2),
        ("noise for an answer", vec![Move::Send(noise(4096))], ERROR, 2),
        (
            "noise for events",
            vec![events(), Move::text("data: "), Move::Send(noise(4096)), Move::text("\n\n")],
            ERROR,
            2,
        ),
        ("half of JSON", vec![events(), Move::text("data: {\"choices\": [secret\n\n")], ERROR, 2),
        ("JSON of another shape", vec![events(), Move::text("data: {\"choices\": \"secret\"}\n\n")], ERROR, 2),
        ("a number for an event", vec![events(), Move::text("data: 7\n\n")], ERROR, 2),
        ("no answer but the end", vec![events(), Move::done()], ERROR, 2),
        (
            "an error in the stream",
            vec![events(), Move::text("data: {\"error\":{\"message\":\"secret\"}}\n\n")],
            ERROR,
            2,
        ),
        ("a picture", vec![Move::head(200, &[("content-type", "image/png")]), Move::Send(noise(512))], ERROR, 2),
        ("a page", vec![Move::head(200, &[("content-type", "text/html")]), Move::text("<html>secret")], ERROR, 2),
        ("no content", vec![Move::head(204, &[])], ERROR, 2),
        ("a whole answer cut short", vec![json(), Move::text("{\"choices\":[{\"message\":{\"cont")], ERROR, 2),
        (
            "less than was announced",
            vec![
                Move::head(200, &[("content-type", "application/json"), ("content-length", "4096")]),
                Move::text("{\"choices\":[{\"message\":{\"content\":\"hi\"},\"finish_reason\":\"stop\"}]}"),
            ],
            ERROR,
            2,
        ),
        ("a whole answer without end", vec![json(), Move::Repeat(kibibytes(b' '), now)], ERROR, 2),
        (
            "compressed, though nobody asked for it",
            vec![
                Move::head(200, &[("content-type", "text/event-stream"), ("content-encoding", "gzip")]),
                Move::Send(Bytes::from_static(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff")),
                Move::Repeat(kibibytes(0), now),
            ],
            ERROR,
            2,
        ),
        ("an error page without end", vec![Move::head(500, &[]), Move::Repeat(kibibytes(b's'), now)], ERROR, 2),
        ("an error that falls silent", vec![Move::head(500, &[]), Move::Hang], TIMEOUT, 2),
        (
            "an error that breaks off",
            vec![Move::head(500, &[]), Move::text("{\"error\": \"sec"), Move::Reset],
            ERROR,
            2,
        ),
        (
            "elsewhere",
            vec![Move::head(307, &[("location", "http://127.0.0.1:9/secret")]), Move::text("secret")],
            ERROR,
            1,
        ),
    ]
}

/// What a provider refuses by a status.
fn of_statuses() -> Vec<Fault> {
    let mut faults = Vec::new();
    // A wish to wait for longer than the request may take is a refusal.
    for status in [429, 503] {
        let head = Move::head(status, &[("retry-after", "3600")]);
        faults.push(("wait for an hour", vec![head, Move::text("{}")], ERROR, 1));
    }
    for (status, told, calls) in [
        (400, ERROR, 1),
        (401, ERROR, 1),
        (402, ERROR, 1),
        (403, ERROR, 1),
        (404, ERROR, 1),
        (408, TIMEOUT, 2),
        (409, ERROR, 1),
        (413, ERROR, 1),
        (418, ERROR, 1),
        (422, ERROR, 1),
        (429, ERROR, 2),
        (500, ERROR, 2),
        (502, ERROR, 2),
        (503, ERROR, 2),
        (504, TIMEOUT, 2),
        (529, ERROR, 2),
    ] {
        let said = r#"{"error":{"message":"the secret prompt","type":"server_error","code":"no_secret"}}"#;
        faults.push(("a status", vec![Move::head(status, &[]), Move::text(said)], told, calls));
    }
    faults
}

#[tokio::test]
async fn what_fails_before_an_answer_is_told_and_costs_nothing() {
    let faults = [of_the_wire(), of_statuses()].concat();
    let bench = &Bench::new("before", faults.len());
    join_all(faults.into_iter().enumerate().map(async |(fault, (what, moves, (status, code), calls))| {
        let model = name(fault, "before");
        let what = format!("{what}: {:?}", moves.first());
        bench.wire.script(&model, [moves]);
        let api = bench.server.tenant(&model);
        // Four failures would open the breaker: two requests, each tried twice.
        for (n, stream) in [(1, true), (2, false)] {
            let session = session();
            let answer = ask(&api, &session, &model, stream).await;
            assert_eq!(answer.status, status, "{what}: {answer:?}");
            assert!(answer.error(status, code).is_null(), "{what}");
            assert_discreet(&answer);
            assert_eq!(bench.wire.calls(&model).len(), n * calls, "{what}");
            api.assert_unknown(&session).await;
        }
        let seen = bench.wire.calls(&model);
        assert!(seen.iter().all(|call| !call.headers.contains_key("accept-encoding")), "{what}");
        // Nobody goes on talking to a provider whose answer is not wanted any more.
        bench.wire.all_ended(&model).await;
        if code == TIMEOUT.1 && what.contains("silent") {
            assert_eq!(cancelled(&seen), seen.len(), "{what}");
        }
        let ending = if code == TIMEOUT.1 { "timed_out" } else { "failed" };
        bench.books.settled(&model).await;
        let records = bench.books.recorded(&model);
        assert_eq!(records.len(), 2, "{what}");
        for record in records {
            assert_eq!((record.ending.as_str(), record.charged, record.overrun), (ending, 0, 0), "{what}");
            assert_eq!((record.model.as_str(), record.tokens), (model.as_str(), (0, 0)), "{what}");
        }
        bench.assert_spent(&model, 0).await;
    }))
    .await;
    assert_well(&bench.server, "before-0").await;
}
