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
