//! See `enigma_test_fuzz::tenant_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enigma_test_fuzz::tenant_config(data));
