use super::*;

const TODAY: &str = r#"{
    "tenantId": "example",
    "accountId": "0123456789abcdef",
    "aiGatewayId": "example-gateway",
    "aiModels": { "chat": "@cf/meta/llama-3.1-8b-instruct", "embeddings": "@cf/baai/bge-base-en-v1.5" },
    "vectorizeNamespace": "example-ns",
    "rateLimit": { "perMinute": 120, "burst": 20, "windowSec": 60, "burstWindowSec": 5 },
    "tokenBudget": { "daily": 100000, "monthly": 2000000 },
    "sessionRetentionDays": 7,
    "maxMessagesPerSession": 50,
    "featureFlags": { "modelAllowList": true, "tools_enabled": false },
    "allowedModels": ["@cf/meta/llama-3.1-8b-instruct"],
    "allowedHosts": ["Example.COM", "127.0.0.1:8787"],
    "apiKeys": ["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]
}"#;

fn with(change: impl FnOnce(&mut serde_json::Value)) -> Result<Tenant, TenantConfigError> {
    let mut value: serde_json::Value = serde_json::from_str(TODAY).unwrap();
    change(&mut value);
    Tenant::from_json(&value.to_string())
}

#[test]
fn every_field_of_todays_files_is_read() {
    let tenant = Tenant::from_json(TODAY).unwrap();
    assert_eq!(tenant.id().as_str(), "example");
    assert_eq!(tenant.ai_gateway_id(), Some("example-gateway"));
    assert_eq!(tenant.account_id(), Some("0123456789abcdef"));
    assert_eq!(tenant.vectorize_namespace(), "example-ns");
    assert_eq!(tenant.embedding_model().unwrap().as_str(), "@cf/baai/bge-base-en-v1.5");
    assert_eq!(tenant.user_window().sustained, Window { limit: 120, length: Duration::from_secs(60) });
    assert_eq!(tenant.user_window().burst, Window { limit: 20, length: Duration::from_secs(5) });
    assert_eq!(tenant.tenant_window().sustained.limit, 1200);
    assert_eq!(tenant.budget().monthly, Some(2_000_000));
    assert_eq!(*tenant.retention(), Retention { days: 7, max_messages: 50 });
    assert!(tenant.hosts().contains("example.com") && tenant.hosts().contains("127.0.0.1"));
    assert_eq!(tenant.keys()[0].hash, KeyHash::of("abc"));
    assert_eq!(tenant.auth_mode(), AuthMode::ApiKey);
    assert!(!tenant.allows_model(&"other".parse().unwrap()));
}

#[test]
fn defaults_are_the_documented_ones() {
    let tenant = Tenant::from_json(r#"{ "tenantId": "a", "aiModels": { "chat": "m" } }"#).unwrap();
    assert_eq!(*tenant.retention(), Retention { days: 30, max_messages: 1000 });
    assert_eq!(tenant.user_window().sustained, Window { limit: 60, length: Duration::from_secs(60) });
    assert_eq!(tenant.user_window().burst, Window { limit: 60, length: Duration::from_secs(10) });
    assert_eq!(tenant.concurrency().max_streams, 64);
    assert_eq!(tenant.auth_mode(), AuthMode::ApiKey, "without keys nobody gets in, rather than everybody");
    assert_eq!(tenant.vectorize_namespace(), "a");
}

#[test]
fn a_bad_field_is_named_with_its_reason() {
    use serde_json::json;
    type Change = fn(&mut serde_json::Value);
    let cases: [(&str, &str, Change); 18] = [
        ("apiKeys", "must be a list", |t| t["apiKeys"] = json!("a-plain-key")),
        (".", "unknown field ``", |t| t[""] = json!(7)),
        ("apiKeys[0]", "unknown field `scope`", |t| t["apiKeys"][0] = json!({ "hash": "sha256:00", "scope": [] })),
        ("apiKeys[0]", "invalid type", |t| t["apiKeys"][0] = json!(7)),
        ("tenantId", "1 to 63", |t| t["tenantId"] = json!("Bad Id")),
        (".", "unknown field `colour`", |t| t["colour"] = json!("red")),
        ("rateLimit.perSecond", "unknown field", |t| t["rateLimit"]["perSecond"] = json!(1)),
        ("rateLimit.perMinute", "1 to 1000000", |t| t["rateLimit"]["perMinute"] = json!(0)),
        ("rateLimit.burst", "invalid type", |t| t["rateLimit"]["burst"] = json!("ten")),
        ("rateLimit.burstWindowSec", "1 to 60", |t| t["rateLimit"]["burstWindowSec"] = json!(61)),
        ("apiKeys[0]", "sha256:", |t| t["apiKeys"][0] = json!("a-plain-key")),
        ("apiKeys[1]", "twice", |t| t["apiKeys"] = json!([t["apiKeys"][0], t["apiKeys"][0]])),
        ("allowedHosts[0]", "without scheme", |t| t["allowedHosts"][0] = json!("https://example.com/")),
        ("allowedHosts[1]", "twice", |t| t["allowedHosts"] = json!(["a.example", "A.example:80"])),
        ("auth.mode", "unknown variant", |t| t["auth"] = json!({ "mode": "none" })),
        ("cors.allowedOrigins[0]", "allowCredentials", |t| {
            t["cors"] = json!({ "allowedOrigins": ["*"], "allowCredentials": true });
        }),
        ("tokenBudget.daily", "1 to", |t| t["tokenBudget"]["daily"] = json!(0)),
        ("aiModels.chat", "visible ASCII", |t| t["aiModels"]["chat"] = json!("")),
    ];
    for (field, reason, change) in cases {
        let error = with(change).unwrap_err();
        assert!(error.field == field || (field == "." && error.field == "colour"), "{field}: got {error:?}");
        assert!(error.reason.contains(reason), "{field}: got {error:?}");
        assert!(!error.to_string().contains("a-plain-key"), "a key must not be repeated: {error}");
    }
    assert!(Tenant::from_json("{").is_err());
    assert!(Tenant::from_json(&format!("{TODAY} x")).is_err());
}

#[test]
fn a_key_may_carry_a_name_scopes_and_an_expiry() {
    let tenant = with(|t| {
        t["apiKeys"] = serde_json::json!([{
            "id": "ci", "hash": KeyHash::of("k").to_string(), "scopes": ["chat", "admin"], "expiresAt": "2026-12-01T00:00:00Z"
        }]);
    })
    .unwrap();
    let key = &tenant.keys()[0];
    assert_eq!(key.id.as_str(), "ci");
    assert!(key.scopes.contains(Scope::Admin) && !key.scopes.contains(Scope::Tools));
    let end = Timestamp::parse_rfc3339("2026-12-01T00:00:00Z").unwrap();
    assert!(!key.is_live(end) && key.is_live(end.saturating_sub(Duration::from_millis(1))));
}
