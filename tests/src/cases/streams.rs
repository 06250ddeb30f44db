//! Answers that do not come to their end, or not at once.

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, Instant};

use super::budgets::{assert_refused, prompt_tokens, spend};
use crate::Host;
use crate::client::{Api, session, tag};
use crate::host::settings;
use crate::raw;
use crate::tenant::{Tenant, key_of};
use crate::upstream::{PATIENCE, words};

const BREAKS: [(&str, &str); 4] = [
    ("streams-cut", "[[cut after 2]]"),
    ("streams-garbage", "[[tokens 2]][[garbage]]"),
    ("streams-error", "[[tokens 2]][[error event]]"),
    ("streams-end", "[[tokens 2]][[no finish]]"),
];

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> =
        ["streams-order", "streams-pieces", "streams-comments", "streams-slow"].map(Tenant::new).into();
    tenants.extend(["streams-break", "streams-silent"].map(|id| Tenant::new(id).model(id)));
    tenants.push(Tenant::new("streams-ways").only_models(&BREAKS.map(|(model, _)| model)));
    let budget = |id: &str| Tenant::new(id).with("tokenBudget", json!({ "daily": 1000 }));
    tenants.extend(["streams-gone", "streams-early", "streams-whole"].map(budget));
    tenants
}

/// Asserts that a session holds one turn, whose answer is `answer` and was cut short.
async fn assert_truncated(api: &Api, session: &str, answer: &str) {
    let history = api.history(session).await.ok();
    let messages = history["messages"].as_array().unwrap();
    assert_eq!(messages.len(), 2, "{history}");
    assert_eq!((&messages[0]["role"], messages[0].get("truncated")), (&json!("user"), None));
    assert_eq!((&messages[1]["role"], &messages[1]["truncated"]), (&json!("assistant"), &json!(true)));
    assert_eq!(messages[1]["content"], answer);
}

fn assert_failure(error: Option<&Value>, code: &str, trace: &str) {
    let error = error.expect("no error event");
    let mut fields: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["code", "message", "traceId"]);
    assert_eq!((&error["code"], &error["traceId"]), (&json!(code), &json!(trace)));
}

/// An error, then `done`; what was said is kept, and nothing is tried again.
pub async fn an_answer_that_breaks_off_is_kept_truncated(host: &Host) {
    let api = host.tenant("streams-break").with("x-trace-id", "broken-1");
    let (session, tag) = (session(), tag());
    let finished = api.chat_stream(&session, &format!("{tag}[[cut after 3]]")).await.finish().await;
    assert_eq!((finished.text.as_str(), finished.pieces), (&*words(3), 3));
    assert_failure(finished.error.as_ref(), "ai_error", "broken-1");
    assert_eq!(finished.done["finishReason"], "error");
    assert_eq!(finished.done["usage"]["tokensOut"], words(3).len().div_ceil(4));
    assert_truncated(&api, &session, &words(3)).await;
    assert_eq!(host.upstream.calls(&tag).len(), 1, "a piece was seen already");
    // In one piece there is nothing to show of it, but it is kept all the same.
    let session = crate::client::session();
    let answer = api.chat(&session, &format!("{tag}[[cut after 3]]")).await;
    answer.error(502, "ai_error");
    answer.number("x-ratelimit-remaining");
    assert_truncated(&api, &session, &words(3)).await;
}

/// The connection, the JSON, the provider's own word, the missing end.
pub async fn every_way_of_breaking_off_is_told(host: &Host) {
    let api = host.tenant("streams-ways").with("x-trace-id", "ways");
    for (model, marker) in BREAKS {
        let session = session();
        let body = json!({ "sessionId": session, "message": marker, "modelId": model });
        let finished = api.open("/chat", &body).await.finish().await;
        assert_eq!(finished.text, words(2), "{marker}");
        assert_failure(finished.error.as_ref(), "ai_error", "ways");
        assert_truncated(&api, &session, &words(2)).await;
    }
}

/// The model is told as soon as the host knows; what it said is kept and billed.
pub async fn a_client_that_goes_ends_the_models_work(host: &Host) {
    let api = host.tenant("streams-gone");
    let (session, tag) = (session(), tag());
    let message = format!("{tag}[[tokens 2]][[hang]]");
    let mut reply = api.chat_stream(&session, &message).await;
    assert_eq!([reply.text().await, reply.text().await].concat(), words(2));
    let left = Instant::now();
    drop(reply);
    let call = host.upstream.cancelled(&tag).await;
    let took = call.ended_at().unwrap() - left;
    assert!(took < host.platform.notices_gone_within, "the model worked on for {took:?}");
    // The session's next turn comes after the bookkeeping of this one.
    api.chat(&session, "[[usage 5 5]]").await.ok();
    let history = api.history(&session).await.ok();
    assert_eq!(history["messages"][1]["content"], words(2));
    assert_eq!(history["messages"][1]["truncated"], true);
    assert_eq!(history["messages"].as_array().unwrap().len(), 4);
    let used = prompt_tokens(&message) + prompt_tokens(&words(2)) + 10;
    assert_refused(&api, 1000 - used + 1, "daily").await;
    spend(&api, 1000 - used, (1, 1)).await;
}

