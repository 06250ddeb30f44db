//! Models that fail: another try, another model, a breaker, a timeout.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::Host;
use crate::client::{Answer, Api, session, tag};
use crate::host::settings;
use crate::tenant::Tenant;
use crate::upstream::{Ended, words};

const NO_ANSWERS: [(&str, &str); 8] = [
    ("models-html", "[[html]]"),
    ("models-garbage", "[[garbage]]"),
    ("models-empty", "[[cut]]"),
    ("models-401", "[[status 401]]"),
    ("models-404", "[[status 404]]"),
    ("models-429", "[[status 429]]"),
    ("models-500", "[[status 500]]"),
    ("models-error", "[[error event]]"),
];

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    vec![
        Tenant::new("models-retry").only_models(&[
            "models-retry-1",
            "models-retry-2",
            "models-retry-3",
            "models-retry-4",
        ]),
        Tenant::new("models-wait").model("models-wait"),
        Tenant::new("models-fallback").model("models-spare"),
        Tenant::new("models-none").only_models(&["models-alone"]),
        Tenant::new("models-wrong").only_models(&NO_ANSWERS.map(|(model, _)| model)),
        Tenant::new("models-refused").model("models-refused-spare"),
        Tenant::new("models-breaker").model("models-breaker"),
        Tenant::new("models-slow").model("models-slow").with("tokenBudget", json!({ "daily": 200 })),
    ]
}

fn body(session: &str, message: &str, model: &str) -> Value {
    json!({ "sessionId": session, "message": message, "stream": false, "modelId": model })
}

async fn ask(api: &Api, message: &str, model: &str) -> Answer {
    api.post("/chat", &body(&session(), message, model)).await
}

/// Whatever may pass, as long as nothing of an answer was seen.
pub async fn a_failing_model_is_tried_again(host: &Host) {
    let api = host.tenant("models-retry");
    for (n, failure) in ["[[status 500]]", "[[status 503]]", "[[cut]]", "[[html]]"].into_iter().enumerate() {
        let (model, tag) = (format!("models-retry-{}", n + 1), tag());
        host.upstream.script(&model, &[failure, "[[tokens 2]]"]);
        let answer = ask(&api, &tag, &model).await;
        assert_eq!(answer.ok()["message"], words(2), "{failure}");
        assert_eq!(answer.header("x-model-id"), Some(&*model));
        assert_eq!(host.upstream.calls(&tag).len(), 2, "{failure}");
    }
}

/// `Retry-After`
pub async fn the_models_wish_to_wait_is_kept(host: &Host) {
    let (api, tag) = (host.tenant("models-wait"), tag());
    host.upstream.script("models-wait", &["[[status 429 retry-after 1]]", "[[tokens 2]]"]);
    api.chat(&session(), &tag).await.ok();
    let calls = host.upstream.calls(&tag);
    assert_eq!(calls.len(), 2);
    let pause = calls[1].at - calls[0].at;
    assert!(pause >= Duration::from_millis(990), "only {pause:?}");
}

/// The tenant's own model steps in, and is named.
pub async fn the_fallback_answers_for_a_failed_model(host: &Host) {
    let (api, tag) = (host.tenant("models-fallback"), tag());
    host.upstream.script("models-broken", &["[[status 500]]"]);
    let session = session();
    let answer = api.post("/chat", &body(&session, &tag, "models-broken")).await;
    assert_eq!(answer.ok()["message"], words(3));
    assert_eq!(answer.header("x-model-id"), Some("models-spare"));
    assert_eq!(answer.json()["usage"]["modelId"], "models-spare");
    let asked: Vec<_> = host.upstream.calls(&tag).iter().map(|call| call.model.clone()).collect();
    assert_eq!(asked, ["models-broken", "models-broken", "models-spare"]);
    assert_eq!(api.said(&session).await.len(), 2);
    // A model that is not there at all is replaced without a second try.
    let tag = crate::client::tag();
    host.upstream.script("models-missing", &["[[status 404]]"]);
    let stream = api.open("/chat", &json!({ "sessionId": session, "message": tag, "modelId": "models-missing" })).await;
    assert_eq!(stream.headers["x-model-id"], "models-spare");
    assert_eq!(stream.finish().await.done["usage"]["modelId"], "models-spare");
    assert_eq!(host.upstream.calls(&tag).len(), 2);
}

