use super::*;
use enigma_core::tenant::{KeyHash, TenantClaim, TokenSupport};
use proptest::prelude::*;
use serde_json::{Value, json};

const LENIENT: DeploymentRules<'static> =
    DeploymentRules { production: false, serves: None, tokens: TokenSupport::None };
const PRODUCTION: DeploymentRules<'static> = DeploymentRules { production: true, ..LENIENT };

fn tenant(id: &str, model: &str) -> Value {
    json!({ "tenantId": id, "aiModels": { "chat": model } })
}

fn document(tenants: &Value) -> String {
    json!({ "tenants": tenants }).to_string()
}

fn bundled(tenants: &Value) -> Document {
    Document::read(&document(tenants)).unwrap()
}

fn models(index: &TenantIndex) -> BTreeMap<String, String> {
    index.tenants().map(|tenant| (tenant.id().to_string(), tenant.chat_model().to_string())).collect()
}

/// What is wrong, as `tenant: field: reason`.
fn told(problems: Result<impl fmt::Debug, Vec<Problem>>) -> Vec<String> {
    problems.unwrap_err().iter().map(|p| format!("{}: {}: {}", p.tenant, p.field, p.reason)).collect()
}

#[test]
fn an_entry_replaces_adds_or_removes() {
    let bundled = bundled(&json!({ "a": tenant("a", "old"), "b": tenant("b", "old"), "c": tenant("c", "old") }));
    let changes = document(&json!({ "a": tenant("a", "new"), "b": null, "d": tenant("d", "new"), "e": null }));
    let index = merge(&bundled, Some(&changes), LENIENT).unwrap();
    let expected = [("a", "new"), ("c", "old"), ("d", "new")].map(|(id, model)| (id.to_owned(), model.to_owned()));
    assert_eq!(models(&index), expected.into());
    assert_eq!(models(&merge(&bundled, None, LENIENT).unwrap()).len(), 3);
}

#[test]
fn a_revoked_key_is_gone_with_the_entry_that_replaces_its_tenant() {
    let hash = KeyHash::of("k");
    let mut with_key = tenant("a", "m");
    with_key["apiKeys"] = json!([hash.to_string()]);
    let bundled = bundled(&json!({ "a": with_key }));
    let claim = TenantClaim::Key(hash);
    assert!(merge(&bundled, None, PRODUCTION).unwrap().find(&claim).is_some());
    let changes = document(&json!({ "a": tenant("a", "m") }));
    assert!(merge(&bundled, Some(&changes), PRODUCTION).unwrap().find(&claim).is_none());
}

#[test]
fn what_is_no_document_is_refused_and_not_quoted() {
    for text in ["", "sk-secret", "\"sk-secret\"", "{\"sk-secret\": 1}", "{\"tenants\": \"sk-secret\"}", "[]", "{}"] {
        let told = told(Document::read(text));
        assert!(told.len() == 1 && told[0].starts_with(": .: must be { \"tenants\": "), "{text}: {told:?}");
        assert!(!told[0].contains("secret"), "{told:?}");
    }
    let long = format!("{}{}", " ".repeat(MAX_BYTES), document(&json!({})));
    assert_eq!(told(Document::read(&long)), [": .: longer than 4194304 bytes"]);
}

#[test]
fn everything_that_is_wrong_with_a_document_is_told() {
    let text = r#"{ "tenants": {
        "a": { "tenantId": "a" },
        "b": { "tenantId": "c", "aiModels": { "chat": "m" } },
        "sk-Secret": null,
        "d": { "tenantId": "d", "aiModels": { "chat": "m" } },
        "d": null,
        "e": { "tenantId": "e", "aiModels": { "chat": "m" }, "rateLimit": { "perMinute": 0 } }
    } }"#;
    let told = told(Document::read(text));
    let starts = [
        "a: .: missing field `aiModels`",
        "b: tenantId: is c, but the entry is called b",
        "entry 2: .: the name of a tenant must be",
        "d: .: is there twice",
        "e: rateLimit.perMinute: must be 1",
    ];
    assert_eq!(told.len(), starts.len(), "{told:#?}");
    for (told, start) in told.iter().zip(starts) {
        assert!(told.starts_with(start), "{told}");
    }
}

#[test]
fn tenants_are_judged_together_and_as_everywhere() {
    let mut host = tenant("b", "m");
    host["allowedHosts"] = json!(["x.example"]);
    let bundled = bundled(&json!({ "b": host }));
    let mut clash = tenant("a", "m");
    clash["allowedHosts"] = json!(["X.example:443"]);
    clash["auth"] = json!({ "mode": "open" });
    let changes = document(&json!({ "a": clash }));
    let expected = "b: allowedHosts: x.example already belongs to tenant a";
    assert_eq!(told(merge(&bundled, Some(&changes), LENIENT)), [expected]);
    let told = told(merge(&bundled, Some(&changes), PRODUCTION));
    assert!(told.len() == 2 && told[0].starts_with("a: auth.mode: open is refused"), "{told:?}");
}

#[test]
fn a_bundle_that_production_cannot_accept_lets_nobody_in_until_it_is_changed() {
    let mut open = tenant("a", "m");
    open["auth"] = json!({ "mode": "open" });
    let bundled = bundled(&json!({ "a": open }));
    assert!(merge(&bundled, None, LENIENT).is_ok());
    assert!(merge(&bundled, None, PRODUCTION).is_err());
    assert!(merge(&bundled, Some(&document(&json!({ "a": null }))), PRODUCTION).is_ok());
}

#[test]
fn models_that_nobody_serves_are_refused() {
    let rules = DeploymentRules { serves: Some(&|_, model, _| model.as_str() == "served"), ..LENIENT };
    let bundled = bundled(&json!({ "a": tenant("a", "other") }));
    assert_eq!(told(merge(&bundled, None, rules)), ["a: aiModels.chat: nobody serves model other"]);
}

proptest! {
    #[test]
    fn the_tenants_are_those_bundled_less_those_named_and_those_that_entries_hold(
        bundle in prop::collection::btree_set("[a-f]", 0..6),
        changes in prop::collection::btree_map("[a-f]", any::<bool>(), 0..6),
    ) {
        let bundled = bundled(&bundle.iter().map(|id| (id.clone(), tenant(id, "bundled"))).collect());
        let entries: Value = changes
            .iter()
            .map(|(id, is_there)| (id.clone(), if *is_there { tenant(id, "changed") } else { Value::Null }))
            .collect();
        let index = merge(&bundled, Some(&document(&entries)), LENIENT).unwrap();
        let kept = bundle.iter().filter(|id| !changes.contains_key(*id)).map(|id| (id.clone(), "bundled".to_owned()));
        let there = changes.iter().filter(|(_, is_there)| **is_there).map(|(id, _)| (id.clone(), "changed".to_owned()));
        prop_assert_eq!(models(&index), kept.chain(there).collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,80}") {
        prop_assert!(Document::read(&text).is_err());
    }
}
