//! The names of Durable Objects, of what is in KV's cache, and of Vectorize's namespaces. Nothing else makes one.

use enigma_core::limit::Subject;
use enigma_core::{SessionId, TenantId};
use sha2::{Digest, Sha256};

/// The longest subject that stands in a name as it is, in bytes. The platform bounds names, and users' names may be long.
const LONGEST_SUBJECT: usize = 256;

/// The classes of objects, and the bindings through which they are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Class {
    ChatSession,
    RateLimiter,
    TenantLedger,
}

impl Class {
    /// The binding.
    pub(crate) const fn binding(self) -> &'static str {
        match self {
            Self::ChatSession => "CHAT_SESSION",
            Self::RateLimiter => "RATE_LIMITER_DO",
            Self::TenantLedger => "TENANT_LEDGER",
        }
    }
}

/// An object of one tenant: `tenant:session`, `tenant:ratelimit:subject`, or `tenant`.
///
/// A tenant's id has no `:`, so that no name of one tenant is one of another's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ObjectName {
    class: Class,
    name: String,
}

impl ObjectName {
    /// The object that keeps a session.
    pub(crate) fn session(tenant: &TenantId, session: &SessionId) -> Self {
        Self { class: Class::ChatSession, name: format!("{tenant}:{session}") }
    }

    /// The object that counts the requests of a subject. Those of the tenant as a whole are counted where its books are.
    pub(crate) fn limiter(tenant: &TenantId, subject: &Subject) -> Self {
        if *subject == Subject::whole_tenant() {
            return Self::ledger(tenant);
        }
        let subject = subject.as_str();
        let name = if subject.len() <= LONGEST_SUBJECT {
            format!("{tenant}:ratelimit:{subject}")
        } else {
            // No subject that stands there as it is begins so: subjects begin with their kind.
            format!("{tenant}:ratelimit:sha256:{}", hex::encode(Sha256::digest(subject)))
        };
        Self { class: Class::RateLimiter, name }
    }

    /// The object that keeps what concerns the tenant as a whole.
    pub(crate) fn ledger(tenant: &TenantId) -> Self {
        Self { class: Class::TenantLedger, name: tenant.as_str().to_owned() }
    }

    /// The object's class.
    pub(crate) const fn class(&self) -> Class {
        self.class
    }

    /// The name within its class.
    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }
}

/// The longest key of a cache that stands in KV's as it is, in bytes. KV's keys have 512.
const LONGEST_KEY: usize = 256;

/// What an entry of a tenant's cache is called in KV: `tenant:cache:key`, or by the key's hash where KV might not take it.
pub(crate) fn cache_key(tenant: &TenantId, key: &str) -> String {
    const HASHED: &str = "sha256.";
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'-' | b'_');
    if key.len() <= LONGEST_KEY && key.bytes().all(is_plain) {
        return format!("{tenant}:cache:{key}");
    }
    // No key that stands there as it is has a dot.
    format!("{tenant}:cache:{HASHED}{}", hex::encode(Sha256::digest(key)))
}

/// The longest name of a namespace, in bytes.
const LONGEST_NAMESPACE: usize = 64;

/// The namespace that a tenant's file names, or its hash where Vectorize would not take it.
pub(crate) fn vector_namespace(name: &str) -> String {
    if (1..=LONGEST_NAMESPACE).contains(&name.len()) {
        return name.to_owned();
    }
    hex::encode(Sha256::digest(name))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn tenant(id: &str) -> TenantId {
        TenantId::new(id).unwrap()
    }

    #[test]
    fn names_are_those_that_operators_look_for() {
        let (acme, session) = (tenant("acme"), SessionId::new(Uuid::nil()));
        let alice = ObjectName::limiter(&acme, &Subject::new("user", "alice"));
        assert_eq!((alice.class(), alice.as_str()), (Class::RateLimiter, "acme:ratelimit:user:alice"));
        let kept = ObjectName::session(&acme, &session);
        assert_eq!(kept.class(), Class::ChatSession);
        assert_eq!(kept.as_str(), "acme:00000000-0000-0000-0000-000000000000");
        let books = ObjectName::ledger(&acme);
        assert_eq!((books.class(), books.as_str()), (Class::TenantLedger, "acme"));
        assert_eq!(ObjectName::limiter(&acme, &Subject::whole_tenant()), books);
    }

    #[test]
    fn a_long_subject_is_named_by_its_hash_and_no_other_has_that_name() {
        let acme = tenant("acme");
        let long =
            |last: char| ObjectName::limiter(&acme, &Subject::new("user", &format!("{}{last}", "ü".repeat(200))));
        assert_ne!(long('a'), long('b'));
        assert!(long('a').as_str().len() < 100);
        let imitation = long('a').as_str().strip_prefix("acme:ratelimit:").unwrap().to_owned();
        assert_ne!(ObjectName::limiter(&acme, &Subject::new("user", &imitation)), long('a'));
    }

    #[test]
    fn keys_of_the_cache_are_short_and_apart() {
        let acme = tenant("acme");
        assert_eq!(cache_key(&acme, "search:7:abc"), "acme:cache:search:7:abc");
        let hashed = cache_key(&acme, "a b");
        let imitation = hashed.strip_prefix("acme:cache:").unwrap();
        let keys = ["a b", "a\0b", "", "ä", imitation, &"x".repeat(257), &"x".repeat(258), "a", "a:b"];
        let made: HashSet<_> = keys.iter().map(|key| cache_key(&acme, key)).collect();
        assert_eq!(made.len(), keys.len());
        assert!(made.iter().all(|key| key.len() <= 512 && key.is_ascii()));
        // Of another tenant, whatever the key is.
        assert_ne!(cache_key(&tenant("acme-eu"), "a"), cache_key(&acme, "-eu:cache:a"));
    }

    #[test]
    fn namespaces_are_short() {
        assert_eq!(vector_namespace("acme-eu"), "acme-eu");
        assert_eq!([vector_namespace(""), vector_namespace(&"ü".repeat(33))].map(|it| it.len()), [64, 64]);
    }

    proptest! {
        #[test]
        fn objects_of_two_tenants_or_subjects_never_share_a_name(
            tenants in proptest::collection::hash_set("[a-z0-9]{1,3}(-[a-z0-9]{1,2})?", 2..5),
            subjects in proptest::collection::hash_set("[a-z:]{0,6}", 1..5),
        ) {
            let (mut names, mut made) = (HashSet::new(), 0);
            for id in &tenants {
                let id = tenant(id);
                names.insert(ObjectName::ledger(&id));
                names.insert(ObjectName::session(&id, &SessionId::new(Uuid::nil())));
                made += 2;
                for subject in &subjects {
                    names.insert(ObjectName::limiter(&id, &Subject::new("user", subject)));
                    made += 1;
                }
            }
            prop_assert_eq!(names.len(), made);
        }
    }
}
