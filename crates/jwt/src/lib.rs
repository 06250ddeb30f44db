//! The [`TokenVerifier`](enigma_core::ports::TokenVerifier) of crispy-enigma: JSON Web Tokens (RFC 7519), checked with the keys
//! that their issuer publishes as a JSON Web Key Set (RFC 7517).
//!
//! What it is: the compact form of a signed token (RFC 7515), the three signatures that [`TokenAlgorithm`] names, by *ring*, and
//! a cache of key sets. What a claim is worth and how old keys may be is the core's to say ([`enigma_core::token`]); where the
//! bytes of a key set come from is the host's ([`KeySetSource`]).
//!
//! What it is not: a general library for tokens. It knows no encryption, no symmetric keys, and none of a header's ways to bring
//! a key along (`jwk`, `jku`, `x5u`, `x5c`): a token is checked with the tenant's keys or not at all.
//!
//! [`TokenAlgorithm`]: enigma_core::token::TokenAlgorithm

#![deny(clippy::future_not_send)]

mod key_set;
mod signature;
mod source;
#[cfg(test)]
mod testing;
mod token;
mod verifier;

pub use key_set::MAX_KEYS;
pub use source::{FetchError, KeySetSource, MAX_KEY_SET_BYTES};
pub use token::MAX_TOKEN_BYTES;
pub use verifier::{FETCH_TIMEOUT, JwtVerifier};
