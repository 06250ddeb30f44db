//! The small operations between the matrices, on plain slices.
//!
//! Candle has them too, but spreads each over its thread pool, and waking the pool takes longer than the work of a single token.

use std::array;

/// The sum of products, in lanes that the compiler can turn into vector instructions: it may not reorder a plain sum.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut lanes = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    // By halves: one after the other, each addition would wait for the one before.
    let eight: [f32; 8] = array::from_fn(|lane| lanes[lane] + lanes[lane + 8]);
    let four: [f32; 4] = array::from_fn(|lane| eight[lane] + eight[lane + 4]);
    (four[0] + four[2]) + (four[1] + four[3]) + rest
}

/// `sum += factor × x` for four at once, so that the sum is loaded and stored once for them.
pub(crate) fn add_scaled(sum: &mut [f32], x: [&[f32]; 4], factors: [f32; 4]) {
    let x = x.map(|x| &x[..sum.len()]);
    for (index, sum) in sum.iter_mut().enumerate() {
        let left = factors[0] * x[0][index] + factors[1] * x[1][index];
        let right = factors[2] * x[2][index] + factors[3] * x[3][index];
        *sum += left + right;
    }
}

pub(crate) fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// Brings each row to a root mean square of one, and weighs its columns.
#[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
pub(crate) fn rms_norm(x: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weights.len()) {
        let scale = (dot(row, row) / row.len() as f32 + epsilon).sqrt().recip();
        normed.extend(row.iter().zip(weights).map(|(x, weight)| x * scale * weight));
    }
    normed
}

/// `silu(gate) × up` for rows that hold `width` gates and then as many values.
pub(crate) fn gate(rows: &[f32], width: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact(2 * width) {
        let (gates, values) = row.split_at(width);
        result.extend(gates.iter().zip(values).map(|(gate, value)| gate / (1.0 + (-gate).exp()) * value));
    }
    result
}

/// Turns scores into shares of one.
pub(crate) fn softmax(scores: &mut [f32]) {
    let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - greatest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Radians by which each pair of a head of this size turns from one position to the next.
#[expect(clippy::cast_precision_loss, reason = "head sizes are far below 2^24")]
pub(crate) fn turns(size: usize, base: f32) -> Vec<f32> {
    (0..size / 2).map(|pair| base.powf(-2.0 * pair as f32 / size as f32)).collect()
}

/// Cosine and sine of each pair's angle at a position.
#[expect(clippy::cast_precision_loss, reason = "positions are far below 2^24")]
pub(crate) fn rotation(position: usize, turns: &[f32]) -> Vec<(f32, f32)> {
    turns.iter().map(|turn| position as f32 * turn).map(|angle| (angle.cos(), angle.sin())).collect()
}

/// Rotates every head of a row. GGUF orders the rows of `llama` matrices so that neighbours form a pair.
pub(crate) fn rotate(row: &mut [f32], rotation: &[(f32, f32)]) {
    for head in row.chunks_exact_mut(2 * rotation.len()) {
        for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation) {
            let [a, b] = *pair;
            *pair = [a * cos - b * sin, a * sin + b * cos];
        }
    }
}

/// Brings each row to a mean of nothing and a variance of one, then weighs and shifts its columns.
#[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
pub(crate) fn layer_norm(x: &mut [f32], weights: &[f32], bias: &[f32], epsilon: f32) {
    let width = weights.len() as f32;
    for row in x.chunks_exact_mut(weights.len()) {
        let mean = row.iter().sum::<f32>() / width;
        for x in row.iter_mut() {
            *x -= mean;
        }
        let scale = (dot(row, row) / width + epsilon).sqrt().recip();
        for ((x, weight), bias) in row.iter_mut().zip(weights).zip(bias) {
            *x = *x * scale * weight + bias;
        }
    }
}

/// `x × Φ(x)`, Φ being the distribution of the standard normal: the activation that BERT was trained with.
pub(crate) fn gelu(x: &mut [f32]) {
    for x in x {
        *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// The error function, off by at most 5e-7: the rational approximation of Eigen and XLA, which has neither branches nor calls, so that
/// the compiler turns it into vector instructions.
fn erf(x: f32) -> f32 {
    // Beyond that it is 1 in 32 bits.
    let x = x.clamp(-4.0, 4.0);
    let square = x * x;
    let polynomial = |coefficients: [f32; 7]| coefficients.into_iter().fold(0.0, |sum, c| sum * square + c);
    let above = polynomial([
        -2.726_142_3e-10,
        2.770_681_5e-8,
        -2.101_024e-6,
        -5.692_506_3e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_4e-2,
    ]);
    let below = polynomial([0.0, 0.0, -1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2]);
    x * above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn lanes_and_the_rest_are_both_summed() {
        for len in [0, 1, 15, 16, 17, 64, 100] {
            let numbers: Vec<f32> = (0..len).map(|number| number as f32).collect();
            let expected = (0..len).map(|number| (number * number) as f32).sum::<f32>();
            assert!((dot(&numbers, &numbers) - expected).abs() <= expected * 1e-6);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let mut scores = [1e30, 1e30, -1e30];
        softmax(&mut scores);
        let distance = scores.iter().zip([0.5, 0.5, 0.0]).map(|(score, share)| (score - share).abs());
        assert!(distance.sum::<f32>() < 1e-6, "{scores:?}");
    }

    #[test]
    fn a_rotation_keeps_lengths_and_depends_only_on_the_distance() {
        let turns = turns(8, 10_000.0);
        let at = |position: usize| {
            let mut row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
            rotate(&mut row, &rotation(position, &turns));
            row
        };
        let near = dot(&at(3), &at(8));
        assert!((near - dot(&at(103), &at(108))).abs() < 0.02);
        assert!((near - dot(&at(3), &at(60))).abs() > 1.0);
        assert!((dot(&at(77), &at(77)) - 204.0).abs() < 0.01);
    }

    #[test]
    fn a_layer_norm_has_the_mean_and_the_spread_that_were_learnt() {
        let mut row = [1.0, 2.0, 3.0, 6.0];
        layer_norm(&mut row, &[1.0, 1.0, 1.0, 2.0], &[0.0, 0.0, 0.0, 10.0], 0.0);
        let spread = 3.5_f32.sqrt();
        let expected = [-2.0 / spread, -1.0 / spread, 0.0, 6.0 / spread + 10.0];
        assert!(row.iter().zip(expected).all(|(x, expected)| (x - expected).abs() < 1e-5), "{row:?}");
    }

    #[test]
    fn the_error_function_is_its_integral() {
        // Simpson's rule over 2 / √π × e^(−t²), in 64 bits.
        let integral = |to: f64| {
            let f = |t: f64| (-t * t).exp();
            let step = to / 2000.0;
            let inner: f64 = (1..2000).map(|n| f(step * f64::from(n)) * if n % 2 == 0 { 2.0 } else { 4.0 }).sum();
            (f(0.0) + inner + f(to)) * step / 3.0 * std::f64::consts::FRAC_2_SQRT_PI
        };
        for n in -600_i16..=600 {
            let x = f32::from(n) / 100.0;
            let difference = f64::from(erf(x)) - integral(f64::from(x));
            assert!(difference.abs() < 5e-7, "{x}: off by {difference:e}");
        }
        let mut values = [-10.0, -1.0, 0.0, 1.0, 10.0];
        gelu(&mut values);
        let expected = [0.0, -0.158_655_26, 0.0, 0.841_344_7, 10.0];
        assert!(values.iter().zip(expected).all(|(x, expected)| (x - expected).abs() < 1e-5), "{values:?}");
    }
}
