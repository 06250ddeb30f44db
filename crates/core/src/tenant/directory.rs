//! Tenants by id, host and key.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use thiserror::Error;

use super::config::Tenant;
use super::key::KeyHash;
use super::resolve::TenantClaim;
use crate::id::TenantId;

/// Two tenants claim the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct TenantConflict {
    /// The tenant that came second.
    pub tenant: TenantId,
    /// Its field.
    pub field: &'static str,
    /// What is claimed, and who had it first. A key is named by the start of its hash.
    pub reason: String,
}

/// All tenants of a deployment, found by what a request says of itself. One look-up is one hash look-up, however many tenants
/// there are.
#[derive(Debug, Clone, Default)]
pub struct TenantIndex {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_host: HashMap<String, Arc<Tenant>>,
    by_key: HashMap<KeyHash, Arc<Tenant>>,
    origins: BTreeSet<String>,
}

impl TenantIndex {
    /// Indexes `tenants`.
    ///
    /// # Errors
    /// [`TenantConflict`] when two of them claim one id, one host or one key.
    pub fn new(tenants: impl IntoIterator<Item = Tenant>) -> Result<Self, TenantConflict> {
        let mut index = Self::default();
        for tenant in tenants {
            index.add(&Arc::new(tenant))?;
        }
        Ok(index)
    }

    fn add(&mut self, tenant: &Arc<Tenant>) -> Result<(), TenantConflict> {
        let conflict = |field, what: &dyn std::fmt::Display, first: &Tenant| TenantConflict {
            tenant: tenant.id().clone(),
            field,
            reason: format!("{what} already belongs to tenant {}", first.id()),
        };
        if let Some(first) = self.by_id.insert(tenant.id().clone(), Arc::clone(tenant)) {
            return Err(conflict("tenantId", tenant.id(), &first));
        }
        for host in tenant.hosts() {
            if let Some(first) = self.by_host.insert(host.clone(), Arc::clone(tenant)) {
                return Err(conflict("allowedHosts", host, &first));
            }
        }
        for key in tenant.keys() {
            if let Some(first) = self.by_key.insert(key.hash, Arc::clone(tenant)) {
                return Err(conflict("apiKeys", &key.hash.default_id(), &first));
            }
        }
        self.origins.extend(tenant.cors().allowed_origins.iter().cloned());
        Ok(())
    }

    /// The tenant that a claim names, dead keys included.
    pub fn find(&self, claim: &TenantClaim<'_>) -> Option<&Arc<Tenant>> {
        match claim {
            TenantClaim::Id(id) => self.by_id.get(id),
            TenantClaim::Host(host) => self.by_host.get(host.as_ref()),
            TenantClaim::Key(hash) => self.by_key.get(hash),
        }
    }

    /// Whether any tenant lets pages of `origin` call. A browser asks this before it says whose route it wants.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.contains("*") || self.origins.contains(origin)
    }

    /// Every tenant, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = &Arc<Tenant>> {
        self.by_id.values()
    }
}

/// A host as tenants are looked up by it: in lower case, without port and final dot. `None` when it is not a host.
pub fn normalise_host(text: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']')? + 2;
            (&text[..end], &text[end..])
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_is_fine = port.is_empty() || (port.len() > 1 && port[1..].bytes().all(|b| b.is_ascii_digit()));
    let host = host.strip_suffix('.').unwrap_or(host);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'[' | b']' | b':');
    if host.is_empty() || host.len() > 253 || !port_is_fine || !host.bytes().all(allowed) {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Some(host.to_ascii_lowercase().into())
    } else {
        Some(host.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(json: &serde_json::Value) -> Tenant {
        Tenant::from_json(&json.to_string()).unwrap()
    }

    #[test]
    fn one_host_key_or_id_belongs_to_one_tenant() {
        let key = KeyHash::of("k").to_string();
        let base = |id: &str| serde_json::json!({ "tenantId": id, "aiModels": { "chat": "m" } });
        let with = |id: &str, field: &str, value: serde_json::Value| {
            let mut json = base(id);
            json[field] = value;
            tenant(&json)
        };
        let clash = |a, b| TenantIndex::new([a, b]).unwrap_err();

        let error = clash(tenant(&base("a")), tenant(&base("a")));
        assert_eq!(error.field, "tenantId");
        let error = clash(
            with("a", "allowedHosts", serde_json::json!(["x.example"])),
            with("b", "allowedHosts", serde_json::json!(["X.example:443"])),
        );
        assert_eq!((error.tenant.as_str(), error.field), ("b", "allowedHosts"));
        assert!(error.reason.contains("tenant a"));
        let error =
            clash(with("a", "apiKeys", serde_json::json!([key])), with("b", "apiKeys", serde_json::json!([key])));
        assert_eq!(error.field, "apiKeys");
        assert!(!error.reason.contains(&key), "the whole hash is not shown");
    }

    #[test]
    fn hosts_fold_case_and_lose_their_port() {
        for (text, host) in [
            ("Acme.Example:8443", Some("acme.example")),
            ("acme.example.", Some("acme.example")),
            ("[::1]:80", Some("[::1]")),
            ("127.0.0.1", Some("127.0.0.1")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("a/b", None),
            ("a:port", None),
            ("[::1", None),
            ("user@host", None),
        ] {
            assert_eq!(normalise_host(text).as_deref(), host, "{text}");
        }
    }
}
