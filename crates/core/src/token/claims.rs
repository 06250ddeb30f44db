//! What the claims of a token are worth whose signature is good.

use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::policy::TokenPolicy;
use crate::id::UserId;
use crate::ports::VerifiedToken;
use crate::tenant::{Scope, ScopeSet};
use crate::time::Timestamp;

/// Why a token opens nothing. For operators: whoever showed it is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClaimsRefused {
    /// Its issuer is missing or another one.
    #[error("the issuer is another one")]
    Issuer,
    /// It is meant for somebody else, or for nobody in particular.
    #[error("the audience is another one")]
    Audience,
    /// It does not say when it ends.
    #[error("there is no expiry")]
    NoExpiry,
    /// It has ended.
    #[error("it has expired")]
    Expired,
    /// It has not begun.
    #[error("it is not valid yet")]
    NotYet,
    /// It names no user, or one that cannot be.
    #[error("the subject is missing or cannot be a user")]
    Subject,
    /// A claim is not of the type that it must be.
    #[error("the claim {0} is of the wrong type")]
    Malformed(&'static str),
}

/// What `claims` say to a tenant of such a policy at `now`. The signature must have been checked.
///
/// # Errors
/// [`ClaimsRefused`].
pub fn accept(
    policy: &TokenPolicy,
    claims: &Map<String, Value>,
    now: Timestamp,
) -> Result<VerifiedToken, ClaimsRefused> {
    if claims.get("iss").and_then(Value::as_str) != Some(policy.issuer.as_str()) {
        return Err(ClaimsRefused::Issuer);
    }
    if !audiences(claims.get("aud"))?.any(|audience| policy.audiences.contains(audience)) {
        return Err(ClaimsRefused::Audience);
    }
    let expiry = time(claims, "exp")?.ok_or(ClaimsRefused::NoExpiry)?;
    if now >= expiry.saturating_add(policy.clock_skew) {
        return Err(ClaimsRefused::Expired);
    }
    if time(claims, "nbf")?.is_some_and(|begin| now.saturating_add(policy.clock_skew) < begin) {
        return Err(ClaimsRefused::NotYet);
    }
    let user = claims.get("sub").and_then(Value::as_str).and_then(|sub| UserId::new(sub).ok());
    let user = user.ok_or(ClaimsRefused::Subject)?;
    let scopes = match &policy.scopes_claim {
        Some(name) => scopes(claims.get(name))?,
        None => ScopeSet::usual(),
    };
    Ok(VerifiedToken { user, scopes })
}

/// One text, or a list of texts (RFC 7519, section 4.1.3).
fn audiences(claim: Option<&Value>) -> Result<impl Iterator<Item = &str>, ClaimsRefused> {
    texts(claim).ok_or(ClaimsRefused::Malformed("aud"))
}

/// A list of texts, or one text with spaces between (RFC 8693, section 4.2). What is no scope of ours is somebody else's. A
/// claim that is missing gives nothing.
fn scopes(claim: Option<&Value>) -> Result<ScopeSet, ClaimsRefused> {
    let listed = texts(claim).ok_or(ClaimsRefused::Malformed("of scopes"))?;
    let scope = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
    Ok(listed.flat_map(str::split_ascii_whitespace).filter_map(scope).collect())
}

/// The texts of a claim; `None` where it holds something else.
fn texts(claim: Option<&Value>) -> Option<impl Iterator<Item = &str>> {
    let values = match claim {
        None => &[],
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    values.iter().all(Value::is_string).then(|| values.iter().filter_map(Value::as_str))
}

fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, ClaimsRefused> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(seconds(number))),
        Some(_) => Err(ClaimsRefused::Malformed(name)),
    }
}

