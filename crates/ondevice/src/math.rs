//! The small operations between the matrices, on plain slices.
//!
//! Candle has them too, but spreads each over its thread pool, and waking the pool takes longer than the work of a single token.

use std::array;

/// The sum of products, in lanes that the compiler can turn into vector instructions: it may not reorder a plain sum.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
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
pub(super) fn add_scaled(sum: &mut [f32], x: [&[f32]; 4], factors: [f32; 4]) {
    let x = x.map(|x| &x[..sum.len()]);
    for (index, sum) in sum.iter_mut().enumerate() {
        let left = factors[0] * x[0][index] + factors[1] * x[1][index];
        let right = factors[2] * x[2][index] + factors[3] * x[3][index];
        *sum += left + right;
    }
}

pub(super) fn add(sum: &mut [f32], x: &[f32]) {
    for (sum, x) in sum.iter_mut().zip(x) {
        *sum += x;
    }
}

/// Brings each row to a root mean square of one, and weighs its columns.
#[expect(clippy::cast_precision_loss, reason = "widths are far below 2^24")]
pub(super) fn rms_norm(x: &[f32], weights: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weights.len()) {
        let scale = (dot(row, row) / row.len() as f32 + epsilon).sqrt().recip();
        normed.extend(row.iter().zip(weights).map(|(x, weight)| x * scale * weight));
    }
    normed
}

/// `silu(gate) × up` for rows that hold `width` gates and then as many values.
pub(super) fn gate(rows: &[f32], width: usize) -> Vec<f32> {
    let mut result = Vec::with_capacity(rows.len() / 2);
    for row in rows.chunks_exact(2 * width) {
        let (gates, values) = row.split_at(width);
        result.extend(gates.iter().zip(values).map(|(gate, value)| gate / (1.0 + (-gate).exp()) * value));
    }
    result
}

/// Turns scores into shares of one.
pub(super) fn softmax(scores: &mut [f32]) {
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
pub(super) fn turns(size: usize, base: f32) -> Vec<f32> {
    (0..size / 2).map(|pair| base.powf(-2.0 * pair as f32 / size as f32)).collect()
}

/// Cosine and sine of each pair's angle at a position.
#[expect(clippy::cast_precision_loss, reason = "positions are far below 2^24")]
pub(super) fn rotation(position: usize, turns: &[f32]) -> Vec<(f32, f32)> {
    turns.iter().map(|turn| position as f32 * turn).map(|angle| (angle.cos(), angle.sin())).collect()
}

/// Rotates every head of a row. GGUF orders the rows of `llama` matrices so that neighbours form a pair.
pub(super) fn rotate(row: &mut [f32], rotation: &[(f32, f32)]) {
    for head in row.chunks_exact_mut(2 * rotation.len()) {
        for (pair, (cos, sin)) in head.as_chunks_mut::<2>().0.iter_mut().zip(rotation) {
            let [a, b] = *pair;
            *pair = [a * cos - b * sin, a * sin + b * cos];
        }
    }
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
}