/// The allow-list holds for the fallback as well.
pub async fn a_fallback_that_is_not_allowed_is_not_used(host: &Host) {
    let (api, tag) = (host.tenant("models-none"), tag());
    host.upstream.script("models-alone", &["[[status 500]]"]);
    ask(&api, &tag, "models-alone").await.error(502, "ai_error");
    let asked: Vec<_> = host.upstream.calls(&tag).iter().map(|call| call.model.clone()).collect();
    assert_eq!(asked, ["models-alone"; settings::MAX_ATTEMPTS]);
}

/// 502, streamed or not, and not a word of what the provider said.
pub async fn what_is_no_answer_is_an_error(host: &Host) {
    let api = host.tenant("models-wrong");
    for (model, marker) in NO_ANSWERS {
        for stream in [true, false] {
            let session = session();
            let mut body = body(&session, marker, model);
            body["stream"] = stream.into();
            let answer = api.post("/chat", &body).await;
            assert!(answer.error(502, "ai_error").is_null(), "{marker}");
            for secret in ["as the script says", "scripted", "guest network", "out of memory", "127.0.0.1"] {
                assert!(!answer.text.contains(secret), "{answer:?}");
            }
            answer.number("x-ratelimit-remaining");
            api.assert_unknown(&session).await;
        }
    }
}

/// It would be refused again, by any model.
pub async fn a_refused_call_is_not_tried_again(host: &Host) {
    let api = host.tenant("models-refused");
    for status in [400, 413, 422] {
        let tag = tag();
        let model = format!("models-refused-{status}");
        host.upstream.script(&model, &[&format!("[[status {status}]]")]);
        ask(&api, &tag, &model).await.error(502, "ai_error");
        assert_eq!(host.upstream.calls(&tag).len(), 1, "{status}");
    }
}

/// Until the breaker closes, nobody waits for it.
pub async fn a_model_that_keeps_failing_is_left_alone(host: &Host) {
    let (api, tag) = (host.tenant("models-breaker"), tag());
    let mut script = vec!["[[status 500]]"; settings::BREAKER_FAILURES];
    script.push("[[tokens 2]]");
    host.upstream.script("models-breaker", &script);
    for _ in 0..settings::BREAKER_FAILURES / settings::MAX_ATTEMPTS {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    let opened = Instant::now();
    assert_eq!(host.upstream.calls(&tag).len(), settings::BREAKER_FAILURES);
    for _ in 0..3 {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    assert!(opened.elapsed() < settings::BREAKER_OPEN, "too slow to see the breaker open");
    assert_eq!(host.upstream.calls(&tag).len(), settings::BREAKER_FAILURES, "it was asked all the same");
    tokio::time::sleep_until(opened + settings::BREAKER_OPEN + Duration::from_millis(50)).await;
    assert_eq!(api.chat(&session(), &tag).await.ok()["message"], words(2), "a probe closes it");
    api.chat(&session(), &tag).await.ok();
}

/// 504, and each try is ended at the model.
pub async fn a_model_that_never_begins_is_given_up(host: &Host) {
    let (api, tag, session) = (host.tenant("models-slow"), tag(), session());
    let message = format!("{tag}[[hang before first]]");
    let started = Instant::now();
    api.chat(&session, &message).await.error(504, "ai_timeout");
    let took = started.elapsed();
    let tries = u32::try_from(settings::MAX_ATTEMPTS).unwrap();
    assert!(took >= settings::FIRST_TOKEN_TIMEOUT * tries, "given up after {took:?}");
    assert!(took < settings::FIRST_TOKEN_TIMEOUT * tries + Duration::from_secs(3), "given up after {took:?}");
    let calls = host.upstream.calls(&tag);
    assert_eq!(calls.len(), settings::MAX_ATTEMPTS);
    for call in &calls {
        host.upstream
            .call_where(&tag, "was cancelled", |other| other.at == call.at && other.ended() == Some(Ended::Cancelled))
            .await;
    }
    api.assert_unknown(&session).await;
    // Nothing was charged.
    super::budgets::spend(&api.without("x-user-id"), 200, (1, 1)).await;
}
