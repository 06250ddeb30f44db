//! The cases of every host, run against the native server: once with everything in memory, once in SQLite. One server each
//! serves all cases.

#![expect(clippy::unwrap_used, reason = "all of this is test code: a panic is how it reports")]

use std::sync::{Arc, OnceLock};

use enigma_conformance::{Host, Platform, Server, ServerConfig, Upstream, cases};

fn start(configure: impl FnOnce(ServerConfig) -> ServerConfig) -> (Server, Host) {
    let upstream = Upstream::start();
    let config = configure(ServerConfig::new().upstream(&upstream.base_url()));
    let tenants = [cases::tenants(), cases::jwt::tenants()].concat();
    let server = tenants.iter().fold(config, ServerConfig::tenant).start();
    let base_url = server.base_url.clone();
    (server, Host { base_url, upstream, platform: Platform::NATIVE })
}

macro_rules! run {
    ($module:ident::$case:ident) => {
        #[tokio::test]
        async fn $case() {
            cases::$module::$case(host()).await;
        }
    };
}

mod memory {
    use super::*;

    fn host() -> &'static Host {
        static HOST: OnceLock<(Server, Host)> = OnceLock::new();
        &HOST.get_or_init(|| start(|config| config)).1
    }

    enigma_conformance::cases!(run);
    enigma_conformance::jwt_cases!(run);
}

mod sqlite {
    use super::*;

    fn host() -> &'static Host {
        static HOST: OnceLock<(Server, Host)> = OnceLock::new();
        let directory = || Arc::new(tempfile::tempdir().unwrap());
        &HOST.get_or_init(|| start(|config| config.stored_in(&directory()))).1
    }

    enigma_conformance::cases!(run);
    enigma_conformance::jwt_cases!(run);
}