/// Also one that waits for the answer in one piece.
pub async fn a_client_that_does_not_stream_may_go_too(host: &Host) {
    let api = host.tenant("streams-whole");
    let (session, tag) = (session(), tag());
    let message = format!("{tag}[[tokens 2]][[hang]]");
    let body = json!({ "sessionId": session, "message": message, "stream": false }).to_string();
    let sent = words(2).len();
    tokio::select! {
        answer = api.begin(Method::POST, "/chat", Some(("application/json", Bytes::from(body)))) => {
            panic!("answered: {:?}", answer.map(|reply| reply.status))
        }
        // Both pieces have left, and the model is silent from here on.
        () = async {
            host.upstream.call(&tag).await;
            while host.upstream.calls(&tag)[0].sent() < sent {
                tokio::task::yield_now().await;
            }
            // The host shows nothing of what it has read; its own silence is not over yet.
            tokio::time::sleep(Duration::from_millis(500)).await;
        } => {}
    }
    host.upstream.cancelled(&tag).await;
    api.chat(&session, "hello").await.ok();
    let history = api.history(&session).await.ok();
    assert_eq!(history["messages"].as_array().unwrap().len(), 4, "{history}");
    assert_eq!(
        (&history["messages"][1]["content"], &history["messages"][1]["truncated"]),
        (&json!(words(2)), &json!(true))
    );
    let used = prompt_tokens(&message) + prompt_tokens(&words(2));
    let second = prompt_tokens(&message) + prompt_tokens(&words(2)) + prompt_tokens("hello") + prompt_tokens(&words(3));
    assert_refused(&api, 1000 - used - second + 1, "daily").await;
    spend(&api, 1000 - used - second, (1, 1)).await;
}

/// The model has read the prompt; nothing else is charged, and nothing is kept. A host that does not notice gives the model up
/// as it would for a client that waits, and charges nothing.
pub async fn a_client_that_goes_before_the_answer_costs_its_prompt(host: &Host) {
    let api = host.tenant("streams-early");
    let notices = host.platform.notices_gone_early;
    let mut used = 0;
    for stream in [true, false] {
        let (session, tag) = (session(), tag());
        let message = format!("{tag}[[hang before first]]");
        let body = json!({ "sessionId": session, "message": message, "stream": stream }).to_string();
        tokio::select! {
            answer = api.begin(Method::POST, "/chat", Some(("application/json", Bytes::from(body)))) => {
                panic!("answered: {:?}", answer.map(|reply| reply.status))
            }
            _ = host.upstream.call(&tag) => {}
        }
        let left = Instant::now();
        let call = host.upstream.cancelled(&tag).await;
        let took = call.ended_at().unwrap() - left;
        let most =
            if notices { Duration::from_secs(1) } else { settings::FIRST_TOKEN_TIMEOUT + Duration::from_secs(1) };
        assert!(took < most, "the model worked on for {took:?}");
        api.chat(&session, "[[usage 5 5]]").await.ok();
        assert_eq!(api.said(&session).await.len(), 2);
        used += 10 + if notices { prompt_tokens(&message) } else { 0 };
    }
    assert_refused(&api, 1000 - used + 1, "daily").await;
    spend(&api, 1000 - used, (1, 1)).await;
}

/// The second sees the first whole.
pub async fn turns_of_a_session_wait_for_each_other(host: &Host) {
    let api = host.tenant("streams-order");
    let (session, tag) = (session(), tag());
    let first = format!("{tag} first [[tokens 1]][[gate {tag}]][[tokens 2]]");
    let second = format!("{tag} second [[say later]]");
    let free = api.remaining().await;
    let mut running = api.chat_stream(&session, &first).await;
    assert_eq!(running.text().await, words(1));
    let (waiting, ()) = tokio::join!(api.chat(&session, &second), async {
        // Its slot shows that the second has come.
        api.remaining_falls_to(free - 2).await;
        assert!(host.upstream.calls(&second).is_empty(), "the second did not wait");
        // Other sessions do not wait.
        api.chat(&crate::client::session(), "elsewhere").await.ok();
        assert!(host.upstream.calls(&second).is_empty(), "the second did not wait");
        host.upstream.open(&tag);
        running.finish().await;
    });
    waiting.ok();
    let answer = words(1) + &words(2);
    let call = host.upstream.call(&second).await;
    assert_eq!(call.contents(), [&*first, &*answer, &*second]);
    let said: Vec<_> = api.said(&session).await.into_iter().map(|(_, content)| content).collect();
    assert_eq!(said, [&*first, &*answer, &*second, "later"]);
    // A deletion waits as well, so that the turn does not bring the session back.
    let gate = crate::client::tag();
    let mut running = api.chat_stream(&session, &format!("[[tokens 1]][[gate {gate}]][[tokens 1]]")).await;
    running.text().await;
    let path = format!("/chat/{session}");
    let (deleted, ()) = tokio::join!(api.delete(&path), async {
        host.upstream.open(&gate);
        running.finish().await;
    });
    deleted.ok();
    api.assert_unknown(&session).await;
    // Even one that nobody waits for any more.
    let session = crate::client::session();
    let gate = crate::client::tag();
    api.chat(&session, "hello").await.ok();
    let mut running = api.chat_stream(&session, &format!("[[tokens 1]][[gate {gate}]][[tokens 1]]")).await;
    running.text().await;
    let path = format!("/chat/{session}");
    // Long enough for the request to arrive.
    let gone = tokio::time::timeout(Duration::from_secs(1), api.delete(&path)).await;
    assert!(gone.is_err(), "the deletion did not wait");
    host.upstream.open(&gate);
    running.finish().await;
    let end = Instant::now() + PATIENCE;
    while api.history(&session).await.status != 404 {
        assert!(Instant::now() < end, "the deletion was forgotten");
    }
}

