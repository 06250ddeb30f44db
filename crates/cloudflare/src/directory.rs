//! Tenants that the Worker was built with, and what KV says of them since.
//!
//! The namespace `CONFIG` may have a document under the key [`KEY`]:
//!
//! ```json
//! { "tenants": { "acme": { "tenantId": "acme", "aiModels": { "chat": "small" } }, "globex": null } }
//! ```
//!
//! An entry is a whole `tenant.config.json`. It replaces the tenant of its id that the Worker was built with, or adds one;
//! `null` removes one. What comes of it is judged as a whole, by the rules that every host judges by, and counts as a whole or
//! not at all.
//!
//! # How soon a change counts
//!
//! **Within two minutes, normally**: each isolate reads the document again when its copy is older than `refresh_after` (30 s),
//! and KV itself shows a change everywhere within about 60 s (it is asked to keep its own copies no longer than 30 s).
//! **Within `refuse_after` (5 min)** where KV cannot be read: so long a copy is used, and after that nobody gets in. The
//! measure is the time at which the reading began, so that a slow answer does not count as a new one.
//!
//! - An isolate that has just begun lets nobody in before it has read KV. A key that was revoked there does not come alive
//!   because KV is down.
//! - A document that is wrong is refused as a whole and logged once, as an error. Isolates that have a copy keep using it for
//!   as long as the document is wrong; those that have none let nobody in.
//! - In an isolate one request at a time reads, and the others use the copy meanwhile. None waits for another's reading: the
//!   runtime does not let requests share input and output.

mod copy;
mod document;

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::{Clock, TenantDirectory};
use enigma_core::tenant::{DeploymentRules, ModelUse, Tenant, TenantClaim, TenantIndex, TokenSupport};
use enigma_core::{ModelId, PortError};
use worker::{Env, KvStore};

use self::copy::{Copy, Next, Seen};
use self::document::{Document, Problem};
use crate::deadline::deadline;

const PORT: &str = "tenant directory";

/// The binding of the namespace.
const BINDING: &str = "CONFIG";

/// Where the document is in it.
pub const KEY: &str = "tenants";

/// How long KV may take.
const LIMIT: Duration = Duration::from_secs(3);

/// How long KV may keep a copy of its own at its edge, in seconds. It accepts nothing less.
const CACHE_SECONDS: u64 = 30;

/// Whether somebody serves a model to a tenant for this.
pub type ServesModel = Arc<dyn Fn(&Tenant, &ModelId, ModelUse) -> bool + Send + Sync>;

/// What the deployment demands of its tenants.
#[derive(Clone, Default)]
pub struct TenantRules {
    /// Whether it is production, where nobody gets in without credentials unless the tenant says so twice.
    pub production: bool,
    /// Which models are served; `None` where that is not asked.
    pub serves: Option<ServesModel>,
}

impl fmt::Debug for TenantRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantRules").field("production", &self.production).finish_non_exhaustive()
    }
}

/// How old an isolate's copy of the tenants may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// From when on KV is read again.
    pub refresh_after: Duration,
    /// From when on a copy that could not be read again is used no more.
    pub refuse_after: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self { refresh_after: Duration::from_secs(30), refuse_after: Duration::from_secs(300) }
    }
}

/// The tenants of the Worker: those that it was built with, as KV has changed them. One serves all requests of an isolate.
pub struct KvTenantDirectory {
    config: KvStore,
    bundled: Option<Document>,
    rules: TenantRules,
    clock: Arc<dyn Clock>,
    copy: Mutex<Copy>,
}

impl fmt::Debug for KvTenantDirectory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvTenantDirectory").field("rules", &self.rules).finish_non_exhaustive()
    }
}

impl KvTenantDirectory {
    /// The tenants of `bundle`, a document of the same shape as KV's, as the namespace that `env` calls `CONFIG` changes them.
    /// Reads nothing yet. What is wrong with the bundle is logged, and nobody gets in.
    ///
    /// # Errors
    /// [`PortError`] when there is no such namespace.
    pub fn from_env(
        env: &Env,
        bundle: &str,
        rules: TenantRules,
        freshness: Freshness,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, PortError> {
        let config = env.kv(BINDING).map_err(|error| PortError::unavailable(PORT, error.to_string()))?;
        let bundled = Document::read(bundle)
            .inspect_err(|problems| log(problems, "the tenants that the Worker was built with are refused"))
            .ok();
        Ok(Self { config, bundled, rules, clock, copy: Mutex::new(Copy::new(freshness, LIMIT)) })
    }

    async fn index(&self) -> Result<Arc<TenantIndex>, PortError> {
        let Some(bundled) = &self.bundled else {
            return Err(PortError::corrupt(PORT, "the tenants that the Worker was built with cannot be read"));
        };
        let begun = self.clock.now();
        if let Next::Use(index) = self.copy().next(begun) {
            return Ok(index);
        }
        tracing::debug!(target: "enigma::subrequest", binding = BINDING, port = PORT, "reads KV");
        let read = deadline(PORT, LIMIT, async {
            let value = self.config.get(KEY).cache_ttl(CACHE_SECONDS).text().await;
            value.map_err(|error| PortError::unavailable(PORT, error.to_string()))
        })
        .await;
        let mut copy = self.copy();
        match read {
            Ok(text) => {
                let rules = DeploymentRules {
                    production: self.rules.production,
                    serves: self.rules.serves.as_deref().map(|serves| serves as _),
                    // There is no verifier on this platform yet.
                    tokens: TokenSupport::None,
                };
                match copy.seen(begun, text, |text| document::merge(bundled, text, rules)) {
                    Seen::Accepted => tracing::info!("tenants read"),
                    Seen::Refused(problems) => log(&problems, "the tenants are refused as KV has them"),
                    Seen::Known => {}
                }
                copy.usable(self.clock.now())
                    .ok_or_else(|| PortError::corrupt(PORT, "the tenants are refused as KV has them"))
            }
            Err(error) => {
                let index = copy.failed(self.clock.now());
                if index.is_some() {
                    let cause = error.source().map(ToString::to_string);
                    tracing::warn!(%error, cause, "tenants could not be read again");
                }
                index.ok_or(error)
            }
        }
    }

    /// Nothing waits while it is locked, and what panics there leaves it as whole as before.
    fn copy(&self) -> MutexGuard<'_, Copy> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TenantDirectory for KvTenantDirectory {
    async fn find<'a>(&self, claim: &TenantClaim<'a>) -> Result<Option<Arc<Tenant>>, PortError> {
        Ok(self.index().await?.find(claim).cloned())
    }

    async fn allows_origin(&self, origin: &str) -> Result<bool, PortError> {
        Ok(self.index().await?.allows_origin(origin))
    }
}

fn log(problems: &[Problem], what: &'static str) {
    for Problem { tenant, field, reason } in problems {
        tracing::error!(tenant, field, "{reason}");
    }
    tracing::error!("{what}");
}
