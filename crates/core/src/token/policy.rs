//! What a tenant demands of its tokens.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a token may be signed. All of them take a public key, so that nothing that is published can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TokenAlgorithm {
    /// RSA, PKCS #1 1.5, with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256, with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}

impl TokenAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 3] = [Self::Rs256, Self::Es256, Self::EdDsa];

    /// The name in a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name. Anything else, such as `none` and `HS256`, is none.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }
}

/// Where a tenant's public keys are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeySetLocation {
    /// At this URL, `http` or `https`, without user information and fragment.
    Url(String),
    /// In this file.
    File(String),
}

impl KeySetLocation {
    /// Whether it is read over a connection that nothing protects.
    pub fn is_unprotected(&self) -> bool {
        matches!(self, Self::Url(url) if !url.starts_with("https://"))
    }
}

/// What a tenant of mode `jwt` demands of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenPolicy {
    /// Who must have issued it: its `iss`, character by character.
    pub issuer: String,
    /// For whom it must be: one of these must be in its `aud`.
    pub audiences: BTreeSet<String>,
    /// Where the issuer's public keys are.
    pub keys: KeySetLocation,
    /// How it may be signed.
    pub algorithms: BTreeSet<TokenAlgorithm>,
    /// The claim that lists its scopes. Without one, a token may do what a key without scopes may.
    pub scopes_claim: Option<String>,
    /// How far the issuer's clock may be from ours.
    pub clock_skew: Duration,
    /// What its header's `typ` must be, in lower case and without `application/`.
    pub required_type: Option<String>,
}

impl TokenPolicy {
    /// Whether a header's `typ` will do. RFC 7515 lets it be written in any case, and without `application/`.
    pub fn accepts_type(&self, given: Option<&str>) -> bool {
        self.required_type.as_deref().is_none_or(|required| given.is_some_and(|given| plain_type(given) == required))
    }
}

/// A media type as [`TokenPolicy::required_type`] holds it.
pub(crate) fn plain_type(given: &str) -> String {
    let lower = given.to_ascii_lowercase();
    lower.strip_prefix("application/").map(str::to_owned).unwrap_or(lower)
}
