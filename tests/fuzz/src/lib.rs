//! What must hold for any bytes. The targets below `fuzz/` call these functions with what a fuzzer makes up, and
//! `tests/corpus.rs` calls them with what fuzzers have found so far, so that every test run covers it.
//!
//! A function panics when something does not hold.

#![expect(clippy::panic, reason = "all of this is test code: a panic is how it reports")]

mod lenient_json;
mod provider_stream;
mod request_body;
mod tenant_config;
mod tool_params;

pub use self::lenient_json::lenient_json;
pub use self::provider_stream::provider_stream;
pub use self::request_body::request_body;
pub use self::tenant_config::tenant_config;
pub use self::tool_params::tool_params;

/// A target: what is called with any bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus and of its binary.
pub const TARGETS: [(&str, Target); 5] = [
    ("lenient_json", lenient_json),
    ("provider_stream", provider_stream),
    ("request_body", request_body),
    ("tenant_config", tenant_config),
    ("tool_params", tool_params),
];
