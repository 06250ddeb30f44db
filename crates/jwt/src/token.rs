//! A token in its compact form: `HEADER.CLAIMS.SIGNATURE`, each in base64url.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enigma_core::token::{TokenAlgorithm, TokenPolicy};
use serde::Deserialize;
use serde_json::{Map, Value};
use thiserror::Error;

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is not even checked. For operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum HeaderRefused {
    #[error("it is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong,
    #[error("it is not a signed token in the compact form")]
    Malformed,
    #[error("its algorithm is none that the tenant allows")]
    Algorithm,
    #[error("it demands an extension that is not understood")]
    Critical,
    #[error("it is of another type than the tenant demands")]
    Type,
}

/// What of a header counts. A key that it brings along (`jwk`, `x5c`), or tells to fetch (`jku`, `x5u`), does not.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    /// Whatever stands there: RFC 7515 wants it refused unless all of it is understood, and nothing of it is.
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

fn is_there<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer).map(|_| true)
}

/// A token whose header will do, and whose signature is to be checked.
#[derive(Debug)]
pub(crate) struct Unverified<'a> {
    pub(crate) algorithm: TokenAlgorithm,
    pub(crate) key_id: Option<String>,
    /// What was signed.
    pub(crate) message: &'a str,
    pub(crate) signature: Vec<u8>,
    claims: &'a str,
}

impl<'a> Unverified<'a> {
    /// Reads a token of a tenant of such a policy.
    pub(crate) fn read(token: &'a str, policy: &TokenPolicy) -> Result<Self, HeaderRefused> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(HeaderRefused::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(HeaderRefused::Malformed)?;
        let (header, claims) = message.split_once('.').ok_or(HeaderRefused::Malformed)?;
        let signature = decode(signature).ok_or(HeaderRefused::Malformed)?;
        let header = decode(header).ok_or(HeaderRefused::Malformed)?;
        let header: Header = serde_json::from_slice(&header).map_err(|_| HeaderRefused::Malformed)?;
        let algorithm = TokenAlgorithm::named(&header.alg).filter(|named| policy.algorithms.contains(named));
        let algorithm = algorithm.ok_or(HeaderRefused::Algorithm)?;
        if header.crit {
            return Err(HeaderRefused::Critical);
        }
        if !policy.accepts_type(header.typ.as_deref()) {
            return Err(HeaderRefused::Type);
        }
        Ok(Self { algorithm, key_id: header.kid, message, signature, claims })
    }

    /// Its claims; `None` where they are no object. Only to be asked for when the signature is good.
    pub(crate) fn claims(&self) -> Option<Map<String, Value>> {
        serde_json::from_slice(&decode(self.claims)?).ok()
    }
}

/// Base64url without padding, and nothing that could also be written otherwise.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use enigma_core::tenant::Tenant;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::key_set::{Found, KeySet};
    use crate::testing::Signer;

    static SIGNED: LazyLock<(KeySet, TokenPolicy, Vec<String>)> = LazyLock::new(|| {
        let signers = [Signer::rsa(), Signer::p256(), Signer::ed25519()];
        let keys: Vec<_> = signers.iter().map(|signer| signer.public(Some("k"))).collect();
        let file = json!({ "tenantId": "a", "aiModels": { "chat": "m" }, "auth": {
            "mode": "jwt", "issuer": "i", "audience": "a", "jwks": { "file": "f" },
        } });
        let policy = Tenant::from_json(&file.to_string()).unwrap().token_policy().unwrap().clone();
        let tokens = signers.iter().map(|signer| signer.token("k", &json!({ "sub": "alice" }))).collect();
        (KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap(), policy, tokens)
    });

    fn is_signed(token: &str) -> bool {
        let (keys, policy, _) = &*SIGNED;
        Unverified::read(token, policy).is_ok_and(|token| match keys.find(token.key_id.as_deref(), token.algorithm) {
            Found::Key(key) => key.has_signed(token.message.as_bytes(), &token.signature),
            Found::Unknown | Found::Several => false,
        })
    }

    #[test]
    fn each_part_is_there_once() {
        for token in &SIGNED.2 {
            assert!(is_signed(token));
            let read = Unverified::read(token, &SIGNED.1).unwrap();
            assert_eq!(read.claims().unwrap()["sub"], "alice");
            for odd in [format!("x.{token}"), format!("{token}.x"), format!("{token}="), token.replace('.', "")] {
                assert!(!is_signed(&odd), "{odd}");
            }
        }
        let policy = &SIGNED.1;
        assert_eq!(Unverified::read(&"x".repeat(MAX_TOKEN_BYTES + 1), policy).unwrap_err(), HeaderRefused::TooLong);
        assert_eq!(Unverified::read("", policy).unwrap_err(), HeaderRefused::Malformed);
    }

    proptest! {
        /// Whatever is written in place of whatever.
        #[test]
        fn a_token_of_which_anything_was_changed_is_not_signed(
            which in 0usize..3, place in any::<prop::sample::Index>(), put in "[A-Za-z0-9_.=+/-]{0,3}",
        ) {
            let token = &SIGNED.2[which];
            let place = place.index(token.len());
            let changed = format!("{}{put}{}", &token[..place], &token[place + 1..]);
            prop_assert!(changed == *token || !is_signed(&changed), "{}", changed);
        }

        #[test]
        fn no_text_is_signed_by_chance(header in ".{0,40}", claims in "\\PC{0,40}", signature in "[A-Za-z0-9_-]{0,100}") {
            let header = URL_SAFE_NO_PAD.encode(header);
            prop_assert!(!is_signed(&claims));
            let token = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims));
            prop_assert!(!is_signed(&token));
        }
    }
}
