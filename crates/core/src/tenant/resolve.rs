//! From what a request says to the tenant it belongs to, and to the proof that it may speak for it.

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use super::access::{Principal, TenantContext};
use super::config::{AuthMode, Tenant};
use super::directory::normalise_host;
use super::key::{KeyHash, Scope};
use super::user::ClientAddress;
use crate::id::TenantId;
use crate::port_error::PortError;
use crate::ports::{TenantDirectory, TokenVerifier};
use crate::time::Timestamp;

/// Credentials as they were shown, not yet checked.
#[derive(Debug, Clone)]
pub struct Presented {
    hash: KeyHash,
    token: Option<String>,
}

impl Presented {
    /// What an `x-api-key` or `Authorization: Bearer` header holds. The key itself is not kept, only its hash.
    pub fn new(secret: &str) -> Self {
        let looks_like_a_token = secret.split('.').count() == 3;
        Self { hash: KeyHash::of(secret), token: looks_like_a_token.then(|| secret.to_owned()) }
    }
}

/// What a request says of itself.
#[derive(Debug, Clone, Default)]
pub struct RequestIdentity<'a> {
    /// The header `x-tenant-id`.
    pub tenant: Option<&'a str>,
    /// The host of its URL.
    pub host: Option<&'a str>,
    /// Its credentials.
    pub presented: Option<Presented>,
}

/// One way of naming a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantClaim<'a> {
    /// By its id.
    Id(TenantId),
    /// By a host that stands for it, normalised.
    Host(Cow<'a, str>),
    /// By one of its keys.
    Key(KeyHash),
}

/// Why a request may not go on.
#[derive(Debug, Error)]
pub enum AccessError {
    /// Nothing in the request names a tenant.
    #[error("the request names no tenant")]
    TenantRequired,
    /// The header names a tenant that does not exist.
    #[error("no such tenant")]
    TenantUnknown,
    /// Credentials are missing.
    #[error("credentials are missing")]
    Unauthorized,
    /// Credentials were shown, and are wrong or expired.
    #[error("credentials are wrong")]
    BadCredentials,
    /// The credentials are another tenant's.
    #[error("the credentials belong to another tenant")]
    TenantMismatch,
    /// A backend failed; nobody gets in.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// The credentials are good, but not for this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the credentials lack the scope {0}")]
pub struct ScopeRequired(pub Scope);

impl<'a> RequestIdentity<'a> {
    /// The ways in which the request names a tenant, the strongest first: header ▸ host ▸ key.
    ///
    /// # Errors
    /// [`AccessError::TenantUnknown`] when the header holds what no tenant can be called.
    fn claims(&self) -> Result<impl Iterator<Item = TenantClaim<'a>>, AccessError> {
        let id = self.tenant.map(TenantId::new).transpose().map_err(|_| AccessError::TenantUnknown)?;
        let host = self.host.and_then(normalise_host);
        let key = self.presented.as_ref().map(|presented| presented.hash);
        Ok([id.map(TenantClaim::Id), host.map(TenantClaim::Host), key.map(TenantClaim::Key)].into_iter().flatten())
    }
}

/// What a claim's look-up decides: the tenant, an end, or that the next claim is asked (`None`).
fn judge(claim: &TenantClaim<'_>, found: Option<Arc<Tenant>>) -> Option<Result<Arc<Tenant>, AccessError>> {
    match (claim, found) {
        (_, Some(tenant)) => Some(Ok(tenant)),
        // A name that is written out and wrong never falls through to another tenant.
        (TenantClaim::Id(_), None) => Some(Err(AccessError::TenantUnknown)),
        // A host may be shared by tenants that are told apart by their keys.
        (TenantClaim::Host(_), None) => None,
        (TenantClaim::Key(_), None) => Some(Err(AccessError::BadCredentials)),
    }
}

/// Whether credentials open a tenant's door; `None` when only another look-up can tell.
fn authenticate(
    tenant: &Tenant,
    presented: Option<&Presented>,
    address: &ClientAddress,
    now: Timestamp,
) -> Option<Principal> {
    let key = presented.and_then(|shown| tenant.keys().iter().find(|key| key.hash == shown.hash));
    match (tenant.auth_mode(), key, presented) {
        (AuthMode::ApiKey | AuthMode::Open, Some(key), _) if key.is_live(now) => {
            Some(Principal::Key { id: key.id.clone(), scopes: key.scopes })
        }
        (AuthMode::Open, None, None) => Some(Principal::Anonymous { address: address.clone() }),
        _ => None,
    }
}

/// Ties requests to tenants. The only maker of [`TenantContext`].
#[derive(Clone)]
pub struct Resolver {
    directory: Arc<dyn TenantDirectory>,
    tokens: Option<Arc<dyn TokenVerifier>>,
}

impl Resolver {
    /// A resolver over `directory`. Without a verifier of tokens, tenants of mode `jwt` let nobody in.
    pub fn new(directory: Arc<dyn TenantDirectory>, tokens: Option<Arc<dyn TokenVerifier>>) -> Self {
        Self { directory, tokens }
    }

    /// The tenant that a request belongs to: header ▸ host ▸ key, first match wins.
    ///
    /// # Errors
    /// [`AccessError`]; nothing has been looked at but the directory.
    pub async fn resolve(&self, identity: &RequestIdentity<'_>) -> Result<Arc<Tenant>, AccessError> {
        for claim in identity.claims()? {
            let found = self.directory.find(&claim).await?;
            if let Some(verdict) = judge(&claim, found) {
                return verdict;
            }
        }
        Err(AccessError::TenantRequired)
    }

    /// Checks a request's credentials for `tenant`.
    ///
    /// # Errors
    /// [`AccessError::Unauthorized`] or [`AccessError::BadCredentials`], or [`AccessError::TenantMismatch`] when a key is good,
    /// but elsewhere. Whether a token would be good elsewhere is not asked: other tenants' issuers are no affair of this one's.
    pub async fn authenticate(
        &self,
        tenant: Arc<Tenant>,
        presented: Option<&Presented>,
        address: &ClientAddress,
        now: Timestamp,
    ) -> Result<TenantContext, AccessError> {
        if let Some(principal) = authenticate(&tenant, presented, address, now) {
            return Ok(TenantContext::new(tenant, principal));
        }
        let Some(presented) = presented else { return Err(AccessError::Unauthorized) };
        if let (AuthMode::Jwt, Some(token), Some(verifier)) = (tenant.auth_mode(), &presented.token, &self.tokens)
            && let Some(verified) = verifier.verify(&tenant, token, now).await?
        {
            let principal = Principal::Token { user: verified.user, scopes: verified.scopes };
            return Ok(TenantContext::new(tenant, principal));
        }
        let owner = self.directory.find(&TenantClaim::Key(presented.hash)).await?;
        let live = |owner: &Tenant| owner.keys().iter().any(|key| key.hash == presented.hash && key.is_live(now));
        match owner {
            Some(owner) if owner.id() != tenant.id() && live(&owner) => Err(AccessError::TenantMismatch),
            // SDKs send a key even where none is asked for, so one that means nothing anywhere does no harm at an open door.
            None if tenant.auth_mode() == AuthMode::Open => {
                Ok(TenantContext::new(tenant, Principal::Anonymous { address: address.clone() }))
            }
            _ => Err(AccessError::BadCredentials),
        }
    }
}

#[cfg(test)]
mod tests;
