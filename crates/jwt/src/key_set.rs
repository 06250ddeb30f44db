//! A JSON Web Key Set, and which of its keys a token is checked with.

use enigma_core::token::TokenAlgorithm;
use serde::Deserialize;
use serde_json::Value;

use crate::signature::PublicKey;
use crate::source::{FetchError, MAX_KEY_SET_BYTES};
use crate::token::decode;

/// The most keys of a set.
pub const MAX_KEYS: usize = 100;

/// The shortest and longest modulus of an RSA key, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The longest exponent of an RSA key, in bytes.
const EXPONENT_BYTES: std::ops::RangeInclusive<usize> = 1..=4;

/// The keys of an issuer that tokens can be checked with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeySet(Vec<NamedKey>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct NamedKey {
    id: Option<String>,
    key: PublicKey,
}

/// Which key a token is to be checked with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// This one.
    Key(&'a PublicKey),
    /// There is none. The issuer may have a new one by now.
    Unknown,
    /// There are several, and nothing tells which.
    Several,
}

#[derive(Deserialize)]
struct RawSet {
    keys: Vec<Value>,
}

/// A key as it is published. What is not read here, such as certificates, does not count.
#[derive(Deserialize)]
struct RawKey {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Of a private key, which should not be here, or a symmetric one.
    d: Option<Value>,
    k: Option<Value>,
}

impl KeySet {
    /// Reads a set. A key that is of no use here is left out, as RFC 7517 has it in section 5: sets hold keys for others, too.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, FetchError> {
        if bytes.len() > MAX_KEY_SET_BYTES {
            return Err(FetchError::TooLong);
        }
        let raw: RawSet =
            serde_json::from_slice(bytes).map_err(|_| FetchError::Malformed("it must be { \"keys\": [ … ] }"))?;
        if raw.keys.len() > MAX_KEYS {
            return Err(FetchError::Malformed("it has more than 100 keys"));
        }
        let usable = raw.keys.into_iter().filter_map(|key| serde_json::from_value::<RawKey>(key).ok()?.named());
        Ok(Self(usable.collect()))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The key for a token that names `id`, or none, and is signed with `algorithm`. A name alone never decides: a key is used
    /// for its own algorithm only. Where several fit, none is tried after the other.
    pub(crate) fn find(&self, id: Option<&str>, algorithm: TokenAlgorithm) -> Found<'_> {
        let fits =
            |named: &&NamedKey| named.key.algorithm() == algorithm && (id.is_none() || named.id.as_deref() == id);
        let mut fitting = self.0.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(only), None) => Found::Key(&only.key),
            (Some(_), Some(_)) => Found::Several,
            (None, _) => Found::Unknown,
        }
    }
}

impl RawKey {
    fn named(self) -> Option<NamedKey> {
        let key = self.public()?;
        let is_for_this = self.alg.is_none_or(|alg| alg == key.algorithm().as_str())
            && self.r#use.is_none_or(|usage| usage == "sig")
            && self.key_ops.is_none_or(|ops| ops.iter().any(|op| op == "verify"));
        is_for_this.then_some(NamedKey { id: self.kid, key })
    }

    fn public(&self) -> Option<PublicKey> {
        if self.d.is_some() || self.k.is_some() {
            // Whoever can read this set could sign with it.
            return None;
        }
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => {
                let (modulus, exponent) = (number(self.n.as_deref()?)?, number(self.e.as_deref()?)?);
                let fits = RSA_BYTES.contains(&modulus.len()) && EXPONENT_BYTES.contains(&exponent.len());
                fits.then_some(PublicKey::Rsa { modulus, exponent })
            }
            ("EC", Some("P-256")) => {
                let (x, y) = (of_32_bytes(self.x.as_deref()?)?, of_32_bytes(self.y.as_deref()?)?);
                Some(PublicKey::P256([&[4], &x[..], &y[..]].concat()))
            }
            ("OKP", Some("Ed25519")) => Some(PublicKey::Ed25519(of_32_bytes(self.x.as_deref()?)?)),
            _ => None,
        }
    }
}

/// A number without the zeros that some issuers write in front of it.
fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = decode(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Some(bytes[zeros..].to_vec())
}

