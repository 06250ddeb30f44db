//! Vectors in short, so that all of a tenant can be looked through in no time, and how far what that tells can be from the truth.
//!
//! A number of a vector becomes one byte: how many steps it is from zero, a step being the 127th part of the vector's largest
//! number. Cosines of such codes are near to the true ones, and by how much they can differ is known for each vector: by no more
//! than the length of what was rounded off (Cauchy and Schwarz). So no vector is ruled out that could be among the nearest.

use std::collections::BTreeMap;

/// So many chunks, by their ordinals, share a row of codes, as all rows are read and each costs something.
pub(crate) const PART: u32 = 64;
/// So many share a row of vectors, of which few are read. It divides the other number.
pub(crate) const VECTORS: u32 = 8;

/// Bytes of an ordinal, which begins each entry of a row.
const ORDINAL: usize = 4;

/// What arithmetic on floating point numbers may add to an error.
const ROUNDING: f64 = 1e-6;

/// How far the square of a length may be from 1, by arithmetic on 32 bits. What it does to a bound is part of `ROUNDING`.
const UNEVEN: f64 = 1e-4;

/// Whether a vector has the length 1, as everything here takes for granted. One that is not a number has none.
pub(crate) fn is_unit(vector: &[f32]) -> bool {
    let square: f64 = vector.iter().map(|x| f64::from(*x).powi(2)).sum();
    (square - 1.0).abs() <= UNEVEN
}

/// How long an entry is that holds a vector of so many dimensions.
pub(crate) const fn vector_length(dimensions: usize) -> usize {
    ORDINAL + 4 * dimensions
}

/// How long an entry is that holds the code of such a vector.
pub(crate) const fn code_length(dimensions: usize) -> usize {
    ORDINAL + 8 + dimensions
}

/// The entry of a vector.
pub(crate) fn vector_entry(ordinal: u32, vector: &[f32]) -> Vec<u8> {
    ordinal.to_le_bytes().into_iter().chain(vector.iter().flat_map(|x| x.to_le_bytes())).collect()
}

/// The entry of a vector's code: the size of a step, the length of what was rounded off, and the steps.
pub(crate) fn code_entry(ordinal: u32, vector: &[f32]) -> Vec<u8> {
    let (steps, step, error) = round(vector, 127.0);
    let mut entry = Vec::with_capacity(code_length(vector.len()));
    entry.extend(ordinal.to_le_bytes());
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a step is exact, and what the other loses is part of ROUNDING"
    )]
    for number in [step as f32, error as f32] {
        entry.extend(number.to_le_bytes());
    }
    #[expect(clippy::cast_possible_truncation, reason = "steps are at most 127")]
    entry.extend(steps.map(|steps| (steps as i8).to_le_bytes()[0]));
    entry
}

/// The numbers of a vector in whole steps, at most `most` from zero; the size of a step; and the length of what was rounded off.
fn round(vector: &[f32], most: f64) -> (impl Iterator<Item = f64>, f64, f64) {
    let largest = vector.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
    // As f32 keeps it, so that whoever reads it knows the same.
    #[expect(clippy::cast_possible_truncation, reason = "that is the purpose")]
    let step = f64::from((largest / most) as f32);
    let steps = move |x: &f32| if step > 0.0 { (f64::from(*x) / step).round().clamp(-most, most) } else { 0.0 };
    let error: f64 = vector.iter().map(|x| (f64::from(*x) - steps(x) * step).powi(2)).sum();
    (vector.iter().map(steps), step, error.sqrt())
}

/// The entries of a row that has `old` ones and is given `new` ones, by ordinal.
pub(crate) fn merged(old: &[u8], new: &BTreeMap<u32, Vec<u8>>, length: usize) -> Vec<u8> {
    let mut all: BTreeMap<u32, &[u8]> = entries(old, length).map(|(ordinal, _, entry)| (ordinal, entry)).collect();
    all.extend(new.iter().map(|(ordinal, entry)| (*ordinal, entry.as_slice())));
    all.into_values().flatten().copied().collect()
}

