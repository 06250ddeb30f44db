//! See `enigma_test_fuzz::lenient_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enigma_test_fuzz::lenient_json(data));