fn of_32_bytes(text: &str) -> Option<Vec<u8>> {
    decode(text).filter(|bytes| bytes.len() == 32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Signer;

    fn set(keys: &[Value]) -> KeySet {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
    }

    fn with(signer: &Signer, id: &str, changes: &Value) -> Value {
        let mut key = signer.public(Some(id));
        for (name, value) in changes.as_object().unwrap() {
            key[name] = value.clone();
        }
        key
    }

    #[test]
    fn a_key_is_found_by_its_name_and_only_for_its_algorithm() {
        let set = set(&[
            Signer::rsa().public(Some("r")),
            Signer::p256().public(Some("e")),
            Signer::ed25519().public(Some("d")),
        ]);
        for (id, algorithm) in
            [("r", TokenAlgorithm::Rs256), ("e", TokenAlgorithm::Es256), ("d", TokenAlgorithm::EdDsa)]
        {
            for tried in TokenAlgorithm::ALL {
                let found = set.find(Some(id), tried);
                assert_eq!(matches!(found, Found::Key(key) if key.algorithm() == algorithm), tried == algorithm);
                assert_eq!(found == Found::Unknown, tried != algorithm, "{id} {tried:?}");
            }
        }
        assert_eq!(set.find(Some("x"), TokenAlgorithm::Rs256), Found::Unknown);
        assert!(matches!(set.find(None, TokenAlgorithm::Rs256), Found::Key(_)), "there is but one");
    }

    #[test]
    fn where_several_fit_none_is_guessed() {
        let (one, other) = (Signer::p256(), Signer::p256());
        let unnamed = set(&[one.public(None), other.public(None)]);
        assert_eq!(unnamed.find(None, TokenAlgorithm::Es256), Found::Several);
        assert_eq!(unnamed.find(Some("a"), TokenAlgorithm::Es256), Found::Unknown, "no name fits every name");
        let twins = set(&[one.public(Some("a")), other.public(Some("a")), Signer::ed25519().public(Some("a"))]);
        assert_eq!(twins.find(Some("a"), TokenAlgorithm::Es256), Found::Several);
        assert!(matches!(twins.find(Some("a"), TokenAlgorithm::EdDsa), Found::Key(_)));
    }

    #[test]
    fn keys_that_are_for_something_else_are_left_out() {
        let (rsa, ec, ed) = (Signer::rsa(), Signer::p256(), Signer::ed25519());
        let useless = [
            with(&rsa, "k", &json!({ "use": "enc" })),
            with(&rsa, "k", &json!({ "alg": "RS512" })),
            with(&rsa, "k", &json!({ "alg": "HS256" })),
            with(&ec, "k", &json!({ "key_ops": ["sign"] })),
            with(&ec, "k", &json!({ "crv": "P-384" })),
            with(&ec, "k", &json!({ "y": "AAAA" })),
            with(&ed, "k", &json!({ "crv": "X25519" })),
            with(&ed, "k", &json!({ "d": "c2VjcmV0" })),
            with(&ed, "k", &json!({ "x": "not base64!" })),
            with(&rsa, "k", &json!({ "n": "AQAB" })),
            with(&rsa, "k", &json!({ "e": "AAAA" })),
            with(&rsa, "k", &json!({ "e": 65537 })),
            json!({ "kty": "oct", "kid": "k", "k": "c2VjcmV0", "alg": "HS256" }),
            json!({ "kty": "unheard of" }),
            json!("no key"),
        ];
        for key in &useless {
            assert_eq!(set(std::slice::from_ref(key)).len(), 0, "{key}");
        }
        assert_eq!(set(&[&useless[..], &[ed.public(None)]].concat()).len(), 1, "and the others are used");
        let declared = with(&ec, "k", &json!({ "use": "sig", "alg": "ES256", "key_ops": ["verify"], "x5c": ["…"] }));
        assert_eq!(set(&[declared]).len(), 1);
    }

    #[test]
    fn what_is_no_set_or_too_much_is_refused() {
        let text = |text: &str| KeySet::parse(text.as_bytes());
        for bad in ["", "{}", "[]", r#"{ "keys": {} }"#, "<html>"] {
            assert!(matches!(text(bad), Err(FetchError::Malformed(_))), "{bad}");
        }
        assert_eq!(text(r#"{ "keys": [] }"#).unwrap().len(), 0, "an issuer may withdraw all keys");
        let many = json!({ "keys": vec![json!({}); MAX_KEYS + 1] }).to_string();
        assert!(matches!(text(&many), Err(FetchError::Malformed(_))));
        let long = format!(r#"{{ "keys": [] }}{}"#, " ".repeat(MAX_KEY_SET_BYTES));
        assert!(matches!(text(&long), Err(FetchError::TooLong)));
    }
}
