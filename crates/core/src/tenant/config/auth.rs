//! The section `auth`.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::{AuthMode, TenantConfigError, within};
use crate::tenant::normalise_host;
use crate::token::{KeySetLocation, TokenAlgorithm, TokenPolicy, plain_type};

/// The longest text of this section.
const MAX_TEXT: usize = 2048;
/// The most audiences.
const MAX_AUDIENCES: usize = 32;
/// How far an issuer's clock may be from ours, in seconds, where the file does not say.
const DEFAULT_SKEW: u32 = 60;
/// The most that it can say.
const MAX_SKEW: u32 = 300;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RawAuth {
    mode: Option<AuthMode>,
    #[serde(default)]
    allow_open_in_production: bool,
    issuer: Option<String>,
    audience: Option<RawAudience>,
    jwks: Option<RawJwks>,
    algorithms: Option<Vec<TokenAlgorithm>>,
    scopes_claim: Option<String>,
    clock_skew_seconds: Option<u32>,
    required_type: Option<String>,
}

struct RawAudience(Vec<String>);

impl<'de> Deserialize<'de> for RawAudience {
    /// One text, or several.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(one) => Ok(vec![one]),
            list => Vec::deserialize(list),
        };
        texts.map(Self).map_err(|_| serde::de::Error::custom("must be a text or a list of texts"))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawJwks {
    url: Option<String>,
    file: Option<String>,
}

/// What a checked section says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Auth {
    pub(super) mode: AuthMode,
    pub(super) allow_open_in_production: bool,
    pub(super) tokens: Option<TokenPolicy>,
}

impl TryFrom<RawAuth> for Auth {
    type Error = TenantConfigError;

    fn try_from(raw: RawAuth) -> Result<Self, TenantConfigError> {
        let mode = raw.mode.unwrap_or(AuthMode::ApiKey);
        let allow_open_in_production = raw.allow_open_in_production;
        let tokens = if mode == AuthMode::Jwt {
            Some(tokens(raw)?)
        } else {
            // Who wrote them believes that tokens are asked for.
            let given = [
                ("issuer", raw.issuer.is_some()),
                ("audience", raw.audience.is_some()),
                ("jwks", raw.jwks.is_some()),
                ("algorithms", raw.algorithms.is_some()),
                ("scopesClaim", raw.scopes_claim.is_some()),
                ("clockSkewSeconds", raw.clock_skew_seconds.is_some()),
                ("requiredType", raw.required_type.is_some()),
            ];
            if let Some((name, _)) = given.into_iter().find(|(_, is_given)| *is_given) {
                return Err(error(name, "is for mode jwt only"));
            }
            None
        };
        Ok(Self { mode, allow_open_in_production, tokens })
    }
}

fn tokens(raw: RawAuth) -> Result<TokenPolicy, TenantConfigError> {
    let missing = |name| move || error(name, "must be there in mode jwt");
    let issuer = text("issuer", raw.issuer.ok_or_else(missing("issuer"))?)?;
    let RawAudience(listed) = raw.audience.ok_or_else(missing("audience"))?;
    if listed.is_empty() || listed.len() > MAX_AUDIENCES {
        return Err(error("audience", format!("must be 1 to {MAX_AUDIENCES}")));
    }
    let audiences = listed.into_iter().map(|one| text("audience", one)).collect::<Result<BTreeSet<_>, _>>()?;
    let keys = location(raw.jwks.ok_or_else(missing("jwks"))?)?;
    let algorithms: BTreeSet<_> = raw.algorithms.map_or_else(|| TokenAlgorithm::ALL.into(), BTreeSet::from_iter);
    if algorithms.is_empty() {
        return Err(error("algorithms", "must name at least one"));
    }
    let skew = within("auth.clockSkewSeconds", raw.clock_skew_seconds.unwrap_or(DEFAULT_SKEW), 0, MAX_SKEW)?;
    Ok(TokenPolicy {
        issuer,
        audiences,
        keys,
        algorithms,
        scopes_claim: raw.scopes_claim.map(|name| text("scopesClaim", name)).transpose()?,
        clock_skew: Duration::from_secs(skew.into()),
        required_type: raw.required_type.map(|name| text("requiredType", name)).transpose()?.as_deref().map(plain_type),
    })
}

fn location(raw: RawJwks) -> Result<KeySetLocation, TenantConfigError> {
    match (raw.url, raw.file) {
        (Some(url), None) if is_url(&url) => Ok(KeySetLocation::Url(url)),
        // The reason does not repeat the value: it may hold a password.
        (Some(_), None) => Err(error(
            "jwks.url",
            "must be an https URL, or outside production an http one, without user information and fragment",
        )),
        (None, Some(file)) => Ok(KeySetLocation::File(text("jwks.file", file)?)),
        _ => Err(error("jwks", "must have either url or file")),
    }
}

fn is_url(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once("://") else { return false };
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    matches!(scheme, "http" | "https")
        && url.len() <= MAX_TEXT
        && url.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'#' | b'\\' | b'"' | b'<' | b'>'))
        && normalise_host(authority).is_some()
}

fn text(name: &str, value: String) -> Result<String, TenantConfigError> {
    if value.is_empty() || value.len() > MAX_TEXT || value.chars().any(char::is_control) {
        return Err(error(name, format!("must be 1 to {MAX_TEXT} bytes without control characters")));
    }
    Ok(value)
}

