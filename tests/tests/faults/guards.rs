//! What stands between clients and a model that fails: its breaker, and the limiter before an idempotency key.

use std::sync::Arc;
use std::time::Duration;

use enigma_conformance::client::{session, tag};
use enigma_conformance::host::settings;
use enigma_conformance::upstream::words;
use enigma_conformance::{Books, ServerConfig, Tenant, Upstream};
use futures_util::future::join_all;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Of those who come when the breaker's time is up, one probes. While it does nobody else gets through; when it succeeds
/// everybody does, and it takes as many failures as at first to open the breaker again.
#[tokio::test]
async fn one_probe_closes_a_breaker() {
    let (upstream, tag) = (Upstream::start(), tag());
    let tenant = Tenant::new("acme").model("probed");
    let server = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).start();
    let api = server.tenant("acme");
    let gated = format!("[[gate {tag}]]");
    let mut script = vec!["[[status 500]]"; settings::BREAKER_FAILURES];
    script.extend([gated.as_str(), "[[status 400]]", "[[status 500]]", "[[status 500]]", "[[tokens 2]]"]);
    upstream.script("probed", &script);
    for _ in 0..settings::BREAKER_FAILURES / settings::MAX_ATTEMPTS {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    let opened = Instant::now();
    assert_eq!(upstream.calls(&tag).len(), settings::BREAKER_FAILURES);
    tokio::time::sleep_until(opened + settings::BREAKER_OPEN + Duration::from_millis(50)).await;

    let session = session();
    let mut probing = JoinSet::new();
    probing.spawn({
        let (api, tag, session) = (api.clone(), tag.clone(), session.clone());
        async move { api.chat(&session, &tag).await }
    });
    let calls = settings::BREAKER_FAILURES + 1;
    let end = Instant::now() + enigma_conformance::upstream::PATIENCE;
    while upstream.calls(&tag).len() < calls {
        assert!(Instant::now() < end, "nobody probes");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let others = join_all((0..5).map(async |_| api.chat(&enigma_conformance::client::session(), &tag).await)).await;
    for answer in &others {
        answer.error(502, "ai_error");
    }
    assert_eq!(upstream.calls(&tag).len(), calls, "others got through beside the probe");
    upstream.open(&tag);
    assert_eq!(probing.join_next().await.unwrap().unwrap().ok()["message"], words(3));
    assert_eq!(api.said(&session).await.len(), 2);

    // Closed: a refusal passes, and so does what comes after fewer failures than it takes.
    let ask = async || api.chat(&enigma_conformance::client::session(), &tag).await;
    ask().await.error(502, "ai_error");
    ask().await.error(502, "ai_error");
    assert_eq!(ask().await.ok()["message"], words(2));
    assert_eq!(upstream.calls(&tag).len(), calls + 4);
}

/// A probe that fails opens the breaker at once, for its whole time.
#[tokio::test]
async fn a_failed_probe_opens_the_breaker_again() {
    let (upstream, tag) = (Upstream::start(), tag());
    let tenant = Tenant::new("acme").model("hopeless");
    let server = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).start();
    let api = server.tenant("acme");
    upstream.script("hopeless", &["[[status 500]]"]);
    let failures = settings::BREAKER_FAILURES;
    for _ in 0..failures / settings::MAX_ATTEMPTS {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    tokio::time::sleep(settings::BREAKER_OPEN + Duration::from_millis(50)).await;
    let probed = Instant::now();
    for _ in 0..3 {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    assert!(probed.elapsed() < settings::BREAKER_OPEN, "too slow to see the breaker open");
    assert_eq!(upstream.calls(&tag).len(), failures + 1);
}

/// A provider that asks for patience is well.
#[tokio::test]
async fn a_limit_of_the_provider_does_not_open_the_breaker() {
    let (upstream, tag) = (Upstream::start(), tag());
    let tenant = Tenant::new("acme").model("busy");
    let server = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).start();
    let api = server.tenant("acme");
    let requests = settings::BREAKER_FAILURES * 2;
    let mut script = vec!["[[status 429]]"; requests * settings::MAX_ATTEMPTS];
    script.push("[[tokens 2]]");
    upstream.script("busy", &script);
    for _ in 0..requests {
        api.chat(&session(), &tag).await.error(502, "ai_error");
    }
    assert_eq!(upstream.calls(&tag).len(), requests * settings::MAX_ATTEMPTS);
    assert_eq!(api.chat(&session(), &tag).await.ok()["message"], words(2));
}

/// Who has no slot left writes nothing: no key is taken, so the same key works when there is a slot again.
#[tokio::test]
async fn without_a_slot_no_idempotency_key_is_taken() {
    let (upstream, directory) = (Upstream::start(), Arc::new(tempfile::tempdir().unwrap()));
    let tenant = Tenant::new("acme").with("rateLimit", json!({ "perMinute": 2, "windowSec": 3, "burst": 2 }));
    let config = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).stored_in(&directory);
    let server = config.start();
    let books = Books::of(directory.path());
    let keys =
        || -> i64 { books.connect().query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)).unwrap() };
    let (api, tag) = (server.tenant("acme"), tag());
    let keyed = |key: &str| api.with("idempotency-key", key);
    let (first, late) = (session(), session());
    keyed("first").chat(&first, &tag).await.ok();
    api.chat(&session(), &tag).await.ok();
    assert_eq!(keys(), 1);
    let refused = keyed("late").chat(&late, &tag).await;
    refused.error(429, "rate_limited");
    // Not even a repeat is looked up, and a key that is in use is not told from a new one.
    keyed("first").chat(&first, &tag).await.error(429, "rate_limited");
    keyed("first").chat(&late, &tag).await.error(429, "rate_limited");
    assert_eq!(keys(), 1, "a refused request has written its key");
    assert_eq!(upstream.calls(&tag).len(), 2);
    tokio::time::sleep(Duration::from_secs(refused.number("retry-after")) + Duration::from_millis(100)).await;
    let answer = keyed("late").chat(&late, &tag).await;
    answer.ok();
    assert_eq!(answer.header("idempotency-replayed"), None);
    assert_eq!(keyed("first").chat(&first, &tag).await.header("idempotency-replayed"), Some("true"));
    assert_eq!(upstream.calls(&tag).len(), 3);
}
