//! Rate limits, and answers under way.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::Host;
use crate::client::{Answer, Api, session, tag};
use crate::tenant::Tenant;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let limited = |id: &str, limit: Value| Tenant::new(id).with("rateLimit", limit);
    vec![
        limited("limit-burst", json!({ "perMinute": 5, "burst": 3, "windowSec": 60, "burstWindowSec": 2 })),
        limited("limit-crowd", json!({ "perMinute": 20 })),
        limited("limit-users", json!({ "perMinute": 3, "tenant": { "perMinute": 5 } })),
        limited("limit-open", json!({ "perMinute": 3 })).open(),
        Tenant::new("limit-streams").with("concurrency", json!({ "maxStreams": 2 })),
    ]
}

fn now() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a client has no other clock than its system's")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Asserts that all headers say the same, and returns limit and remaining.
fn windows(answer: &Answer) -> (u64, u64) {
    let [limit, remaining, reset] =
        ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"].map(|name| answer.number(name));
    let field = |name: &str| answer.header(name).unwrap_or_else(|| panic!("no {name} in {answer:?}")).to_owned();
    let (status, policy) = (field("ratelimit"), field("ratelimit-policy"));
    assert!(status.starts_with(&format!("\"default\";r={remaining};t=")), "{status}");
    assert!(policy.starts_with(&format!("\"default\";q={limit};w=")), "{policy}");
    let seconds: u64 = status.rsplit('=').next().unwrap().parse().unwrap();
    // Both tell the same moment; two seconds are for rounding up and for the way here.
    let left = reset.saturating_sub(now()).div_ceil(1000);
    assert!(seconds.abs_diff(left) <= 2, "{seconds} s and {left} s");
    (limit, remaining)
}

/// The headers speak of the tighter window, and a refusal takes no slot of either.
pub async fn a_burst_ends_before_the_minute_does(host: &Host) {
    let api = host.tenant("limit-burst");
    let chat = async |session: &str| api.chat(session, "hello").await;
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(chat(&session()).await);
    }
    // All three within two seconds, or the burst window has moved on; even a busy machine is faster.
    let last = Instant::now();
    assert_eq!(answers.iter().map(windows).collect::<Vec<_>>(), [(3, 2), (3, 1), (3, 0)]);
    assert!(answers[0].header("ratelimit-policy").unwrap().ends_with(";w=2"));
    let (refused_session, tag) = (session(), tag());
    for _ in 0..3 {
        let refused = api.chat(&refused_session, &tag).await;
        assert!(refused.error(429, "rate_limited").is_null());
        assert_eq!(windows(&refused), (3, 0));
        assert!((1..=2).contains(&refused.number("retry-after")), "{refused:?}");
        let frees = refused.number("x-ratelimit-reset").saturating_sub(now());
        assert!(frees <= 2000, "a slot frees in {frees} ms only");
    }
    assert!(host.upstream.calls(&tag).is_empty());
    // History is not limited: what was written can be read.
    api.assert_unknown(&refused_session).await;

    // Until the last of the three has left the burst window, too.
    tokio::time::sleep_until(last + Duration::from_millis(2050)).await;
    let fourth = chat(&session()).await;
    fourth.ok();
    // The minute is the tighter one now: of its five, four are taken, and none by a refusal.
    assert_eq!(windows(&fourth), (5, 1));
    let fifth = chat(&session()).await;
    fifth.ok();
    assert_eq!(windows(&fifth), (5, 0));
    let sixth = chat(&session()).await;
    sixth.error(429, "rate_limited");
    assert_eq!(windows(&sixth), (5, 0));
    assert!((30..=60).contains(&sixth.number("retry-after")), "{sixth:?}");
}

