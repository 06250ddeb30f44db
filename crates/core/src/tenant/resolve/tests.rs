use async_trait::async_trait;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::ports::{MockTokenVerifier, VerifiedToken};
use crate::tenant::TenantIndex;

struct Directory(TenantIndex);

#[async_trait]
impl TenantDirectory for Directory {
    async fn find<'a>(&self, claim: &TenantClaim<'a>) -> Result<Option<Arc<Tenant>>, PortError> {
        Ok(self.0.find(claim).cloned())
    }

    async fn allows_origin(&self, origin: &str) -> Result<bool, PortError> {
        Ok(self.0.allows_origin(origin))
    }
}

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn resolver() -> Resolver {
    let tenant = |id: &str, mode: &str| {
        let mut auth = serde_json::json!({ "mode": mode });
        if mode == "jwt" {
            auth = serde_json::json!({ "mode": mode, "issuer": "i", "audience": "a", "jwks": { "file": "f" } });
        }
        let json = serde_json::json!({
            "tenantId": id, "aiModels": { "chat": "m" }, "auth": auth,
            "allowedHosts": [format!("{id}.example")],
            "apiKeys": [
                KeyHash::of(&format!("{id}-key")).to_string(),
                { "hash": KeyHash::of(&format!("{id}-old")).to_string(), "expiresAt": "2020-01-01T00:00:00Z" },
                { "hash": KeyHash::of(&format!("{id}-search")).to_string(), "scopes": ["search"] },
            ],
        });
        Tenant::from_json(&json.to_string()).unwrap()
    };
    let index =
        TenantIndex::new([tenant("a", "apiKey"), tenant("b", "apiKey"), tenant("open", "open"), tenant("jwt", "jwt")]);
    Resolver::new(Arc::new(Directory(index.unwrap())), None)
}

fn enter(tenant: Option<&str>, host: Option<&str>, secret: Option<&str>) -> Result<TenantContext, AccessError> {
    let resolver = resolver();
    let identity = RequestIdentity { tenant, host, presented: secret.map(Presented::new) };
    let address = ClientAddress::new("192.0.2.1");
    async {
        let tenant = resolver.resolve(&identity).await?;
        resolver.authenticate(tenant, identity.presented.as_ref(), &address, NOW).await
    }
    .now_or_never()
    .unwrap()
}

fn outcome(result: Result<TenantContext, AccessError>) -> String {
    match result {
        Ok(context) => context.id().to_string(),
        Err(AccessError::TenantRequired) => "required".into(),
        Err(AccessError::TenantUnknown) => "unknown".into(),
        Err(AccessError::Unauthorized | AccessError::BadCredentials) => "unauthorized".into(),
        Err(AccessError::TenantMismatch) => "mismatch".into(),
        Err(AccessError::Port(error)) => panic!("{error}"),
    }
}

proptest! {
    /// The oracle: section 1 of the HTTP contract, row by row.
    #[test]
    fn header_then_host_then_key_and_nothing_unknown_falls_through(
        header in proptest::option::of(prop_oneof!["a", "b", "open", "jwt", "ghost", "Not An Id"]),
        host in proptest::option::of(prop_oneof!["a.example", "B.example:99", "open.example", "other.example", "%"]),
        secret in proptest::option::of(prop_oneof!["a-key", "b-key", "a-old", "b-old", "rubbish", "a-search"]),
    ) {
        let owner_of_key = secret.as_deref().and_then(|s| s.split_once('-')).map(|(owner, _)| owner);
        let by_host = host.as_deref().and_then(|h| match h.to_ascii_lowercase().split_once(".example").map(|(n, _)| n.to_owned()) {
            Some(name) if name != "other" => Some(name),
            _ => None,
        });
        let named = match header.as_deref() {
            Some("ghost" | "Not An Id") => Err("unknown"),
            Some(known) => Ok(known.to_owned()),
            None => match (by_host, secret.as_deref(), owner_of_key) {
                (Some(host), _, _) => Ok(host),
                (None, Some(_), Some(owner)) => Ok(owner.to_owned()),
                (None, Some(_), None) => Err("unauthorized"),
                (None, None, _) => Err("required"),
            },
        };
        let live = secret.as_deref().is_some_and(|s| !s.ends_with("-old") && s != "rubbish");
        let expected = match named {
            Err(error) => error.to_owned(),
            Ok(tenant) => match (owner_of_key, live) {
                (Some(owner), true) if owner == tenant => tenant,
                (Some(owner), true) if owner != tenant => "mismatch".to_owned(),
                _ if tenant == "open" && (secret.is_none() || secret.as_deref() == Some("rubbish")) => tenant,
                _ => "unauthorized".to_owned(),
            },
        };
        prop_assert_eq!(outcome(enter(header.as_deref(), host.as_deref(), secret.as_deref())), expected);
    }
}

