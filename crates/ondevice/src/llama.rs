//! The forward pass of a llama network, for several conversations in one step.
//!
//! Written here instead of taken from `candle-transformers`, whose model keeps the state of one conversation inside its layers: it
//! cannot batch conversations, and needs twice the memory. Candle multiplies the quantised matrices, which is nearly all of the work.

mod attention;

use std::io::{Read, Seek};
use std::sync::Arc;

use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
use candle_core::{Device, Error, Module, Tensor};

use self::attention::{Heads, KeyValues, Place, attend};
use crate::error::LoadError;
use crate::gguf::Gguf;
use crate::math::{self, add, gate, rms_norm, rotate};
use crate::network::{Network, Part};

/// How the matrices are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// 8 bits in blocks of 32. Files in `Q4_1` are converted too, at no visible loss: candle has no vector code for that format and
    /// would run it four times slower.
    Q8,
    /// As computed. For tests of equality, which the rounding of `Q8` activations would hide.
    #[cfg(test)]
    F32,
}

impl Precision {
    const fn dtype(self) -> GgmlDType {
        match self {
            Self::Q8 => GgmlDType::Q8_0,
            #[cfg(test)]
            Self::F32 => GgmlDType::F32,
        }
    }
}

/// The weights. They never change, so any number of conversations share them.
pub(crate) struct Llama {
    embedding: Arc<QTensor>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    output: QMatMul,
    /// Radians by which each pair of a head turns from one position to the next.
    turns: Vec<f32>,
    heads: Heads,
    width: usize,
    epsilon: f32,
    context: usize,
}

struct Layer {
    attention_norm: Vec<f32>,
    /// Queries, keys and values, joined: one multiplication instead of three.
    qkv: QMatMul,
    attention_output: QMatMul,
    feed_norm: Vec<f32>,
    gate_up: QMatMul,
    down: QMatMul,
}

/// What one conversation has said so far, as the network remembers it.
#[derive(Debug)]
pub(crate) struct Seq {
    layers: Vec<KeyValues>,
    len: usize,
}

impl Llama {
    /// Reads the weights of a `llama` file.
    pub(crate) fn load<R: Read + Seek>(file: &mut Gguf<R>, precision: Precision) -> Result<Self, LoadError> {
        let architecture = file.text("general.architecture")?;
        if architecture != "llama" {
            return Err(LoadError::Unsupported { what: "architecture", found: architecture.to_owned() });
        }
        let heads = file.size("llama.attention.head_count")?;
        let kv_heads = file.size("llama.attention.head_count_kv")?;
        let width = file.size("llama.embedding_length")?;
        if heads == 0 || kv_heads == 0 || heads % kv_heads != 0 || width % (2 * heads) != 0 {
            let found = format!("{width} wide, {heads} heads, {kv_heads} of them for keys");
            return Err(LoadError::Unsupported { what: "shape", found });
        }
        let heads = Heads { queries: heads, keys: kv_heads, size: width / heads };
        let rotated = file.size("llama.rope.dimension_count").unwrap_or(heads.size);
        if rotated != heads.size {
            return Err(LoadError::Unsupported { what: "rotation of dimensions", found: rotated.to_string() });
        }
        let base = file.float("llama.rope.freq_base").unwrap_or(10_000.0);
        let epsilon = file.float("llama.attention.layer_norm_rms_epsilon")?;
        let context = file.size("llama.context_length")?;
        let layers = (0..file.size("llama.block_count")?)
            .map(|index| Layer::load(file, index, precision))
            .collect::<Result<_, _>>()?;
        let embedding = Arc::new(convert(&file.floats("token_embd.weight")?, precision)?);
        // A small model uses the embedding as its output matrix too, and then the file has it once.
        let output = if file.has_tensor("output.weight") {
            QMatMul::from_qtensor(convert(&file.floats("output.weight")?, precision)?)?
        } else {
            QMatMul::from_arc(Arc::clone(&embedding))?
        };
        let norm = file.floats("output_norm.weight")?.to_vec1()?;
        let turns = math::turns(heads.size, base);
        Ok(Self { embedding, layers, norm, output, turns, heads, width, epsilon, context })
    }

