//! The cases of every host, run against the native server. One server serves all of them.

use std::sync::OnceLock;

use enigma_conformance::{Host, Server, ServerConfig, Upstream, cases};

fn host() -> &'static Host {
    static HOST: OnceLock<(Server, Host)> = OnceLock::new();
    let (_, host) = HOST.get_or_init(|| {
        let upstream = Upstream::start();
        let config = ServerConfig::new().upstream(&upstream.base_url());
        let server = cases::tenants().iter().fold(config, ServerConfig::tenant).start();
        let base_url = server.base_url.clone();
        (server, Host { base_url, upstream })
    });
    host
}

macro_rules! run {
    ($module:ident::$case:ident) => {
        #[tokio::test]
        async fn $case() {
            cases::$module::$case(host()).await;
        }
    };
}

enigma_conformance::cases!(run);
