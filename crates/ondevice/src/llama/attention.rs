//! What a position sees of those before it.

use std::array;

use rayon::iter::{IndexedParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;

use crate::math::{add_scaled, dot, softmax};

/// Below so many pairs of positions one thread is done before the others are awake.
const WORTH_SHARING: usize = 512;

/// How a row is divided into heads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Heads that ask.
    pub(super) queries: usize,
    /// Heads that answer; several asking ones share each.
    pub(super) keys: usize,
    /// Numbers in a head.
    pub(super) size: usize,
}

impl Heads {
    pub(super) const fn query_width(self) -> usize {
        self.queries * self.size
    }

    pub(super) const fn key_width(self) -> usize {
        self.keys * self.size
    }

    /// Queries, keys and values.
    pub(super) const fn row(self) -> usize {
        self.query_width() + 2 * self.key_width()
    }

    /// The width of the queries that share one head of keys.
    const fn group_width(self) -> usize {
        self.queries / self.keys * self.size
    }
}

/// Where a row of a batch belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) part: usize,
    pub(super) position: usize,
}

/// The keys and values of one conversation in one layer, a row for each position.
#[derive(Debug, Default)]
pub(super) struct KeyValues {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl KeyValues {
    pub(super) fn push(&mut self, keys: &[f32], values: &[f32]) {
        self.keys.extend_from_slice(keys);
        self.values.extend_from_slice(values);
    }
}

/// Attention of every row to its own conversation, up to its own position.
pub(super) fn attend(qkv: &[f32], places: &[Place], memory: &[&KeyValues], heads: Heads) -> Vec<f32> {
    let mut seen = vec![0.0; places.len() * heads.query_width()];
    let group = |index: usize, seen: &mut [f32]| {
        let (row, key_head) = (index / heads.keys, index % heads.keys);
        let start = row * heads.row() + key_head * heads.group_width();
        let queries = &qkv[start..start + heads.group_width()];
        let place = places[row];
        attend_group(queries, memory[place.part], place.position + 1, key_head, heads, seen);
    };
    let work: usize = places.iter().map(|place| place.position + 1).sum();
    if work < WORTH_SHARING {
        seen.chunks_exact_mut(heads.group_width()).enumerate().for_each(|(index, seen)| group(index, seen));
    } else {
        seen.par_chunks_exact_mut(heads.group_width()).enumerate().for_each(|(index, seen)| group(index, seen));
    }
    seen
}

/// All queries that share a head of keys, so that each key and value is fetched from memory once for all of them.
fn attend_group(queries: &[f32], memory: &KeyValues, len: usize, key_head: usize, heads: Heads, seen: &mut [f32]) {
    let size = heads.size;
    let of_head =
        |row: usize| row * heads.key_width() + key_head * size..row * heads.key_width() + (key_head + 1) * size;
    #[expect(clippy::cast_precision_loss, reason = "head sizes are far below 2^24")]
    let scale = (size as f32).sqrt().recip();

    let mut scores = vec![0.0; len * queries.len() / size];
    for row in 0..len {
        let key = &memory.keys[of_head(row)];
        for (head, query) in queries.chunks_exact(size).enumerate() {
            scores[head * len + row] = dot(query, key) * scale;
        }
    }
    scores.chunks_exact_mut(len).for_each(softmax);
    // Four rows at a time; past the end a row is repeated with a weight of nothing.
    for row in (0..len).step_by(4) {
        let values = array::from_fn(|next| &memory.values[of_head((row + next).min(len - 1))]);
        for (head, seen) in seen.chunks_exact_mut(size).enumerate() {
            let weight = |next: usize| if row + next < len { scores[head * len + row + next] } else { 0.0 };
            add_scaled(seen, values, array::from_fn(weight));
        }
    }
}
