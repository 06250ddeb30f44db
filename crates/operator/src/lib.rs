//! What the server and the operator's tool have in common, so that they cannot disagree: how tenants' files are read and
//! judged ([`tenants`]), how keys are made ([`keys`]), and how a long download is shown
//! (`progress`, where that feature is on).
//!
//! What it is not: an adapter, or a place for anything that only one of the two needs.

pub mod keys;
#[cfg(feature = "progress")]
pub mod progress;
pub mod tenants;