/// The entries of a row: the ordinal of each, what comes after it, and both.
fn entries(row: &[u8], length: usize) -> impl Iterator<Item = (u32, &[u8], &[u8])> {
    row.chunks_exact(length).filter_map(|entry| {
        let (ordinal, rest) = entry.split_first_chunk::<ORDINAL>()?;
        Some((u32::from_le_bytes(*ordinal), rest, entry))
    })
}

/// The vector of a chunk, from the row that it is in.
pub(crate) fn vector_in(row: &[u8], ordinal: u32, dimensions: usize) -> Option<Vec<f32>> {
    let (_, rest, _) = entries(row, vector_length(dimensions)).find(|(it, ..)| *it == ordinal)?;
    Some(rest.chunks_exact(4).filter_map(|x| x.first_chunk()).map(|x| f32::from_le_bytes(*x)).collect())
}

/// About how near a chunk is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) number: i64,
    pub(crate) ordinal: u32,
    /// The cosine is not less than this.
    pub(crate) least: f32,
    /// And not more than this.
    pub(crate) most: f32,
}

/// The vector that is asked for, in whole steps.
pub(crate) struct Asked {
    steps: Vec<i16>,
    step: f64,
    error: f64,
}

impl Asked {
    pub(crate) fn new(vector: &[f32]) -> Self {
        // So many steps that a sum of products cannot leave 32 bits: they are finer than those of codes by far.
        let longest = u32::try_from(vector.len().max(1)).unwrap_or(u32::MAX);
        let most = (i32::MAX.unsigned_abs() / 127 / longest).clamp(1, i16::MAX.unsigned_abs().into());
        let (steps, step, error) = round(vector, most.into());
        #[expect(clippy::cast_possible_truncation, reason = "steps are at most what an i16 holds")]
        let steps = steps.map(|steps| steps as i16).collect();
        Self { steps, step, error }
    }

    /// Estimates the cosines of a row's codes.
    pub(crate) fn estimate(&self, number: i64, row: &[u8], add: &mut Vec<Estimate>) {
        let length = code_length(self.steps.len());
        add.extend(entries(row, length).filter_map(|(ordinal, rest, _)| {
            let (step, rest) = rest.split_first_chunk()?;
            let (error, codes) = rest.split_first_chunk()?;
            let (step, error) = (f64::from(f32::from_le_bytes(*step)), f64::from(f32::from_le_bytes(*error)));
            let cosine = f64::from(self.dot(codes)) * step * self.step;
            // Both vectors are of length 1, and the code is no longer than that and what was rounded off.
            let margin = error + self.error * (1.0 + error) + ROUNDING;
            #[expect(clippy::cast_possible_truncation, reason = "what is lost is part of ROUNDING")]
            Some(Estimate { number, ordinal, least: (cosine - margin) as f32, most: (cosine + margin) as f32 })
        }));
    }

    /// The loop in which all the time of a search is spent; simple, so that the compiler makes vector instructions of it.
    fn dot(&self, codes: &[u8]) -> i32 {
        let products = codes.iter().zip(&self.steps);
        products.map(|(code, steps)| i32::from(i8::from_le_bytes([*code])) * i32::from(*steps)).sum()
    }
}

