//! Tenants' files.

use std::time::Duration;

use enigma_core::tenant::{DeploymentRules, Tenant, TenantIndex, TokenSupport, judge, normalise_host, oddities};

/// Reads a tenant's file.
pub fn tenant_config(file: &[u8]) {
    let Ok(text) = std::str::from_utf8(file) else { return };
    match Tenant::from_json(text) {
        Ok(tenant) => check(&tenant),
        Err(error) => assert!(!error.field.is_empty() && !error.reason.is_empty(), "{error:?}"),
    }
}

fn check(tenant: &Tenant) {
    for policy in [tenant.user_window(), tenant.tenant_window()] {
        for window in [policy.sustained, policy.burst] {
            assert!(window.limit > 0 && window.length > Duration::ZERO, "{tenant:?}");
        }
        assert!(policy.burst.length <= policy.sustained.length, "{tenant:?}");
    }
    assert!(tenant.concurrency().max_streams > 0, "{tenant:?}");
    let budget = tenant.budget();
    assert!([budget.daily, budget.monthly].into_iter().flatten().all(|tokens| tokens > 0), "{tenant:?}");
    for host in tenant.hosts() {
        assert_eq!(normalise_host(host).as_deref(), Some(host.as_str()), "a host is not in its normal form");
    }
    let cors = tenant.cors();
    assert!(!(cors.allowed_origins.contains("*") && cors.allow_credentials), "{tenant:?}");
    for (n, key) in tenant.keys().iter().enumerate() {
        assert!(tenant.keys()[..n].iter().all(|other| other.hash != key.hash && other.id != key.id), "{tenant:?}");
    }

    // Whatever one tenant says, it cannot be in its own way, and never in that of the others.
    let index = TenantIndex::new([tenant.clone()]).expect("a tenant has no conflict with itself");
    assert_eq!(index.tenants().count(), 1);
    for production in [false, true] {
        for serves in [false, true] {
            let serves = |_: &Tenant, _: &_, _| serves;
            for problem in
                judge(tenant, DeploymentRules { production, serves: Some(&serves), tokens: TokenSupport::UrlsAndFiles })
            {
                assert_eq!(problem.tenant, *tenant.id());
            }
        }
    }
    assert!(oddities(tenant).iter().all(|oddity| oddity.tenant == *tenant.id()));
}