/// A number of seconds since the epoch, which may have a fraction (RFC 7519, section 2). What is before the epoch is the epoch.
fn seconds(number: &Number) -> Timestamp {
    let millis = match number.as_u64() {
        Some(seconds) => seconds.saturating_mul(1000),
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a cast of a number that does not fit ends at the type's bounds"
        )]
        None => (number.as_f64().unwrap_or(0.0) * 1000.0) as u64,
    };
    Timestamp::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::token::{KeySetLocation, TokenAlgorithm};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const SECONDS: u64 = 1_800_000_000;

    fn policy() -> TokenPolicy {
        TokenPolicy {
            issuer: "https://login.example/".into(),
            audiences: ["chat".to_owned(), "api".to_owned()].into(),
            keys: KeySetLocation::File("keys.json".into()),
            algorithms: TokenAlgorithm::ALL.into(),
            scopes_claim: None,
            clock_skew: Duration::from_secs(60),
            required_type: None,
        }
    }

    fn claims() -> Value {
        json!({ "iss": "https://login.example/", "aud": "chat", "sub": "alice", "exp": SECONDS + 300 })
    }

    fn judged(policy: &TokenPolicy, claims: &Value) -> Result<VerifiedToken, ClaimsRefused> {
        accept(policy, claims.as_object().unwrap(), NOW)
    }

    fn with(name: &str, value: Value) -> Result<VerifiedToken, ClaimsRefused> {
        let mut changed = claims();
        changed[name] = value;
        judged(&policy(), &changed)
    }

    fn without(name: &str) -> Result<VerifiedToken, ClaimsRefused> {
        let mut changed = claims();
        changed.as_object_mut().unwrap().remove(name);
        judged(&policy(), &changed)
    }

    #[test]
    fn a_good_token_names_its_user() {
        let token = judged(&policy(), &claims()).unwrap();
        assert_eq!((token.user.as_str(), token.scopes), ("alice", ScopeSet::usual()));
        assert!(with("iat", json!("whenever")).is_ok(), "what is not needed is not looked at");
    }

    #[test]
    fn the_issuer_is_compared_character_by_character() {
        for other in [json!("https://login.example"), json!("HTTPS://login.example/"), json!(""), json!(7), json!(null)]
        {
            assert_eq!(with("iss", other.clone()), Err(ClaimsRefused::Issuer), "{other}");
        }
        assert_eq!(with("iss", json!(["https://login.example/"])), Err(ClaimsRefused::Issuer));
        assert_eq!(without("iss"), Err(ClaimsRefused::Issuer));
    }

    #[test]
    fn one_of_the_audiences_must_be_ours() {
        for good in [json!("api"), json!(["other", "chat"])] {
            assert!(with("aud", good.clone()).is_ok(), "{good}");
        }
        for bad in [json!("other"), json!("chat api"), json!([]), json!("")] {
            assert_eq!(with("aud", bad.clone()), Err(ClaimsRefused::Audience), "{bad}");
        }
        assert_eq!(without("aud"), Err(ClaimsRefused::Audience));
        for odd in [json!({ "chat": 1 }), json!(["chat", 7]), json!(null)] {
            assert_eq!(with("aud", odd.clone()), Err(ClaimsRefused::Malformed("aud")), "{odd}");
        }
    }

    #[test]
    fn a_token_must_end_and_must_not_have_ended() {
        assert_eq!(without("exp"), Err(ClaimsRefused::NoExpiry));
        assert!(with("exp", json!(SECONDS - 59)).is_ok(), "the clocks may differ");
        assert_eq!(with("exp", json!(SECONDS - 60)), Err(ClaimsRefused::Expired));
        assert_eq!(with("exp", json!(-1)), Err(ClaimsRefused::Expired));
        assert!(with("exp", json!(1e300)).is_ok());
        assert!(with("exp", json!(1_799_999_940.5)).is_ok());
        for odd in [json!("1900000000"), json!(null), json!([1])] {
            assert_eq!(with("exp", odd.clone()), Err(ClaimsRefused::Malformed("exp")), "{odd}");
        }
    }

    #[test]
    fn a_token_must_have_begun() {
        assert!(with("nbf", json!(SECONDS + 60)).is_ok(), "the clocks may differ");
        assert_eq!(with("nbf", json!(SECONDS + 61)), Err(ClaimsRefused::NotYet));
        assert_eq!(with("nbf", json!(60_000.5 + 1_800_000_000.0)), Err(ClaimsRefused::NotYet));
        assert_eq!(with("nbf", json!("soon")), Err(ClaimsRefused::Malformed("nbf")));
    }

    #[test]
    fn the_subject_must_be_a_user() {
        for bad in [json!(""), json!("a\nb"), json!("x".repeat(300)), json!(7), json!(null)] {
            assert_eq!(with("sub", bad.clone()), Err(ClaimsRefused::Subject), "{bad}");
        }
        assert_eq!(without("sub"), Err(ClaimsRefused::Subject));
    }

    #[test]
    fn scopes_come_from_the_claim_that_is_named_and_from_nowhere_else() {
        let policy = TokenPolicy { scopes_claim: Some("scope".into()), ..policy() };
        let scopes = |value: Value| {
            let mut changed = claims();
            changed["scope"] = value;
            judged(&policy, &changed).map(|token| token.scopes)
        };
        let chat_and_admin: ScopeSet = [Scope::Chat, Scope::Admin].into_iter().collect();
        assert_eq!(scopes(json!("openid chat admin")), Ok(chat_and_admin));
        assert_eq!(scopes(json!(["admin", "chat", "profile"])), Ok(chat_and_admin));
        assert_eq!(scopes(json!("Chat chats")), Ok(ScopeSet::default()));
        assert_eq!(judged(&policy, &claims()).unwrap().scopes, ScopeSet::default(), "no claim, no scope");
        assert_eq!(scopes(json!(7)), Err(ClaimsRefused::Malformed("of scopes")));
    }

    proptest! {
        /// Whatever the times and the skew are.
        #[test]
        fn a_token_is_good_from_its_begin_to_its_end_give_or_take_the_skew(
            begin in 1_000_000u64..2_000_000, length in 0u64..10_000, now in 900_000u64..2_100_000, skew in 0u64..=300,
        ) {
            let policy = TokenPolicy { clock_skew: Duration::from_secs(skew), ..policy() };
            let mut token = claims();
            token["nbf"] = begin.into();
            token["exp"] = (begin + length).into();
            let now_is = Timestamp::from_millis(now * 1000);
            let good = accept(&policy, token.as_object().unwrap(), now_is).is_ok();
            prop_assert_eq!(good, now + skew >= begin && now < begin + length + skew);
        }
    }
}