/// 100 at once against a limit of 20.
pub async fn concurrent_requests_get_exactly_the_limit(host: &Host) {
    let tag = tag();
    let apis: Vec<Api> = (0..10).map(|_| host.tenant("limit-crowd")).collect();
    let sessions: Vec<_> = (0..100).map(|_| session()).collect();
    let asked = sessions.iter().zip(apis.iter().cycle()).map(|(session, api)| api.chat(session, &tag));
    let answers = join_all(asked).await;
    let (passed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(passed.len(), 20);
    for answer in &refused {
        answer.error(429, "rate_limited");
    }
    let mut remaining: Vec<_> = passed.iter().map(|answer| windows(answer).1).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, (0..20).collect::<Vec<_>>(), "each slot was given out once");
    assert_eq!(host.upstream.calls(&tag).len(), 20);
    for (session, answer) in sessions.iter().zip(&answers) {
        let history = apis[0].history(session).await;
        assert_eq!(history.status, if answer.status == 200 { 200 } else { 404 });
    }
}

/// One user's limit is nobody else's; the tenant's is everybody's.
pub async fn users_are_counted_apart_and_together(host: &Host) {
    let api = host.tenant("limit-users");
    let chat = async |user: &str| {
        let body = json!({ "sessionId": session(), "message": "hello", "stream": false, "userId": user });
        api.post("/chat", &body).await
    };
    for left in [2, 1, 0] {
        assert_eq!(windows(&chat("ada").await), (3, left));
    }
    chat("ada").await.error(429, "rate_limited");
    // The body wins over the header, so that the header is no way around.
    let body = json!({ "sessionId": session(), "message": "hello", "stream": false, "userId": "ada" });
    api.with("x-user-id", "someone").post("/chat", &body).await.error(429, "rate_limited");
    api.with("x-user-id", "ada").chat(&session(), "hello").await.error(429, "rate_limited");
    // Of the tenant's five, two are left.
    assert_eq!(windows(&chat("grace").await), (5, 1));
    assert_eq!(windows(&chat("alan").await), (5, 0));
    let refused = chat("edsger").await;
    refused.error(429, "rate_limited");
    assert_eq!(windows(&refused), (5, 0));
    api.complete("hello", &json!({ "user": "barbara" })).await.openai_error(429, "rate_limited", "rate_limit_error");
}

/// The address counts, whatever the caller says.
pub async fn nobody_without_credentials_escapes_by_a_name(host: &Host) {
    let api = host.anonymous().with("x-tenant-id", "limit-open");
    for n in 0..5 {
        let name = format!("user-{n}");
        let body = json!({ "sessionId": session(), "message": "hello", "stream": false, "userId": name });
        let disguised = api
            .with("x-user-id", &name)
            .with("x-forwarded-for", &format!("203.0.113.{n}"))
            .with("forwarded", &format!("for=203.0.113.{n}"))
            .with("x-real-ip", &format!("203.0.113.{n}"))
            .with("authorization", &format!("Bearer sk-{n}"));
        let answer = disguised.post("/chat", &body).await;
        if n < 3 {
            answer.ok();
        } else {
            answer.error(429, "rate_limited");
        }
    }
}

/// `concurrency.maxStreams`: streamed or not, on either face.
pub async fn answers_under_way_are_bounded(host: &Host) {
    let api = host.tenant("limit-streams");
    let (gate, other) = (tag(), tag());
    let held = format!("[[tokens 1]][[gate {gate}]][[tokens 1]]");
    let mut first = api.chat_stream(&session(), &held).await;
    first.text().await;
    let second = api.complete_stream(&held, &json!({})).await;
    let (session, tag) = (session(), tag());
    let refused = api.chat(&session, &tag).await;
    assert_eq!(refused.error(429, "too_many_streams"), json!({ "limit": 2 }));
    refused.number("x-ratelimit-remaining");
    let refused = api.complete(&tag, &json!({})).await;
    refused.openai_error(429, "too_many_streams", "rate_limit_error");
    assert!(host.upstream.calls(&tag).is_empty());
    api.assert_unknown(&session).await;
    // Another tenant is not concerned.
    host.tenant("limit-users").get("/health").await.ok();

    host.upstream.open(&gate);
    assert!(first.finish().await.error.is_none());
    second.rest().await;
    // `done` means done: the places are free.
    let one = api.chat_stream(&crate::client::session(), &format!("[[tokens 1]][[gate {other}]]")).await;
    let two = api.chat(&session, &tag).await;
    two.ok();
    host.upstream.open(&other);
    one.finish().await;
}
