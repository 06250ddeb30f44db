use super::*;
use enigma_core::ModelId;
use enigma_core::tenant::{KeyHash, TenantClaim};
use serde_json::{Value, json};
use tempfile::TempDir;

const LENIENT: Rules<'static> = Rules { production: false, serves: None, tokens: TokenSupport::UrlsAndFiles };

fn minimal(id: &str) -> Value {
    json!({ "tenantId": id, "aiModels": { "chat": "m" } })
}

fn with(id: &str, field: &str, value: Value) -> Value {
    let mut tenant = minimal(id);
    tenant[field] = value;
    tenant
}

fn directory(tenants: &[(&str, String)]) -> TempDir {
    let directory = TempDir::new().unwrap();
    for (name, text) in tenants {
        fs::create_dir(directory.path().join(name)).unwrap();
        fs::write(directory.path().join(name).join(FILE_NAME), text).unwrap();
    }
    directory
}

/// What is wrong, as `directory: field: reason`.
fn refusals(tenants: &[(&str, Value)], rules: Rules<'_>) -> Vec<String> {
    let tenants: Vec<_> = tenants.iter().map(|(name, value)| (*name, value.to_string())).collect();
    let directory = directory(&tenants);
    let Err(Problems(problems)) = load(directory.path(), rules) else { return vec![] };
    let name = |path: &Path| path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    problems.iter().map(|p| format!("{}: {}: {}", name(&p.file), p.field, p.reason)).collect()
}

#[track_caller]
fn assert_refused(tenants: &[(&str, Value)], rules: Rules<'_>, expected: &[(&str, &str)]) {
    let refusals = refusals(tenants, rules);
    assert_eq!(refusals.len(), expected.len(), "{refusals:#?}");
    for (refusal, (start, part)) in refusals.iter().zip(expected) {
        assert!(refusal.starts_with(start) && refusal.contains(part), "expected {start} … {part}, got {refusal}");
    }
}

#[test]
fn tenants_are_found_by_what_their_files_say() {
    let hash = KeyHash::of("k");
    let directory = directory(&[
        ("acme", with("acme", "apiKeys", json!([hash.to_string()])).to_string()),
        ("globex", with("globex", "allowedHosts", json!(["globex.example"])).to_string()),
    ]);
    fs::create_dir(directory.path().join(".git")).unwrap();
    fs::write(directory.path().join("README.md"), "not a tenant").unwrap();

    let loaded = load(directory.path(), LENIENT).unwrap();
    let ids: Vec<_> = loaded.tenants().iter().map(|tenant| tenant.id().to_string()).collect();
    assert_eq!(ids, ["acme", "globex"]);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(
        matches!(&warnings[..], [only] if only.ends_with("apiKeys: there is no key, so nobody gets in")),
        "{warnings:?}"
    );
    assert_eq!(loaded.index.find(&TenantClaim::Key(hash)).unwrap().id().as_str(), "acme");
}

#[test]
fn what_may_be_meant_is_only_odd() {
    let mut tenant = with("acme", "featureFlags", json!({ "modelAllowList": true }));
    tenant["allowedModels"] = json!(["other"]);
    let directory = directory(&[("acme-files", tenant.to_string())]);
    let warnings = load(directory.path(), LENIENT).unwrap().warnings;
    let warnings: Vec<_> = warnings.iter().map(|w| (w.field.as_str(), w.reason.as_str())).collect();
    assert_eq!(
        warnings,
        [
            ("tenantId", "is acme, but the directory is called acme-files"),
            ("aiModels.chat", "model m is not in allowedModels, so only requests that name another are answered"),
            ("apiKeys", "there is no key, so nobody gets in"),
        ]
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_file_field_and_reason() {
    let tenants = [
        ("a", minimal("Bad Id")),
        ("b", with("b", "colour", json!("red"))),
        ("c", with("c", "rateLimit", json!({ "perMinute": 0 }))),
        ("d", minimal("d")),
    ];
    assert_refused(
        &tenants,
        LENIENT,
        &[("a: tenantId: ", "must be"), ("b: ", "unknown field `colour`"), ("c: rateLimit.perMinute: ", "must be")],
    );
}

#[test]
fn a_file_that_is_missing_unreadable_or_no_json_is_refused() {
    let directory = directory(&[("a", "{".to_owned()), ("b", "x".repeat(5 << 20))]);
    fs::create_dir(directory.path().join("c")).unwrap();
    let problems = load(directory.path(), LENIENT).unwrap_err().0;
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].reason.contains("EOF"), "{}", problems[0]);
    assert!(problems[1].reason.contains("longer than"), "{}", problems[1]);
    assert!(problems[2].file.ends_with("c/tenant.config.json") && problems[2].reason.contains("cannot be read"));
}

