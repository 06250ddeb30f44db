//! Tenants: who they are, what they may do, and how a request is tied to one of them.

mod access;
mod config;
mod directory;
mod judge;
mod key;
mod resolve;
mod user;

pub use access::{Principal, TenantContext};
pub use config::{AuthMode, Concurrency, Cors, Tenant, TenantConfigError, TokenBudget};
pub use directory::{TenantConflict, TenantIndex, normalise_host};
pub use judge::{
    DeploymentRules, ModelUse, Serves, TenantProblem, TokenSupport, index_all, is_production, judge, oddities,
};
pub use key::{ApiKey, InvalidKeyHash, KeyHash, Scope, ScopeSet};
pub use resolve::{AccessError, Presented, RequestIdentity, Resolver, ScopeRequired, TenantClaim};
pub use user::{Caller, ClientAddress, UserHints};
