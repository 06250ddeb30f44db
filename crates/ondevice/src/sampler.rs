//! How the next token is chosen.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use enigma_core::model::Sampling;

/// Candidates that stay in the race. More changes nothing that can be noticed, and sorting the whole vocabulary would take a tenth
/// of the time of a token.
const CANDIDATES: usize = 40;

/// What the makers of SmolLM2 recommend for chat.
const DEFAULT_TEMPERATURE: f64 = 0.2;
const DEFAULT_TOP_P: f64 = 0.9;

/// The choice of one conversation: the best [`CANDIDATES`], of them the nucleus of probability `top_p`, of it one by lot. At
/// temperature 0 always the best.
pub(crate) struct Sampler {
    temperature: f64,
    top_p: f64,
    frequency_penalty: f32,
    presence_penalty: f32,
    /// How often each token was chosen; empty unless a penalty needs it.
    chosen: HashMap<u32, u16>,
    random: SplitMix,
}

impl Sampler {
    /// The choice as the call wants it; without a seed it is another one each time.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "penalties are small; of a seed only the bits count"
    )]
    pub(crate) fn new(sampling: &Sampling) -> Self {
        let seed = sampling.seed.map_or_else(|| RandomState::new().build_hasher().finish(), |seed| seed as u64);
        Self {
            temperature: sampling.temperature.unwrap_or(DEFAULT_TEMPERATURE).max(0.0),
            top_p: sampling.top_p.unwrap_or(DEFAULT_TOP_P),
            frequency_penalty: sampling.frequency_penalty.unwrap_or(0.0) as f32,
            presence_penalty: sampling.presence_penalty.unwrap_or(0.0) as f32,
            chosen: HashMap::new(),
            random: SplitMix(seed),
        }
    }

    /// Chooses a token. The logits are changed by the penalties.
    pub(crate) fn choose(&mut self, logits: &mut [f32]) -> u32 {
        for (token, times) in &self.chosen {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit -= self.frequency_penalty * f32::from(*times) + self.presence_penalty;
            }
        }
        let token = if self.temperature == 0.0 { greatest(logits) } else { self.draw(logits) };
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            let times = self.chosen.entry(token).or_default();
            *times = times.saturating_add(1);
        }
        token
    }

    fn draw(&mut self, logits: &[f32]) -> u32 {
        let candidates = best(logits);
        let Some((_, first)) = candidates.first() else { return 0 };
        let mut weights = Vec::with_capacity(candidates.len());
        for (_, logit) in &candidates {
            weights.push((f64::from(logit - first) / self.temperature).exp());
        }
        let total: f64 = weights.iter().sum();
        let mut nucleus = 0.0;
        let mut size = 0;
        while size < weights.len() && nucleus < self.top_p * total {
            nucleus += weights[size];
            size += 1;
        }
        let mut lot = self.random.fraction() * nucleus;
        for ((token, _), weight) in candidates.iter().zip(&weights).take(size) {
            lot -= weight;
            if lot < 0.0 {
                return *token;
            }
        }
        candidates[size.saturating_sub(1)].0
    }
}

fn greatest(logits: &[f32]) -> u32 {
    let best = (0_u32..).zip(logits).reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(0, |(token, _)| token)
}

/// The best candidates, the greatest first.
fn best(logits: &[f32]) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(2 * CANDIDATES);
    let mut bar = f32::NEG_INFINITY;
    // Few of the vocabulary get over the bar once it is up, so this is hardly more than one look at each.
    for (token, logit) in (0_u32..).zip(logits) {
        if *logit > bar {
            best.push((token, *logit));
            if best.len() == 2 * CANDIDATES {
                best.select_nth_unstable_by(CANDIDATES - 1, |a, b| b.1.total_cmp(&a.1));
                best.truncate(CANDIDATES);
                bar = best[CANDIDATES - 1].1;
            }
        }
    }
    // By the token where logits are equal, so that a seed always draws the same.
    best.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    best.truncate(CANDIDATES);
    best
}

/// Steele, Lea and Flood's `SplitMix64`: small, and good enough where nobody gains from guessing it.
struct SplitMix(u64);

impl SplitMix {
    /// From 0 to below 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what the type holds")]
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws(sampling: &Sampling, logits: &[f32], times: usize) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling);
        (0..times).map(|_| sampler.choose(&mut logits.to_vec())).collect()
    }

    fn logits() -> Vec<f32> {
        (0..1000_u16).map(|token| f32::from(token % 31 * 33 + token / 31) / 100.0).collect()
    }

    #[test]
    fn greedy_takes_the_greatest() {
        let greedy = Sampling { temperature: Some(0.0), ..Sampling::default() };
        assert_eq!(draws(&greedy, &[0.5, 3.0, -1.0, 3.0], 3), [1, 1, 1]);
    }

    #[test]
    fn a_seed_repeats_the_choice_and_another_seed_changes_it() {
        let seeded =
            |seed| Sampling { temperature: Some(1.5), top_p: Some(1.0), seed: Some(seed), ..Sampling::default() };
        let first = draws(&seeded(7), &logits(), 50);
        assert_eq!(first, draws(&seeded(7), &logits(), 50));
        assert_ne!(first, draws(&seeded(8), &logits(), 50));
        let unseeded = Sampling { seed: None, ..seeded(0) };
        assert_ne!(draws(&unseeded, &logits(), 50), draws(&unseeded, &logits(), 50));
    }

    #[test]
    fn only_the_nucleus_is_drawn_from() {
        let half = Sampling { temperature: Some(1.0), top_p: Some(0.5), seed: Some(1), ..Sampling::default() };
        let logits: Vec<f32> = [0.1_f32, 0.3, 0.2, 0.4].iter().map(|share| share.ln()).collect();
        let drawn = draws(&half, &logits, 500);
        assert!(drawn.contains(&3) && drawn.contains(&1));
        assert!(!drawn.contains(&2) && !drawn.contains(&0));
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let plain = Sampling { temperature: Some(1.0), top_p: Some(1.0), seed: Some(3), ..Sampling::default() };
        let drawn = draws(&plain, &[0.25_f32.ln(), 0.75_f32.ln()], 4000);
        let ones = drawn.iter().filter(|token| **token == 1).count();
        assert!((2880..3120).contains(&ones), "{ones}");
    }

    #[test]
    fn the_best_are_found_among_many() {
        let logits = logits();
        let mut sorted: Vec<f32> = logits.clone();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let found: Vec<f32> = best(&logits).into_iter().map(|(_, logit)| logit).collect();
        assert_eq!(found, sorted[..CANDIDATES]);
    }

    #[test]
    fn penalties_drive_out_what_was_said() {
        let base = Sampling { temperature: Some(0.0), ..Sampling::default() };
        let present = Sampling { presence_penalty: Some(1.5), ..base.clone() };
        assert_eq!(draws(&present, &[3.0, 2.0, 1.0], 4), [0, 1, 0, 0]);
        let frequent = Sampling { frequency_penalty: Some(0.6), ..base };
        assert_eq!(draws(&frequent, &[3.0, 2.0, 0.0], 5), [0, 0, 1, 0, 1]);
    }

    #[test]
    fn no_logits_are_no_reason_to_fail() {
        assert_eq!(draws(&Sampling::default(), &[f32::NAN, f32::NAN], 1), [0]);
        assert_eq!(draws(&Sampling { temperature: Some(0.0), ..Sampling::default() }, &[], 1), [0]);
    }
}