/// Those that can be among the `limit` nearest: all whose cosine can be as large as that many others' is for certain.
pub(crate) fn candidates(mut estimates: Vec<Estimate>, limit: usize) -> Vec<Estimate> {
    if limit == 0 || estimates.len() <= limit {
        return estimates;
    }
    let (_, nth, _) = estimates.select_nth_unstable_by(limit - 1, |one, other| other.least.total_cmp(&one.least));
    let least = nth.least;
    estimates.retain(|it| it.most >= least);
    estimates
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::retrieval::cosine;

    /// The same numbers in every run (splitmix64), from -1 to 1.
    fn chance(place: u64) -> f32 {
        let mut z = place.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let unit = ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 23) as f32;
        unit - 1.0
    }

    fn unit(mut vector: Vec<f32>) -> Vec<f32> {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        for x in &mut vector {
            *x /= length;
        }
        vector
    }

    fn random(dimensions: u64, seed: u64) -> Vec<f32> {
        unit((0..dimensions).map(|place| chance(seed * 10_000 + place)).collect())
    }

    fn row(vectors: &[Vec<f32>]) -> Vec<u8> {
        (0..).zip(vectors).flat_map(|(ordinal, vector)| code_entry(ordinal, vector)).collect()
    }

    #[test]
    fn every_cosine_is_between_its_bounds() {
        let spiky = |place: usize| {
            let mut vector = vec![1e-3; 384];
            vector[place] = -1.0;
            unit(vector)
        };
        for dimensions in [1u64, 3, 384, 4096] {
            let mut vectors: Vec<_> = (0..50).map(|seed| random(dimensions, seed)).collect();
            if dimensions == 384 {
                vectors.extend([spiky(0), spiky(1), unit(vec![1.0; 384]), unit(vec![-1.0; 384])]);
            }
            let codes = row(&vectors);
            for asked in &vectors {
                let mut estimates = Vec::new();
                Asked::new(asked).estimate(7, &codes, &mut estimates);
                assert_eq!(estimates.len(), vectors.len());
                for (it, vector) in estimates.iter().zip(&vectors) {
                    let truth = cosine(asked, vector);
                    assert!(f64::from(it.least) <= truth && truth <= f64::from(it.most), "{it:?} {truth}");
                    assert!(it.most - it.least < 0.1, "the bounds are near: {it:?}");
                }
            }
        }
    }

    #[test]
    fn the_nearest_are_always_candidates() {
        let vectors: Vec<_> = (0..500).map(|seed| random(64, seed)).collect();
        let codes = row(&vectors);
        for (limit, asked) in [(1, 3), (10, 77), (100, 400)] {
            let mut estimates = Vec::new();
            Asked::new(&vectors[asked]).estimate(1, &codes, &mut estimates);
            let candidates = candidates(estimates, limit);
            let mut nearest: Vec<u32> = (0..500).collect();
            nearest.sort_by(|one, other| {
                let of = |it: u32| cosine(&vectors[it as usize], &vectors[asked]);
                of(*other).total_cmp(&of(*one))
            });
            assert!(nearest[..limit].iter().all(|it| candidates.iter().any(|candidate| candidate.ordinal == *it)));
            assert!(candidates.len() < 300, "the others are ruled out");
        }
    }

    #[test]
    fn a_vector_of_another_length_is_none() {
        assert!((1..100).all(|seed| is_unit(&random(384, seed)) && is_unit(&random(1, seed))));
        let wrong =
            [vec![], vec![0.0; 3], vec![1.0, f32::NAN], vec![f32::INFINITY, 0.0], vec![1.01], vec![f32::MAX; 2]];
        assert!(wrong.iter().all(|it| !is_unit(it)));
    }

    #[test]
    fn vectors_are_kept_as_they_are_and_replaced_one_by_one() {
        let vectors: Vec<_> = (0..4).map(|seed| random(9, seed)).collect();
        let length = vector_length(9);
        let entry = |ordinal: u32, of: usize| (ordinal, vector_entry(ordinal, &vectors[of]));
        let row = merged(&[], &BTreeMap::from([entry(5, 1), entry(2, 0)]), length);
        let row = merged(&row, &BTreeMap::from([entry(5, 2), entry(3, 3)]), length);
        assert_eq!(row.len(), 3 * length);
        assert_eq!(entries(&row, length).map(|(ordinal, ..)| ordinal).collect::<Vec<_>>(), [2, 3, 5]);
        for (ordinal, of) in [(2, 0), (3, 3), (5, 2)] {
            assert_eq!(vector_in(&row, ordinal, 9).as_ref(), Some(&vectors[of]));
        }
        assert_eq!(vector_in(&row, 4, 9), None);
    }
}
