//! Token budgets: reserved before, settled after.

use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, Time};

use crate::Host;
use crate::client::{Api, session, tag};
use crate::host::settings;
use crate::tenant::Tenant;

/// The tenants of these cases.
pub fn tenants() -> Vec<Tenant> {
    let daily = |id: &str, tokens: u64| Tenant::new(id).with("tokenBudget", json!({ "daily": tokens }));
    vec![
        daily("budget-exact", 1000),
        daily("budget-held", 250),
        daily("budget-failed", 500).only_models(&FAILING.map(|(model, _)| model)),
        Tenant::new("budget-month").with("tokenBudget", json!({ "daily": 5000, "monthly": 1000 })),
        daily("budget-faces", 1000),
    ]
}

const FAILING: [(&str, &str); 6] = [
    ("budget-failed-1", "[[status 500]]"),
    ("budget-failed-2", "[[status 400]]"),
    ("budget-failed-3", "[[html]]"),
    ("budget-failed-4", "[[cut]]"),
    ("budget-failed-5", "[[garbage]]"),
    ("budget-failed-6", "[[usage 1 1]]"),
];

/// What a prompt reserves.
pub(super) fn prompt_tokens(message: &str) -> u64 {
    message.chars().count().div_ceil(4) as u64
}

/// Asks for an answer so long that the reservation is exactly `tokens`, which is refused.
pub(super) async fn assert_refused(api: &Api, tokens: u64, period: &str) {
    let message = "probe";
    let more = json!({ "max_tokens": tokens - prompt_tokens(message) });
    let answer = api.complete(message, &more).await;
    answer.openai_error(429, "budget_exceeded", "insufficient_quota");
    // The native face says when the budget starts anew; it asks for a fixed number of tokens.
    if tokens <= prompt_tokens(message) + settings::DEFAULT_MAX_TOKENS {
        let session = session();
        let details = api.chat(&session, message).await.error(429, "budget_exceeded");
        assert_eq!(details["period"], period, "{details}");
        let resets = OffsetDateTime::parse(details["resetsAt"].as_str().unwrap(), &Rfc3339).unwrap();
        let now = OffsetDateTime::now_utc();
        assert_eq!(resets.to_offset(time::UtcOffset::UTC).time(), Time::MIDNIGHT);
        assert!(resets > now, "{resets} is past");
        match period {
            "daily" => assert!((resets - now).whole_days() < 1, "{resets} is not tomorrow"),
            _ => assert_eq!((resets.day(), (resets - now).whole_days() <= 31), (1, true), "{resets}"),
        }
        api.assert_unknown(&session).await;
    }
}

/// Asks for an answer so long that the reservation is exactly `tokens`, which is granted; the answer then costs `tokens`
/// or whatever `usage` says.
pub(super) async fn spend(api: &Api, tokens: u64, usage: (u64, u64)) {
    let message = format!("[[usage {} {}]]", usage.0, usage.1);
    let more = json!({ "max_tokens": tokens - prompt_tokens(&message) });
    let answer = api.complete(&message, &more).await.object();
    assert_eq!(answer["usage"]["total_tokens"], usage.0 + usage.1);
}

/// Not one token more, and not one less.
pub async fn exactly_the_budget_can_be_spent(host: &Host) {
    let api = host.tenant("budget-exact");
    assert_refused(&api, 1001, "daily").await;
    spend(&api, 1000, (7, 9)).await;
    // 16 of 1000 are spent: the rest of the reservation came back.
    assert_refused(&api, 985, "daily").await;
    spend(&api, 984, (300, 600)).await;
    // 916 are spent. An estimate counts like any other number.
    let estimated = "[[say 12345678]]";
    let body = json!({ "max_tokens": 80 - prompt_tokens(estimated) });
    let used = api.complete(estimated, &body).await.object()["usage"]["total_tokens"].as_u64().unwrap();
    assert_eq!(used, prompt_tokens(estimated) + 2);
    let left = 84 - used;
    assert_refused(&api, left + 1, "daily").await;
    spend(&api, left, (left, 0)).await;
    // Nothing is left at all.
    assert_refused(&api, 2 + prompt_tokens("probe"), "daily").await;
    let refused = api.chat(&session(), "hello").await;
    refused.error(429, "budget_exceeded");
    assert!(refused.number("retry-after") > 1);
    refused.number("x-ratelimit-remaining");
}

/// Two at once cannot both have what is left.
pub async fn a_reservation_counts_while_the_answer_runs(host: &Host) {
    let api = host.tenant("budget-held");
    let (gate, tag) = (tag(), tag());
    let message = format!("[[tokens 1]][[gate {gate}]][[usage 10 10]]");
    let reserved = prompt_tokens(&message) + settings::DEFAULT_MAX_TOKENS;
    let mut stream = api.chat_stream(&session(), &message).await;
    stream.text().await;
    let left = 250 - reserved;
    let more = |tokens: u64| json!({ "max_tokens": tokens - prompt_tokens(&tag) });
    api.complete(&tag, &more(left + 1)).await.openai_error(429, "budget_exceeded", "insufficient_quota");
    assert!(host.upstream.calls(&tag).is_empty());
    host.upstream.open(&gate);
    stream.finish().await;
    // Settled before `done`: 20 of 250.
    assert_refused(&api, 231, "daily").await;
    spend(&api, 230, (1, 1)).await;
}

/// Of a call that gave no answer nothing is charged, and nothing stays held.
pub async fn a_failed_call_costs_nothing(host: &Host) {
    let api = host.tenant("budget-failed");
    let (good, failing) = FAILING.split_last().unwrap();
    for (model, marker) in failing {
        let body = json!({ "sessionId": session(), "message": marker, "stream": false, "modelId": model });
        api.post("/chat", &body).await.error(502, "ai_error");
    }
    let more = |tokens: u64| json!({ "model": good.0, "max_tokens": tokens - prompt_tokens(good.1) });
    let refused = api.complete(good.1, &more(501)).await;
    refused.openai_error(429, "budget_exceeded", "insufficient_quota");
    api.complete(good.1, &more(500)).await.object();
}

/// The tighter budget decides, and is named.
pub async fn the_month_is_counted_too(host: &Host) {
    let api = host.tenant("budget-month");
    spend(&api, 1000, (400, 540)).await;
    assert_refused(&api, 61, "monthly").await;
    spend(&api, 60, (1, 1)).await;
}

/// Streamed and whole, native and OpenAI: one ledger.
pub async fn both_faces_spend_from_one_budget(host: &Host) {
    let api = host.tenant("budget-faces");
    let message = "[[usage 50 50]]";
    api.chat(&session(), message).await.ok();
    assert!(api.chat_stream(&session(), message).await.finish().await.error.is_none());
    api.complete(message, &json!({})).await.object();
    api.complete_stream(message, &Value::Null).await.rest().await;
    assert_refused(&api, 601, "daily").await;
    spend(&api, 600, (1, 1)).await;
}
