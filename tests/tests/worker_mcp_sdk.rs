//! The official SDK of the Model Context Protocol for Python, unmodified, against the Worker in workerd.

use enigma_conformance::mcp_sdk::{check, script, tenants};
use enigma_conformance::{Upstream, WorkerConfig};

#[test]
fn the_sdk_lists_calls_and_reads() {
    let upstream = Upstream::start();
    let config = WorkerConfig::new().upstream(&upstream.base_url());
    let worker = tenants().iter().fold(config, WorkerConfig::tenant).start();
    script(&upstream);
    check(&worker.base_url);
}
