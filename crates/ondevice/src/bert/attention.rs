//! What a token sees of its text: all of it.

use std::array;
use std::ops::Range;

use candle_core::{Device, Error, Tensor};
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};

use crate::math::{add_scaled, dot, softmax};

/// Up to so many tokens the plain loops are done before candle has begun.
const FEW: usize = 32;

/// Heads that one thread takes on together, so that a single text has work for several.
const GROUP: usize = 4;

/// How a row is divided into heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) count: usize,
    /// Numbers in a head.
    pub(super) size: usize,
}

/// Some heads of a text.
struct Job {
    rows: Range<usize>,
    heads: Range<usize>,
}

/// Attention of every row to those of its own text. `qkv` has three numbers for each one of the result.
pub(super) fn attend(qkv: &[f32], texts: &[Range<usize>], heads: Heads) -> Result<Vec<f32>, Error> {
    let groups = || (0..heads.count).step_by(GROUP).map(|first| first..heads.count.min(first + GROUP));
    let of_text = |rows: &Range<usize>| {
        let rows = rows.clone();
        groups().map(move |heads| Job { rows: rows.clone(), heads })
    };
    let jobs: Vec<Job> = texts.iter().flat_map(of_text).collect();
    let see = |job: &Job| if job.rows.len() <= FEW { Ok(few(qkv, job, heads)) } else { many(qkv, job, heads) };
    let views: Vec<Vec<f32>> = jobs.par_iter().map(see).collect::<Result<_, _>>()?;

    let mut seen = vec![0.0; qkv.len() / 3];
    for (job, view) in jobs.iter().zip(views) {
        let mut view = view.chunks_exact(heads.size);
        for head in job.heads.clone() {
            for (row, view) in job.rows.clone().zip(&mut view) {
                let start = (row * heads.count + head) * heads.size;
                seen[start..start + heads.size].copy_from_slice(view);
            }
        }
    }
    Ok(seen)
}

/// The queries (0), keys (1) or values (2) of a job, head by head.
fn gather(qkv: &[f32], part: usize, job: &Job, heads: Heads) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(job.rows.len() * job.heads.len() * heads.size);
    for head in job.heads.clone() {
        for row in job.rows.clone() {
            let start = ((3 * row + part) * heads.count + head) * heads.size;
            numbers.extend_from_slice(&qkv[start..start + heads.size]);
        }
    }
    numbers
}

#[expect(clippy::cast_precision_loss, reason = "head sizes are far below 2^24")]
fn scale(heads: Heads) -> f32 {
    (heads.size as f32).sqrt().recip()
}

fn many(qkv: &[f32], job: &Job, heads: Heads) -> Result<Vec<f32>, Error> {
    let (len, count) = (job.rows.len(), job.heads.len());
    let part = |part| Tensor::from_vec(gather(qkv, part, job, heads), (count, len, heads.size), &Device::Cpu);
    let mut scores: Vec<f32> = part(0)?.matmul(&part(1)?.t()?)?.flatten_all()?.to_vec1()?;
    let scale = scale(heads);
    for row in scores.chunks_exact_mut(len) {
        for score in row.iter_mut() {
            *score *= scale;
        }
        softmax(row);
    }
    Tensor::from_vec(scores, (count, len, len), &Device::Cpu)?.matmul(&part(2)?)?.flatten_all()?.to_vec1()
}

fn few(qkv: &[f32], job: &Job, heads: Heads) -> Vec<f32> {
    let (len, size, scale) = (job.rows.len(), heads.size, scale(heads));
    let [queries, keys, values] = array::from_fn(|part| gather(qkv, part, job, heads));
    let mut view = vec![0.0; queries.len()];
    let mut scores = [0.0; FEW];
    let scores = &mut scores[..len];
    for (at, (query, view)) in queries.chunks_exact(size).zip(view.chunks_exact_mut(size)).enumerate() {
        let head = at / len * len * size;
        let row = |row: usize| head + row * size..head + (row + 1) * size;
        for (place, score) in scores.iter_mut().enumerate() {
            *score = dot(query, &keys[row(place)]) * scale;
        }
        softmax(scores);
        // Four rows at a time; past the end a row is repeated with a weight of nothing.
        for first in (0..len).step_by(4) {
            let weight = |next: usize| scores.get(first + next).copied().unwrap_or(0.0);
            let rows = array::from_fn(|next| &values[row((first + next).min(len - 1))]);
            add_scaled(view, rows, array::from_fn(weight));
        }
    }
    view
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEADS: Heads = Heads { count: 6, size: 4 };

    proptest! {
        #[test]
        fn loops_and_matrices_see_the_same_and_only_the_own_text(
            lens in proptest::collection::vec(1usize..=FEW, 1..5), seed in any::<u32>(),
        ) {
            let width = HEADS.count * HEADS.size;
            let number = |n: usize| (f32::from(u16::try_from((n * 7919 + seed as usize) % 2003).unwrap()) / 1001.0) - 1.0;
            let qkv: Vec<f32> = (0..lens.iter().sum::<usize>() * 3 * width).map(number).collect();
            let mut start = 0;
            let texts: Vec<Range<usize>> = lens.iter().map(|len| { start += len; start - len..start }).collect();
            let together = attend(&qkv, &texts, HEADS).unwrap();
            for rows in texts {
                let job = Job { rows: rows.clone(), heads: 0..HEADS.count };
                let own = std::slice::from_ref(&rows);
                let alone = attend(&qkv[..rows.end * 3 * width], own, HEADS).unwrap();
                prop_assert_eq!(&together[rows.start * width..rows.end * width], &alone[rows.start * width..]);
                let (few, many) = (few(&qkv, &job, HEADS), many(&qkv, &job, HEADS).unwrap());
                prop_assert!(few.iter().zip(&many).all(|(few, many)| (few - many).abs() < 1e-5));
            }
        }
    }
}