    /// Positions that the network was trained for.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// The last position of every part that wants logits, turned into them.
    fn logits(&self, x: &[f32], parts: &[Part<'_, Seq>]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        let mut last = Vec::new();
        let mut rows = 0;
        for part in parts {
            rows += part.tokens.len();
            if part.wants_logits {
                last.extend_from_slice(&x[(rows - 1) * self.width..rows * self.width]);
            }
        }
        if last.is_empty() {
            return Ok(parts.iter().map(|_| None).collect());
        }
        let logits = multiply(&self.output, rms_norm(&last, &self.norm, self.epsilon), self.width)?;
        let mut each = logits.chunks_exact(logits.len() * self.width / last.len());
        Ok(parts.iter().map(|part| part.wants_logits.then(|| each.next().map(<[f32]>::to_vec)).flatten()).collect())
    }
}

impl Layer {
    fn load<R: Read + Seek>(file: &mut Gguf<R>, index: usize, precision: Precision) -> Result<Self, LoadError> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let mut joined = |parts: &[&str]| -> Result<QMatMul, LoadError> {
            let parts = parts.iter().map(|part| file.floats(&name(part))).collect::<Result<Vec<_>, _>>()?;
            Ok(QMatMul::from_qtensor(convert(&Tensor::cat(&parts, 0)?, precision)?)?)
        };
        let qkv = joined(&["attn_q", "attn_k", "attn_v"])?;
        let attention_output = joined(&["attn_output"])?;
        let gate_up = joined(&["ffn_gate", "ffn_up"])?;
        let down = joined(&["ffn_down"])?;
        let attention_norm = file.floats(&name("attn_norm"))?.to_vec1()?;
        let feed_norm = file.floats(&name("ffn_norm"))?.to_vec1()?;
        Ok(Self { attention_norm, qkv, attention_output, feed_norm, gate_up, down })
    }
}

impl Network for Llama {
    type Seq = Seq;

    fn seq(&self) -> Seq {
        Seq { layers: self.layers.iter().map(|_| KeyValues::default()).collect(), len: 0 }
    }

    fn forward(&self, parts: &mut [Part<'_, Seq>]) -> Result<Vec<Option<Vec<f32>>>, Error> {
        if parts.iter().any(|part| part.tokens.is_empty()) {
            return Err(Error::Msg("a part without tokens".to_owned()));
        }
        let tokens: Vec<u32> = parts.iter().flat_map(|part| part.tokens).copied().collect();
        let places: Vec<Place> = parts
            .iter()
            .enumerate()
            .flat_map(|(part, of)| (0..of.tokens.len()).map(move |index| Place { part, position: of.seq.len + index }))
            .collect();
        let rotations: Vec<Vec<(f32, f32)>> =
            places.iter().map(|place| math::rotation(place.position, &self.turns)).collect();

        let ids = Tensor::from_vec(tokens, places.len(), &Device::Cpu)?;
        let mut x: Vec<f32> = self.embedding.embedding(&ids)?.flatten_all()?.to_vec1()?;
        for (index, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, self.epsilon);
            let mut qkv = multiply(&layer.qkv, normed, self.width)?;
            for ((row, place), rotation) in qkv.chunks_exact_mut(self.heads.row()).zip(&places).zip(&rotations) {
                let (queries_keys, values) = row.split_at_mut(self.heads.query_width() + self.heads.key_width());
                rotate(queries_keys, rotation);
                let keys = &queries_keys[self.heads.query_width()..];
                parts[place.part].seq.layers[index].push(keys, values);
            }
            let memory: Vec<&KeyValues> = parts.iter().map(|part| &part.seq.layers[index]).collect();
            let seen = attend(&qkv, &places, &memory, self.heads);
            add(&mut x, &multiply(&layer.attention_output, seen, self.width)?);

            let normed = rms_norm(&x, &layer.feed_norm, self.epsilon);
            let gate_up = multiply(&layer.gate_up, normed, self.width)?;
            let feed = gate_up.len() / places.len() / 2;
            add(&mut x, &multiply(&layer.down, gate(&gate_up, feed), feed)?);
        }
        for part in parts.iter_mut() {
            part.seq.len += part.tokens.len();
        }
        self.logits(&x, parts)
    }
}