#[test]
fn a_directory_without_tenants_is_refused() {
    let empty = TempDir::new().unwrap();
    assert!(load(empty.path(), LENIENT).unwrap_err().to_string().contains("there is no tenant"));
    assert!(load(&empty.path().join("missing"), LENIENT).unwrap_err().to_string().contains("cannot be read"));
}

#[test]
fn one_id_host_or_key_belongs_to_one_tenant_and_every_clash_is_told() {
    let key = KeyHash::of("k").to_string();
    let tenants = [
        ("a", with("a", "allowedHosts", json!(["x.example"]))),
        ("b", with("b", "allowedHosts", json!(["X.example:443"]))),
        ("c", with("c", "apiKeys", json!([key]))),
        ("d", with("d", "apiKeys", json!([key]))),
        ("e", minimal("a")),
    ];
    assert_refused(
        &tenants,
        LENIENT,
        &[
            ("b: allowedHosts: ", "x.example already belongs to tenant a"),
            ("d: apiKeys: ", "already belongs to tenant c"),
            ("e: tenantId: ", "a already belongs to tenant a"),
        ],
    );
    assert!(!refusals(&tenants, LENIENT).join("").contains(&key), "the whole hash is not shown");
}

#[test]
fn an_open_tenant_is_refused_in_production_unless_it_says_so_twice() {
    let production = Rules { production: true, ..LENIENT };
    let open = with("a", "auth", json!({ "mode": "open" }));
    assert_refused(&[("a", open.clone())], production, &[("a: auth.mode: ", "open is refused in production")]);
    assert_refused(&[("a", open)], LENIENT, &[]);
    let meant = with("a", "auth", json!({ "mode": "open", "allowOpenInProduction": true }));
    assert_refused(&[("a", meant)], production, &[]);
}

#[test]
fn tokens_are_refused_where_nobody_checks_them_and_by_unprotected_keys_in_production() {
    let jwt = |url: &str| {
        let auth = json!({ "mode": "jwt", "issuer": "i", "audience": "a", "jwks": { "url": url } });
        with("a", "auth", auth)
    };
    let unable = Rules { tokens: TokenSupport::None, ..LENIENT };
    let protected = "https://keys.example/";
    assert_refused(&[("a", jwt(protected))], unable, &[("a: auth.mode: ", "jwt is not available on this host")]);
    assert_refused(&[("a", jwt(protected))], LENIENT, &[]);
    let production = Rules { production: true, ..LENIENT };
    let told = [("a: auth.jwks.url: ", "must be https in production")];
    assert_refused(&[("a", jwt("http://127.0.0.1/keys"))], production, &told);
    let incomplete = with("a", "auth", json!({ "mode": "jwt" }));
    assert_refused(&[("a", incomplete)], LENIENT, &[("a: auth.issuer: ", "must be there in mode jwt")]);
}

#[test]
fn a_model_that_nobody_serves_is_refused_where_it_is_named() {
    let serves = |_: &Tenant, model: &ModelId, _| model.as_str() == "served";
    let rules = Rules { serves: Some(&serves), ..LENIENT };
    assert_refused(&[("a", minimal("a"))], rules, &[("a: aiModels.chat: ", "nobody serves model m")]);
    let list = json!({
        "tenantId": "a", "aiModels": { "chat": "served" },
        "featureFlags": { "modelAllowList": true }, "allowedModels": ["served", "other"],
    });
    assert_refused(&[("a", list)], rules, &[("a: allowedModels: ", "nobody serves model other")]);
}
