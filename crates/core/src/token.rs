//! JSON Web Tokens as far as they are a matter of rules: what a tenant demands of one, what its claims are worth, and how old
//! the keys may be that it is checked with.
//!
//! Signatures, and fetching keys, are the affair of the [`TokenVerifier`](crate::ports::TokenVerifier).

mod claims;
mod key_age;
mod policy;

pub use claims::{ClaimsRefused, accept};
pub use key_age::{KeyAge, KeyAgePolicy, KeyStep};
pub(crate) use policy::plain_type;
pub use policy::{KeySetLocation, TokenAlgorithm, TokenPolicy};