fn error(name: &str, reason: impl std::fmt::Display) -> TenantConfigError {
    TenantConfigError::new(format!("auth.{name}"), reason)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::tenant::Tenant;

    fn tenant(auth: &Value) -> Result<Tenant, TenantConfigError> {
        Tenant::from_json(&json!({ "tenantId": "a", "aiModels": { "chat": "m" }, "auth": auth }).to_string())
    }

    fn minimal() -> Value {
        json!({
            "mode": "jwt", "issuer": "https://login.example/", "audience": "chat",
            "jwks": { "url": "https://login.example/keys.json" },
        })
    }

    fn with(name: &str, value: Value) -> Result<Tenant, TenantConfigError> {
        let mut auth = minimal();
        auth[name] = value;
        tenant(&auth)
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let tenant = tenant(&minimal()).unwrap();
        let expected = TokenPolicy {
            issuer: "https://login.example/".into(),
            audiences: ["chat".to_owned()].into(),
            keys: KeySetLocation::Url("https://login.example/keys.json".into()),
            algorithms: TokenAlgorithm::ALL.into(),
            scopes_claim: None,
            clock_skew: Duration::from_secs(60),
            required_type: None,
        };
        assert_eq!((tenant.auth_mode(), tenant.token_policy()), (AuthMode::Jwt, Some(&expected)));
    }

    #[test]
    fn every_field_is_read() {
        let tenant = tenant(&json!({
            "mode": "jwt", "issuer": "acme", "audience": ["a", "b"], "jwks": { "file": "acme/jwks.json" },
            "algorithms": ["EdDSA", "ES256"], "scopesClaim": "scope", "clockSkewSeconds": 0,
            "requiredType": "application/AT+jwt",
        }));
        let policy = tenant.unwrap().token_policy().unwrap().clone();
        assert_eq!(policy.audiences.len(), 2);
        assert_eq!(policy.keys, KeySetLocation::File("acme/jwks.json".into()));
        assert_eq!(policy.algorithms, [TokenAlgorithm::Es256, TokenAlgorithm::EdDsa].into());
        assert_eq!((policy.scopes_claim.as_deref(), policy.clock_skew), (Some("scope"), Duration::ZERO));
        for (given, accepted) in
            [(Some("at+jwt"), true), (Some("application/at+JWT"), true), (Some("JWT"), false), (None, false)]
        {
            assert_eq!(policy.accepts_type(given), accepted, "{given:?}");
        }
    }

    #[test]
    fn a_bad_field_is_named_with_its_reason() {
        let url = |url: &str| json!({ "url": url });
        for (name, value, field, reason) in [
            ("issuer", json!(null), "auth.issuer", "must be there"),
            ("issuer", json!(""), "auth.issuer", "1 to 2048"),
            ("audience", json!(null), "auth.audience", "must be there"),
            ("audience", json!([]), "auth.audience", "1 to 32"),
            ("audience", json!([""]), "auth.audience", "1 to 2048"),
            ("audience", json!(7), "auth.audience", "a text or a list"),
            ("jwks", json!(null), "auth.jwks", "must be there"),
            ("jwks", json!({}), "auth.jwks", "either url or file"),
            ("jwks", json!({ "url": "https://a.example/", "file": "f" }), "auth.jwks", "either url or file"),
            ("jwks", json!({ "uri": "https://a.example/" }), "auth.jwks.uri", "unknown field"),
            ("jwks", url("ftp://a.example/keys"), "auth.jwks.url", "https"),
            ("jwks", url("a.example/keys"), "auth.jwks.url", "https"),
            ("jwks", url("https://user:hunter22@a.example/keys"), "auth.jwks.url", "user information"),
            ("jwks", url("https://a.example/keys#1"), "auth.jwks.url", "fragment"),
            ("jwks", url("https:///keys"), "auth.jwks.url", "https"),
            ("jwks", url("https://a.example/a b"), "auth.jwks.url", "https"),
            ("jwks", json!({ "file": "" }), "auth.jwks.file", "1 to 2048"),
            ("algorithms", json!([]), "auth.algorithms", "at least one"),
            ("algorithms", json!(["none"]), "auth.algorithms[0]", "unknown variant"),
            ("algorithms", json!(["HS256"]), "auth.algorithms[0]", "unknown variant"),
            ("scopesClaim", json!(""), "auth.scopesClaim", "1 to 2048"),
            ("clockSkewSeconds", json!(301), "auth.clockSkewSeconds", "0 to 300"),
            ("requiredType", json!(""), "auth.requiredType", "1 to 2048"),
            ("mode", json!("open"), "auth.issuer", "mode jwt only"),
            ("mode", json!("apiKey"), "auth.issuer", "mode jwt only"),
        ] {
            let error = with(name, value.clone()).unwrap_err();
            assert!(error.field == field && error.reason.contains(reason), "{name} = {value}: {error}");
            assert!(!error.to_string().contains("hunter22"), "{error}");
        }
        let alone = tenant(&json!({ "mode": "jwt" })).unwrap_err();
        assert_eq!(alone.field, "auth.issuer");
    }
}
