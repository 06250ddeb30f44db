//! [`TenantDirectory`]. Its runner makes an adapter that holds the tenants of [`tenants`] and no others.

use std::borrow::Cow;

use enigma_core::ports::TenantDirectory;
use enigma_core::tenant::{KeyHash, Tenant, TenantClaim};

use crate::fixture::tenant;

/// Lists the cases of this port.
#[macro_export]
macro_rules! tenant_directory_cases {
    ($run:ident) => {
        $run!(a_tenant_is_found_by_its_id);
        $run!(a_tenant_is_found_by_each_of_its_hosts);
        $run!(a_tenant_is_found_by_each_of_its_keys);
        $run!(nobody_is_found_by_what_nobody_claims);
        $run!(whoever_is_found_makes_the_claim);
        $run!(origins_of_any_tenant_are_allowed_and_no_others);
        $run!(tenants_are_isolated);
    };
}

/// The tenants' files. Their ids, hosts and keys begin alike, and one's host is another's id.
pub const FILES: [&str; 3] = [
    r#"{
        "tenantId": "acme",
        "aiModels": { "chat": "small" },
        "allowedHosts": ["acme.example", "www.acme.example"],
        "apiKeys": [
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            { "id": "ci", "hash": "sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae", "scopes": ["admin"] }
        ],
        "cors": { "allowedOrigins": ["https://app.acme.example"] }
    }"#,
    r#"{
        "tenantId": "acme-eu",
        "aiModels": { "chat": "large" },
        "allowedHosts": ["acme.example.eu", "acme"],
        "apiKeys": ["sha256:fcde2b2edba56bf408601fb721fe9b5c338d10ee429ea04fae5511b68fbf8fb9"],
        "tokenBudget": { "daily": 1000 }
    }"#,
    r#"{ "tenantId": "globex", "aiModels": { "chat": "small" }, "auth": { "mode": "open" } }"#,
];

/// The tenants that the directory under test holds.
pub fn tenants() -> Vec<Tenant> {
    FILES.iter().map(|file| Tenant::from_json(file).expect("the cases' tenants are valid")).collect()
}

/// The keys of [`tenants`] whose hashes are in their files, and whose they are.
pub const KEYS: [(&str, &str); 3] = [("abc", "acme"), ("foo", "acme"), ("bar", "acme-eu")];

fn by_host(host: &str) -> TenantClaim<'_> {
    TenantClaim::Host(Cow::Borrowed(host))
}

async fn found(directory: &dyn TenantDirectory, claim: TenantClaim<'_>) -> Option<String> {
    let found = directory.find(&claim).await.expect("the directory answers");
    found.map(|tenant| tenant.id().as_str().to_owned())
}

/// By id, a tenant is found, whole.
pub async fn a_tenant_is_found_by_its_id(directory: &dyn TenantDirectory) {
    for expected in tenants() {
        let found = directory.find(&TenantClaim::Id(expected.id().clone())).await.expect("the directory answers");
        assert_eq!(found.as_deref(), Some(&expected));
    }
}

/// Every host that a tenant lists leads to it.
pub async fn a_tenant_is_found_by_each_of_its_hosts(directory: &dyn TenantDirectory) {
    for expected in tenants() {
        for host in expected.hosts() {
            assert_eq!(found(directory, by_host(host)).await.as_deref(), Some(expected.id().as_str()), "{host}");
        }
    }
}

/// Every key of a tenant leads to it.
pub async fn a_tenant_is_found_by_each_of_its_keys(directory: &dyn TenantDirectory) {
    for (key, owner) in KEYS {
        assert_eq!(found(directory, TenantClaim::Key(KeyHash::of(key))).await.as_deref(), Some(owner), "{key}");
    }
}

/// What is merely like a claim of some tenant finds nobody.
pub async fn nobody_is_found_by_what_nobody_claims(directory: &dyn TenantDirectory) {
    for id in ["initech", "acm", "acme-e", "acme-eu-2", "example"] {
        assert_eq!(found(directory, TenantClaim::Id(tenant(id))).await, None, "id {id}");
    }
    for host in
        ["acme.example.com", "evil.acme.example", "cme.example", "acme.exampl", "globex", "%", "*", "ACME.EXAMPLE"]
    {
        assert_eq!(found(directory, by_host(host)).await, None, "host {host}");
    }
    for key in ["", "abcd", "ab", "ABC", "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"] {
        assert_eq!(found(directory, TenantClaim::Key(KeyHash::of(key))).await, None, "key {key}");
    }
}

/// Whatever is asked, the tenant that comes back has the id, host or key that it was asked for.
pub async fn whoever_is_found_makes_the_claim(directory: &dyn TenantDirectory) {
    let mut names: Vec<String> = tenants().iter().map(|tenant| tenant.id().to_string()).collect();
    names.extend(tenants().iter().flat_map(|tenant| tenant.hosts().clone()));
    names.extend(KEYS.iter().map(|(key, _)| (*key).to_owned()));
    for name in &names {
        let key = KeyHash::of(name);
        if let Some(tenant) = directory.find(&by_host(name)).await.expect("the directory answers") {
            assert!(tenant.hosts().contains(name), "host {name} found {}", tenant.id());
        }
        if let Some(tenant) = directory.find(&TenantClaim::Key(key)).await.expect("the directory answers") {
            assert!(tenant.keys().iter().any(|it| it.hash == key), "key {name} found {}", tenant.id());
        }
        let Ok(id) = name.parse() else { continue };
        if let Some(tenant) = directory.find(&TenantClaim::Id(id)).await.expect("the directory answers") {
            assert_eq!(tenant.id().as_str(), name);
        }
    }
}

/// An origin is allowed when some tenant lists it, letter for letter.
pub async fn origins_of_any_tenant_are_allowed_and_no_others(directory: &dyn TenantDirectory) {
    let allows = async |origin: &'static str| directory.allows_origin(origin).await.expect("the directory answers");
    assert!(allows("https://app.acme.example").await);
    for origin in ["", "*", "null", "http://app.acme.example", "https://app.acme.example:444", "https://acme.example"] {
        assert!(!allows(origin).await, "{origin}");
    }
}

/// A tenant's claims lead to it alone, and to its own configuration.
pub async fn tenants_are_isolated(directory: &dyn TenantDirectory) {
    assert_eq!(found(directory, by_host("acme")).await.as_deref(), Some("acme-eu"), "a host is no id");
    assert_eq!(found(directory, TenantClaim::Id(tenant("acme"))).await.as_deref(), Some("acme"));
    for expected in tenants() {
        let mut claims = vec![TenantClaim::Id(expected.id().clone())];
        claims.extend(expected.hosts().iter().map(|host| by_host(host)));
        claims.extend(expected.keys().iter().map(|key| TenantClaim::Key(key.hash)));
        for claim in claims {
            let found = directory.find(&claim).await.expect("the directory answers");
            assert_eq!(found.as_deref(), Some(&expected), "{claim:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tenants_files_hold_the_hashes_of_the_keys() {
        for (key, owner) in KEYS {
            let owners: Vec<_> =
                tenants().into_iter().filter(|it| it.keys().iter().any(|k| k.hash == KeyHash::of(key))).collect();
            assert_eq!(owners.len(), 1);
            assert_eq!(owners[0].id().as_str(), owner);
        }
    }
}
