//! The official OpenAI SDK for Python, unmodified, against the native server.

use std::path::Path;
use std::process::Command;

use enigma_conformance::tenant::key_of;
use enigma_conformance::{ServerConfig, Tenant, Upstream, python};
use serde_json::json;

/// The first start may have to fetch the weights.
const WITH_WEIGHTS: std::time::Duration = std::time::Duration::from_secs(600);

fn check(arguments: &[&str]) -> String {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let python = python::interpreter(&place.join("requirements.txt"));
    let output = python::run(Command::new(python).arg(place.join("sdk_check.py")).args(arguments));
    assert_eq!(output.lines().last(), Some("done"), "{output}");
    output
}

#[test]
fn the_sdk_chats_streams_speaks_and_reads_errors() {
    let upstream = Upstream::start();
    let server = ServerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(
            &Tenant::new("sdk")
                .with("aiModels", json!({ "chat": "sdk-broken", "tts": "tts-1" }))
                .with("featureFlags", json!({ "tts_enabled": true })),
        )
        .tenant(&Tenant::new("sdk-limited").with("rateLimit", json!({ "perMinute": 2 })))
        .tenant(&Tenant::new("sdk-spent").with("tokenBudget", json!({ "daily": 100 })))
        .start();
    let base_url = format!("{}/v1", server.base_url);
    check(&["scripted", &base_url, &key_of("sdk"), &key_of("sdk-limited"), &key_of("sdk-spent")]);
}

#[test]
fn the_sdk_talks_to_a_real_model() {
    const MODEL: &str = "smollm2-135m-instruct";
    let server = ServerConfig::new()
        .set("ondevice.model_id", MODEL)
        .set("ondevice.pull", true)
        .set("models.first_token_timeout_seconds", 60)
        .set("models.idle_timeout_seconds", 30)
        .tenant(&Tenant::new("demo").model(MODEL))
        .start_within(WITH_WEIGHTS);
    check(&["ondevice", &format!("{}/v1", server.base_url), &key_of("demo"), MODEL]);
}
