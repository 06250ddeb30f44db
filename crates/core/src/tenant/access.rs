//! A request that has been tied to a tenant and authenticated for it.

use std::sync::Arc;

use super::config::Tenant;
use super::key::{Scope, ScopeSet};
use super::resolve::ScopeRequired;
use super::user::{Caller, ClientAddress, UserHints, caller};
use crate::id::{KeyId, TenantId, UserId};

/// Who showed the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// The holder of an API key.
    Key {
        /// The key's name.
        id: KeyId,
        /// What it may be used for.
        scopes: ScopeSet,
    },
    /// The subject of a token.
    Token {
        /// The token's `sub`.
        user: UserId,
        /// What it may be used for.
        scopes: ScopeSet,
    },
    /// Nobody in particular: the tenant is open.
    Anonymous {
        /// Where they come from.
        address: ClientAddress,
    },
}

/// The proof that a request belongs to a tenant. Only [`Resolver`](super::Resolver) makes one, so a use case that takes it
/// cannot be reached by a request that was not authenticated.
#[derive(Debug, Clone)]
pub struct TenantContext {
    tenant: Arc<Tenant>,
    principal: Principal,
}

impl TenantContext {
    pub(super) fn new(tenant: Arc<Tenant>, principal: Principal) -> Self {
        Self { tenant, principal }
    }

    /// The tenant's id.
    pub fn id(&self) -> &TenantId {
        self.tenant.id()
    }

    /// The tenant.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// Who showed the credentials.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Checks that the credentials may be used for `scope`. An open tenant gives everybody what a key without scopes has.
    ///
    /// # Errors
    /// [`ScopeRequired`] when they may not.
    pub fn require(&self, scope: Scope) -> Result<(), ScopeRequired> {
        let scopes = match &self.principal {
            Principal::Key { scopes, .. } | Principal::Token { scopes, .. } => *scopes,
            Principal::Anonymous { .. } => ScopeSet::usual(),
        };
        if scopes.contains(scope) { Ok(()) } else { Err(ScopeRequired(scope)) }
    }

    /// The only user whose sessions the request may touch. `None` is every user of the tenant: the holder of a key speaks for
    /// all of them.
    pub fn confined_to(&self) -> Option<UserId> {
        match &self.principal {
            Principal::Key { .. } => None,
            Principal::Token { .. } | Principal::Anonymous { .. } => Some(self.caller(UserHints::default()).user),
        }
    }

    /// The user of the request, and the subject of its limits.
    pub fn caller(&self, hints: UserHints) -> Caller {
        caller(&self.principal, hints)
    }
}
