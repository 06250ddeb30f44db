//! The cases of every host, run against the Worker in workerd: once with models behind Workers AI, once with a provider that the
//! Worker fetches from. One Worker each serves all cases.

use std::sync::OnceLock;

use enigma_conformance::{Host, Platform, Upstream, Worker, WorkerConfig, cases};

fn start(configure: impl FnOnce(WorkerConfig, &str) -> WorkerConfig) -> (Worker, Host) {
    let upstream = Upstream::start();
    let config = configure(WorkerConfig::new(), &upstream.base_url());
    let worker = cases::tenants().iter().fold(config, WorkerConfig::tenant).start();
    let base_url = worker.base_url.clone();
    (worker, Host { base_url, upstream, platform: Platform::WORKER })
}

macro_rules! run {
    ($module:ident::$case:ident) => {
        #[tokio::test]
        async fn $case() {
            cases::$module::$case(host()).await;
        }
    };
}

mod workers_ai {
    use super::*;

    fn host() -> &'static Host {
        static HOST: OnceLock<(Worker, Host)> = OnceLock::new();
        &HOST.get_or_init(|| start(WorkerConfig::upstream)).1
    }

    enigma_conformance::cases!(run);
}

mod fetched {
    use super::*;

    fn host() -> &'static Host {
        static HOST: OnceLock<(Worker, Host)> = OnceLock::new();
        &HOST.get_or_init(|| start(WorkerConfig::provider)).1
    }

    enigma_conformance::cases!(run);
}