fn convert(tensor: &Tensor, precision: Precision) -> Result<QTensor, Error> {
    QTensor::quantize(tensor, precision.dtype())
}

/// `rows × width` by a matrix.
fn multiply(matrix: &QMatMul, rows: Vec<f32>, width: usize) -> Result<Vec<f32>, Error> {
    let rows = Tensor::from_vec(rows, ((), width), &Device::Cpu)?;
    matrix.forward(&rows)?.flatten_all()?.to_vec1()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn feed(llama: &Llama, seq: &mut Seq, tokens: &[u32]) -> Vec<f32> {
        let mut parts = [Part { tokens, seq, wants_logits: true }];
        llama.forward(&mut parts).unwrap().remove(0).unwrap()
    }

    fn distance(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn chunks_and_single_steps_give_the_logits_of_one_prompt() {
        let llama = testing::llama(Precision::F32);
        let tokens: Vec<u32> = (0..50).map(|index| (index * 37 + 5) % testing::VOCABULARY).collect();
        let whole = feed(&llama, &mut llama.seq(), &tokens);
        assert!(whole.iter().any(|logit| logit.abs() > 0.1), "the logits must say something");

        for size in [1, 7, 32] {
            let mut seq = llama.seq();
            let logits = tokens.chunks(size).map(|chunk| feed(&llama, &mut seq, chunk)).last().unwrap();
            assert!(distance(&whole, &logits) < 1e-3, "in chunks of {size}");
        }
        let other = feed(&llama, &mut llama.seq(), &tokens[..49]);
        assert!(distance(&whole, &other) > 1e-2, "another prompt must give other logits");
    }

    #[test]
    fn the_order_of_tokens_matters() {
        let llama = testing::llama(Precision::F32);
        let forth = feed(&llama, &mut llama.seq(), &[7, 8, 9, 10]);
        let back = feed(&llama, &mut llama.seq(), &[9, 8, 7, 10]);
        assert!(distance(&forth, &back) > 1e-3);
    }

    #[test]
    fn conversations_in_one_batch_do_not_see_each_other() {
        let llama = testing::llama(Precision::F32);
        let prompts: [&[u32]; 3] = [&[1, 2, 3, 4, 5, 6, 7, 8], &[90, 80, 70], &[33]];
        let alone: Vec<_> = prompts
            .iter()
            .map(|prompt| {
                let mut seq = llama.seq();
                (feed(&llama, &mut seq, prompt), feed(&llama, &mut seq, &[11]))
            })
            .collect();

        let mut seqs = [llama.seq(), llama.seq(), llama.seq()];
        let mut together = |tokens: [&[u32]; 3], wanted: [bool; 3]| {
            let mut parts: Vec<_> = (seqs.iter_mut().zip(tokens).zip(wanted))
                .map(|((seq, tokens), wants_logits)| Part { tokens, seq, wants_logits })
                .collect();
            llama.forward(&mut parts).unwrap()
        };
        let prompted = together(prompts, [true, false, true]);
        assert!(prompted[1].is_none());
        let stepped = together([&[11]; 3], [true; 3]);
        for index in 0..3 {
            if let Some(logits) = &prompted[index] {
                assert!(distance(logits, &alone[index].0) < 1e-3, "prompt {index}");
            }
            assert!(distance(stepped[index].as_ref().unwrap(), &alone[index].1) < 1e-3, "step {index}");
        }
    }

    #[test]
    fn eight_bits_stay_close_to_f32() {
        let tokens = [3, 1, 4, 1, 5, 9, 2, 6];
        let (exact, short) = (testing::llama(Precision::F32), testing::llama(Precision::Q8));
        let a = feed(&exact, &mut exact.seq(), &tokens);
        let b = feed(&short, &mut short.seq(), &tokens);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt() > 0.99);
    }
}
