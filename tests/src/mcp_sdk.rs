//! What the official SDK of the Model Context Protocol is run with, on every host.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::python;
use crate::tenant::{Tenant, key_of};
use crate::upstream::Upstream;

const TENANT: &str = "mcp-sdk";
const LIMITED: &str = "mcp-sdk-limited";

/// The tenants that the SDK speaks for.
pub fn tenants() -> [Tenant; 2] {
    let flags = json!({ "tools_enabled": true, "query_rewriting": false, "follow_ups": false });
    [
        Tenant::new(TENANT).searches().with("featureFlags", flags),
        Tenant::new(LIMITED).with("rateLimit", json!({ "perMinute": 3 })),
    ]
}

/// Has the model of the first one answer whatever it is asked.
pub fn script(upstream: &Upstream) {
    upstream.script(&format!("{TENANT}-model"), &[r#"[[say {"category": "billing", "confidence": 0.5}]]"#]);
}

/// Lets the SDK use the host.
pub fn check(base_url: &str) {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let python = python::interpreter(&place.join("requirements.txt"));
    let url = format!("{base_url}/mcp");
    let arguments = [url, key_of(TENANT), key_of(LIMITED)];
    let output = python::run(Command::new(python).arg(place.join("mcp_check.py")).args(arguments));
    assert_eq!(output.lines().last(), Some("done"), "{output}");
}