/// Each piece is here before the model makes the next.
pub async fn pieces_leave_as_they_come(host: &Host) {
    let api = host.tenant("streams-pieces");
    for openai in [false, true] {
        let tag = tag();
        let gates = (0..5).map(|n| format!("[[say piece {n}]][[gate {tag}-{n}]]")).collect::<Vec<_>>().concat();
        let mut reply = if openai {
            api.complete_stream(&gates, &json!({})).await
        } else {
            api.chat_stream(&session(), &gates).await
        };
        for n in 0..5 {
            assert_eq!(reply.text().await, format!("piece {n}"));
            host.upstream.open(&format!("{tag}-{n}"));
        }
        assert!(!reply.rest().await.is_empty());
    }
}

/// `: keep-alive`
pub async fn silence_is_filled_with_comments(host: &Host) {
    let api = host.tenant("streams-comments");
    let pause = settings::KEEP_ALIVE * 5 / 2;
    let message = format!("[[tokens 1]][[pause {}]][[tokens 1]]", pause.as_millis());
    let (native, openai) = tokio::join!(async { api.chat_stream(&session(), &message).await.rest().await }, async {
        api.complete_stream(&message, &json!({})).await.rest().await
    },);
    for events in [native, openai] {
        let comments: Vec<_> = events.iter().filter_map(|event| event.comment.as_deref()).collect();
        assert!((1..=3).contains(&comments.len()), "{events:?}");
        assert!(comments.iter().all(|comment| *comment == "keep-alive"), "{comments:?}");
        assert!(events[0].text().is_some() && events[1].comment.is_some(), "{events:?}");
        let silence = events[1].at - events[0].at;
        assert!(silence < settings::KEEP_ALIVE + Duration::from_secs(1), "{silence:?} of silence");
    }
}

/// `ai_timeout`, after the pieces that came.
pub async fn a_model_that_falls_silent_is_given_up(host: &Host) {
    let api = host.tenant("streams-silent").with("x-trace-id", "silent");
    let (session, tag) = (session(), tag());
    let finished = api.chat_stream(&session, &format!("{tag}[[tokens 2]][[hang]]")).await.finish().await;
    assert_eq!(finished.text, words(2));
    assert_failure(finished.error.as_ref(), "ai_timeout", "silent");
    assert_eq!(finished.done["finishReason"], "error");
    host.upstream.cancelled(&tag).await;
    assert_truncated(&api, &session, &words(2)).await;
}

/// The model is read no faster than the client reads, and a client that never does counts as gone.
pub async fn a_client_that_reads_nothing_costs_nothing(host: &Host) {
    const PIECES: usize = 200_000; // of a kibibyte and more
    const BOUND: usize = 32 << 20; // half of what an answer of so many tokens may have
    let api = host.tenant("streams-slow");
    let (session, tag) = (session(), tag());
    let question = json!({ "role": "user", "content": format!("{tag}[[flood {PIECES}]]") });
    let body =
        json!({ "model": "scripted", "messages": [question], "stream": true, "max_tokens": settings::MAX_TOKENS });
    let body = body.to_string();
    let (key, length) = (key_of("streams-slow"), body.len().to_string());
    let headers = [
        ("x-api-key", &*key),
        ("x-session-id", &*session),
        ("content-type", "application/json"),
        ("content-length", &*length),
    ];
    let mut connection = raw::connect(&host.base_url).await;
    let request = raw::head(&host.base_url, "POST", "/v1/chat/completions", &headers) + &body;
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut first = [0; 16];
    connection.read_exact(&mut first).await.unwrap();
    assert_eq!(&first[..12], b"HTTP/1.1 200");

    // From here on nothing is read, and the connection stays open.
    let started = Instant::now();
    let call = host.upstream.cancelled(&tag).await;
    let took = call.ended_at().unwrap() - started;
    assert!(took + Duration::from_secs(1) >= settings::SEND_TIMEOUT, "given up after {took:?}");
    assert!(call.sent() < BOUND, "{} bytes were read for a client that reads nothing", call.sent());
    let end = Instant::now() + PATIENCE;
    while api.history(&session).await.status == 404 {
        assert!(Instant::now() < end, "what was generated is not kept");
    }
    let history = api.history(&session).await.ok();
    assert_eq!(history["messages"][1]["truncated"], true);
    drop(connection);
}