#[test]
fn scopes_are_those_of_the_key() {
    let context = enter(None, None, Some("a-search")).unwrap();
    assert_eq!(context.require(Scope::Search), Ok(()));
    assert_eq!(context.require(Scope::Chat), Err(ScopeRequired(Scope::Chat)));
    let context = enter(Some("open"), None, None).unwrap();
    assert_eq!(context.require(Scope::Chat), Ok(()));
    assert!(context.require(Scope::Admin).is_err());
}

#[test]
fn who_shows_no_credentials_cannot_choose_a_name() {
    use crate::tenant::UserHints;
    let hints = || UserHints { body: Some("alice".parse().unwrap()), header: Some("bob".parse().unwrap()) };
    let open = enter(Some("open"), None, None).unwrap();
    assert_eq!(open.caller(hints()).user.as_str(), "192.0.2.1");
    assert_eq!(open.caller(hints()).subject, open.caller(UserHints::default()).subject);
    let key = enter(None, None, Some("a-key")).unwrap();
    assert_eq!(key.caller(hints()).user.as_str(), "alice");
    assert_eq!(key.caller(UserHints { body: None, ..hints() }).user.as_str(), "bob");
    assert_eq!(key.caller(UserHints::default()).user.as_str(), KeyHash::of("a-key").default_id().as_str());
}

/// A verifier that says this of every token.
fn with_verifier(says: impl Fn() -> Result<Option<VerifiedToken>, PortError> + Send + 'static) -> Resolver {
    let mut verifier = MockTokenVerifier::new();
    verifier.expect_verify().times(0..=1).returning(move |_, _, _| says());
    Resolver { tokens: Some(Arc::new(verifier)), ..resolver() }
}

fn enter_with_token(resolver: &Resolver, tenant: &str, token: &str) -> Result<TenantContext, AccessError> {
    let identity = RequestIdentity { tenant: Some(tenant), host: None, presented: Some(Presented::new(token)) };
    async {
        let tenant = resolver.resolve(&identity).await?;
        resolver.authenticate(tenant, identity.presented.as_ref(), &ClientAddress::new("192.0.2.1"), NOW).await
    }
    .now_or_never()
    .unwrap()
}

#[test]
fn a_token_names_its_user_and_nothing_that_the_request_says_does() {
    use crate::tenant::UserHints;
    let alice = || {
        let scopes = [Scope::Search].into_iter().collect();
        Ok(Some(VerifiedToken { user: "alice".parse().unwrap(), scopes }))
    };
    let context = enter_with_token(&with_verifier(alice), "jwt", "a.b.c").unwrap();
    let hints = UserHints { body: Some("bob".parse().unwrap()), header: Some("carol".parse().unwrap()) };
    assert_eq!(context.caller(hints.clone()), context.caller(UserHints::default()));
    assert_eq!(context.caller(hints).user.as_str(), "alice");
    assert_eq!(context.confined_to().unwrap().as_str(), "alice");
    assert_eq!(context.require(Scope::Search), Ok(()));
    assert!(context.require(Scope::Chat).is_err());
}

#[test]
fn only_a_tenant_of_mode_jwt_takes_tokens_and_only_what_could_be_one_is_verified() {
    let never = || with_verifier(|| panic!("nobody should ask"));
    for (tenant, shown) in [("a", "a.b.c"), ("jwt", "no-token"), ("jwt", "jwt-key"), ("jwt", "a.b"), ("jwt", "a.b.c.d")]
    {
        let entered = enter_with_token(&never(), tenant, shown);
        assert!(matches!(entered, Err(AccessError::BadCredentials)), "{tenant} {shown}");
    }
    assert!(matches!(enter_with_token(&never(), "jwt", "a-key"), Err(AccessError::TenantMismatch)));
    assert!(enter_with_token(&never(), "a", "a-key").unwrap().confined_to().is_none(), "a key speaks for everybody");
}

#[test]
fn a_token_that_cannot_be_checked_opens_nothing() {
    let refused = enter_with_token(&with_verifier(|| Ok(None)), "jwt", "a.b.c");
    assert!(matches!(refused, Err(AccessError::BadCredentials)));
    let unable = with_verifier(|| Err(PortError::unavailable("token verifier", "no keys")));
    assert!(matches!(enter_with_token(&unable, "jwt", "a.b.c"), Err(AccessError::Port(_))));
}
