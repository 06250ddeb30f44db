//! A disk that fails under a server that runs. What was acknowledged is kept, the budget's books stay right, and everything
//! works again without a restart when the disk does.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::sync::Arc;

use enigma_conformance::client::{session, tag};
use enigma_conformance::system::{NO_SPACE, System};
use enigma_conformance::{ServerConfig, Tenant, Upstream};
use serde_json::json;

#[tokio::test]
async fn experiment() {
    let (upstream, system, directory) = (Upstream::start(), System::new(), Arc::new(tempfile::tempdir().unwrap()));
    let tenant = Tenant::new("acme").with("tokenBudget", json!({ "daily": 10000 }));
    let config = ServerConfig::new().upstream(&upstream.base_url()).tenant(&tenant).stored_in(&directory);
    let server = system.under(config, directory.path()).start();
    let api = server.tenant("acme");
    let s = session();
    api.chat(&s, &tag()).await.ok();
    system.writes_fail(NO_SPACE, 0);
    for _ in 0..3 {
        let a = api.chat(&s, &tag()).await;
        println!("{a:?} {}", system.failed());
        let a = api.get("/readyz").await;
        println!("{a:?} {}", system.failed());
    }
    system.writes_fail(0, 0);
    let a = api.chat(&s, &tag()).await;
    println!("{a:?} {}", system.failed());
    println!("{:?}", api.said(&s).await.len());
    println!("{}", server.output());
}
