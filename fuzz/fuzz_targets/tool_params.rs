//! See `enigma_test_fuzz::tool_params`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enigma_test_fuzz::tool_params(data));
