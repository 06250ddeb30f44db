//! The official SDK of the Model Context Protocol for Python, unmodified, against the native server.

use enigma_conformance::mcp_sdk::{check, script, tenants};
use enigma_conformance::{ServerConfig, Upstream};

#[test]
fn the_sdk_lists_calls_and_reads() {
    let upstream = Upstream::start();
    let config = ServerConfig::new().upstream(&upstream.base_url());
    let server = tenants().iter().fold(config, ServerConfig::tenant).start();
    script(&upstream);
    check(&server.base_url);
}
