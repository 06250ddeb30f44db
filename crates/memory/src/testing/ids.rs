//! Chance that is the same every time.

use std::sync::atomic::{AtomicU64, Ordering};

use enigma_core::ports::IdSource;

/// The golden ratio in 64 bits, by which splitmix64 counts.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Numbers that look random and depend on the seed alone: splitmix64 (Steele, Lea and Flood 2014).
#[derive(Debug)]
pub struct SeededIds {
    state: AtomicU64,
}

impl SeededIds {
    /// Starts from `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: AtomicU64::new(seed) }
    }
}

impl IdSource for SeededIds {
    fn random(&self) -> u128 {
        let before = self.state.fetch_add(STEP.wrapping_mul(2), Ordering::Relaxed);
        let high = mix(before.wrapping_add(STEP));
        let low = mix(before.wrapping_add(STEP.wrapping_mul(2)));
        u128::from(high) << 64 | u128::from(low)
    }
}

/// The step of splitmix64 that spreads its counter.
pub(super) fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sequence_is_that_of_the_reference_implementation() {
        // The first numbers of splitmix64.c with the seed 1234567.
        let ids = SeededIds::new(1_234_567);
        let halves = |number: u128| (number >> 64, number & u128::from(u64::MAX));
        assert_eq!(halves(ids.random()), (6_457_827_717_110_365_317, 3_203_168_211_198_807_973));
        assert_eq!(halves(ids.random()), (9_817_491_932_198_370_423, 4_593_380_528_125_082_431));
        assert!((0..100).all(|_| (0.0..1.0).contains(&ids.unit())));
        assert_eq!(ids.uuid().get_version_num(), 4);
    }
}
