//! API keys: kept as hashes, limited by scopes and an expiry.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

use crate::id::KeyId;
use crate::time::Timestamp;

/// SHA-256 of an API key; written `sha256:` and 64 hexadecimal digits.
///
/// Keys are random and long, so a plain hash is enough: there is nothing to guess.
#[derive(Clone, Copy, Eq)]
pub struct KeyHash([u8; 32]);

/// A text that is not a key's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be sha256: and 64 hexadecimal digits")]
pub struct InvalidKeyHash;

impl KeyHash {
    /// Hashes a key.
    pub fn of(key: &str) -> Self {
        Self(Sha256::digest(key.as_bytes()).into())
    }

    /// The 32 bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name of a key that was given none: the start of its hash, which leads nobody to the key.
    pub fn default_id(&self) -> KeyId {
        KeyId::new(&format!("key-{}", hex::encode(&self.0[..6])))
            .expect("hexadecimal digits are allowed in a key's name")
    }
}

impl PartialEq for KeyHash {
    /// Compares in constant time.
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Hash for KeyHash {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromStr for KeyHash {
    type Err = InvalidKeyHash;

    fn from_str(text: &str) -> Result<Self, InvalidKeyHash> {
        let digits = text.strip_prefix("sha256:").ok_or(InvalidKeyHash)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidKeyHash)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyHash({}…)", hex::encode(&self.0[..4]))
    }
}

/// Something that a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Chat, sessions and the list of models.
    Chat,
    /// Search.
    Search,
    /// Ingestion and documents.
    Ingest,
    /// Tools.
    Tools,
    /// Speech.
    Speech,
    /// Reading metrics.
    Metrics,
    /// Changing what concerns the whole tenant.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 7] =
        [Self::Chat, Self::Search, Self::Ingest, Self::Tools, Self::Speech, Self::Metrics, Self::Admin];

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Search => "search",
            Self::Ingest => "ingest",
            Self::Tools => "tools",
            Self::Speech => "speech",
            Self::Metrics => "metrics",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScopeSet(u8);

impl ScopeSet {
    /// What a key may do that lists no scopes: everything but [`Scope::Admin`].
    pub fn usual() -> Self {
        Scope::ALL.into_iter().filter(|scope| *scope != Scope::Admin).collect()
    }

    /// Whether `scope` is in it.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

/// An API key as a tenant's file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, for logs and records.
    pub id: KeyId,
    /// Its hash.
    pub hash: KeyHash,
    /// What it may be used for.
    pub scopes: ScopeSet,
    /// From when on it is refused.
    pub expires_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether the key is still good at `now`.
    pub fn is_live(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_as_it_is_written_and_never_shows_whole_in_debug() {
        // From the SHA-256 test vectors of FIPS 180-4: "abc".
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash: KeyHash = text.parse().unwrap();
        assert_eq!(hash, KeyHash::of("abc"));
        assert_eq!(hash.to_string(), text);
        assert_eq!(hash.default_id().as_str(), "key-ba7816bf8f01");
        assert!(!format!("{hash:?}").contains("cfea"));
        for bad in ["", "abc", "sha256:", "sha256:zz", "ba7816bf", &text[..70]] {
            assert_eq!(bad.parse::<KeyHash>(), Err(InvalidKeyHash), "{bad}");
        }
    }

    /// Time must not tell how much of a guess is right. A clock cannot show that on a machine that does other things, so this looks
    /// at how it is made: what is compared are digests, of one size whatever the key, and `subtle` alone compares them.
    #[test]
    fn keys_are_compared_in_constant_time_by_construction() {
        const CODE: &str = include_str!("key.rs");
        const RESOLVE: &str = include_str!("resolve.rs");
        let code = CODE.split("#[cfg(test)]").next().unwrap();
        assert_eq!(size_of::<KeyHash>(), 32, "a digest, and nothing beside it");
        assert_eq!(KeyHash::of("").bytes().len(), KeyHash::of(&"x".repeat(10_000)).bytes().len());
        let comparison = code.split("impl PartialEq for KeyHash").nth(1).and_then(|rest| rest.split("\n}\n").next());
        assert!(comparison.is_some_and(|body| body.contains("self.0.ct_eq(&other.0).into()")), "{comparison:?}");
        let derived = code.split("pub struct KeyHash").next().unwrap().rsplit("#[derive").next().unwrap();
        assert!(!derived.contains("PartialEq") && !derived.contains("Ord"), "{derived}");
        // What a request shows is hashed where it enters, and is only ever compared as a digest.
        let resolve = RESOLVE.split("#[cfg(test)]").next().unwrap();
        assert!(resolve.contains("hash: KeyHash::of(secret)") && resolve.contains("key.hash == shown.hash"));
        assert!(
            !code.contains(".bytes() ==") && !resolve.contains(".bytes() =="),
            "digests are not compared as slices"
        );
    }

    #[test]
    fn admin_is_only_given_by_name() {
        for scope in Scope::ALL {
            assert_eq!(ScopeSet::usual().contains(scope), scope != Scope::Admin);
            assert!([scope].into_iter().collect::<ScopeSet>().contains(scope));
            assert!(!ScopeSet::default().contains(scope));
        }
    }
}
