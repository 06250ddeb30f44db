//! The verifier: a tenant's keys, kept and fetched again as the core says, and the order in which a token is looked at.

mod kept;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::ports::{Background, Clock, TokenVerifier, VerifiedToken};
use enigma_core::tenant::Tenant;
use enigma_core::token::{KeyAgePolicy, KeySetLocation, KeyStep, TokenPolicy, accept};
use enigma_core::{PortError, TenantId, Timestamp};
use thiserror::Error;

use self::kept::Kept;
use crate::key_set::{Found, KeySet};
use crate::source::{FetchError, KeySetSource};
use crate::token::{HeaderRefused, Unverified};

const PORT: &str = "token verifier";

/// How long fetching a key set may take.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Verifies tokens with the keys that their issuers publish. It keeps key sets, so there should be one for a process, which
/// outlives a change of the tenants.
///
/// Each tenant has a key set of its own, also where two name the same place: what the tokens of one make it fetch does not use
/// up what another may fetch.
pub struct JwtVerifier {
    source: Arc<dyn KeySetSource>,
    clock: Arc<dyn Clock>,
    background: Arc<dyn Background>,
    ages: KeyAgePolicy,
    kept: Mutex<HashMap<TenantId, Arc<Kept>>>,
}

/// Why a token opens nothing. Whoever showed it is told nothing but that; operators are told at level `debug`.
#[derive(Debug, Error)]
enum Refused {
    #[error(transparent)]
    Header(#[from] HeaderRefused),
    #[error("no key of the tenant's fits it")]
    UnknownKey,
    #[error("several keys of the tenant's fit it")]
    SeveralKeys,
    #[error("its signature is not by the key that it names")]
    Signature,
    #[error("its claims are no JSON object")]
    NoClaims,
    #[error(transparent)]
    Claims(#[from] enigma_core::token::ClaimsRefused),
    /// Nobody gets in, and that is not the token's fault.
    #[error("the tenant's keys cannot be had")]
    NoKeys(#[source] FetchErrorOrPause),
}

/// Why there are no keys.
#[derive(Debug, Error)]
enum FetchErrorOrPause {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the last fetch failed, and it is too soon for the next one")]
    Pause,
}

impl JwtVerifier {
    /// A verifier that has no keys yet. They are fetched from `source` when the first token comes, in `background`, so that a
    /// client that goes away does not end what others wait for.
    pub fn new(
        source: Arc<dyn KeySetSource>,
        clock: Arc<dyn Clock>,
        background: Arc<dyn Background>,
        ages: KeyAgePolicy,
    ) -> Self {
        Self { source, clock, background, ages, kept: Mutex::default() }
    }

    async fn check(
        &self,
        tenant: &TenantId,
        policy: &TokenPolicy,
        token: &str,
        now: Timestamp,
    ) -> Result<VerifiedToken, Refused> {
        let token = Unverified::read(token, policy)?;
        let kept = self.kept(tenant, &policy.keys, now);
        let mut keys = self.keys(&kept, now).await?;
        if keys.find(token.key_id.as_deref(), token.algorithm) == Found::Unknown
            && let Some(newer) = self.seek(&kept, now).await
        {
            keys = newer;
        }
        match keys.find(token.key_id.as_deref(), token.algorithm) {
            Found::Key(key) if key.has_signed(token.message.as_bytes(), &token.signature) => {}
            Found::Key(_) => return Err(Refused::Signature),
            Found::Several => return Err(Refused::SeveralKeys),
            Found::Unknown => return Err(Refused::UnknownKey),
        }
        let claims = token.claims().ok_or(Refused::NoClaims)?;
        Ok(accept(policy, &claims, now)?)
    }

    /// The keys that a token is checked with at `now`.
    async fn keys(&self, kept: &Arc<Kept>, now: Timestamp) -> Result<Arc<KeySet>, Refused> {
        match self.ages.step(kept.age(), now) {
            KeyStep::Use => {}
            KeyStep::UseAndRefresh => drop(self.refresh(kept, now)),
            KeyStep::RefreshFirst => match self.refresh(kept, now).await {
                Ok(keys) => return Ok(keys),
                Err(error) if !self.ages.are_usable(kept.age(), now) => return Err(Refused::NoKeys(error.into())),
                // It was logged where it happened.
                Err(_) => {}
            },
            KeyStep::Refuse => {
                // Who waits for the fetch that runs gets what it brings.
                let running = kept.running().ok_or(Refused::NoKeys(FetchErrorOrPause::Pause))?;
                return running.await.map_err(|error| Refused::NoKeys(error.into()));
            }
        }
        kept.keys().ok_or(Refused::NoKeys(FetchErrorOrPause::Pause))
    }

    /// Newer keys, for a token that names one that is not known; `None` where there are none, or it is too soon to ask.
    async fn seek(&self, kept: &Arc<Kept>, now: Timestamp) -> Option<Arc<KeySet>> {
        if let Some(running) = kept.running() {
            return running.await.ok();
        }
        if !self.ages.may_fetch(kept.age(), now) {
            return None;
        }
        self.refresh(kept, now).await.ok()
    }

    fn refresh(&self, kept: &Arc<Kept>, now: Timestamp) -> kept::Fetch {
        kept.refresh(now, &self.source, &*self.clock, &*self.background)
    }

    /// What is kept for a tenant. What was kept for another place is forgotten.
    fn kept(&self, tenant: &TenantId, location: &KeySetLocation, now: Timestamp) -> Arc<Kept> {
        let mut all = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = all.get(tenant).filter(|kept| kept.is_of(location)) {
            return Arc::clone(kept);
        }
        // Of tenants that are gone nothing is left behind.
        all.retain(|_, kept| kept.age().tried_at.is_none_or(|tried_at| now.since(tried_at) < self.ages.usable));
        let kept = Arc::new(Kept::new(tenant.clone(), location.clone()));
        all.insert(tenant.clone(), Arc::clone(&kept));
        kept
    }
}

#[async_trait]
impl TokenVerifier for JwtVerifier {
    async fn verify(&self, tenant: &Tenant, token: &str, now: Timestamp) -> Result<Option<VerifiedToken>, PortError> {
        let Some(policy) = tenant.token_policy() else { return Ok(None) };
        match self.check(tenant.id(), policy, token, now).await {
            Ok(verified) => Ok(Some(verified)),
            Err(Refused::NoKeys(error)) => Err(PortError::unavailable(PORT, error)),
            Err(refused) => {
                // Not the token, and nothing that it says: whoever made it could write into the log.
                tracing::debug!(tenant = %tenant.id(), reason = %refused, "a token was refused");
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests;
