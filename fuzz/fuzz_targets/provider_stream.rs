//! See `enigma_test_fuzz::provider_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enigma_test_fuzz::provider_stream(data));
