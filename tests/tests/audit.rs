//! The audit of tools, read as the operator reads it: from the database of a server that runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use enigma_conformance::{Server, ServerConfig, Tenant, Upstream};
use enigma_core::Timestamp;
use enigma_core::tools::AuditQuery;
use enigma_sqlite::read_audit_records;
use serde_json::{Value, json};

const TEXT: &str = "A secret that must not be kept.";

fn tenant(id: &str, flags: &Value) -> Tenant {
    Tenant::new(id).model(&format!("{id}-model")).with("featureFlags", flags.clone())
}

#[tokio::test]
async fn each_run_leaves_one_record_and_no_text() {
    let upstream = Upstream::start();
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let on = json!({ "tools_enabled": true, "tool_classify_intent": false });
    let server: Server = ServerConfig::new()
        .upstream(&upstream.base_url())
        .tenant(&tenant("audited", &on))
        .tenant(&tenant("other", &on))
        .stored_in(&directory)
        .start();
    upstream.script("audited-model", &["[[say {\"summary\": \"Hush.\"}]]", "[[say no]]"]);
    let api = server.tenant("audited");
    let run = async |tool: &str, params: Value| {
        api.post("/tools/execute", &json!({ "tool_name": tool, "params": params, "user_id": "ada" })).await.status
    };
    assert_eq!(run("summarize", json!({ "text": TEXT })).await, 200);
    assert_eq!(run("summarize", json!({ "text": TEXT })).await, 500, "the model's answer cannot be used");
    assert_eq!(run("classify_intent", json!({ "text": TEXT })).await, 403);
    assert_eq!(run("summarize", json!({})).await, 400);
    assert_eq!(run("no_such_tool", json!({ "text": TEXT })).await, 404);

    let path = directory.path().join("enigma.db");
    // Later than whatever the server's clock says, and before the records expire.
    let now = Timestamp::from_millis(u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap());
    let read = |tenant: &str| {
        let page = read_audit_records(&path, &tenant.parse().unwrap(), &AuditQuery::default(), None, 100, now);
        page.unwrap().records
    };
    let records = read("audited");
    let mut outcomes = BTreeMap::new();
    for record in &records {
        *outcomes.entry((record.tool.as_str(), record.outcome.as_str())).or_insert(0) += 1;
        assert_eq!((record.user.as_str(), record.route.as_str()), ("ada", "/tools/execute"));
    }
    let expected = [
        (("classify_intent", "denied"), 1),
        (("no_such_tool", "not_found"), 1),
        (("summarize", "failed"), 1),
        (("summarize", "invalid"), 1),
        (("summarize", "succeeded"), 1),
    ];
    assert_eq!(outcomes, BTreeMap::from(expected));
    assert!(!serde_json::to_string(&records).unwrap().contains("secret"));
    let same: Vec<_> = records.iter().filter(|it| it.tool.as_str() == "summarize").map(|it| it.params).collect();
    assert_eq!(same.iter().collect::<std::collections::HashSet<_>>().len(), 2, "equal parameters have equal hashes");
    assert!(read("other").is_empty());
}
