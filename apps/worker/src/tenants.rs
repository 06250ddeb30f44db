//! The tenants that this Worker was built with.

/// All of them in one document, `{ "tenants": { ID: TENANT } }`: what the build has found in `ENIGMA_TENANTS_DIRECTORY`.
pub(crate) const BUNDLE: &str = include_str!(concat!(env!("OUT_DIR"), "/tenants.json"));
