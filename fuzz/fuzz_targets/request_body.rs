//! See `enigma_test_fuzz::request_body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enigma_test_fuzz::request_body(data));
