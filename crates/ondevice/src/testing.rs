//! A tiny model with random weights, written as a GGUF file, so that the tests load it as they would a real one.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use crate::gguf::Gguf;
use crate::llama::{Llama, Precision};
use crate::tokenizer::Tokenizer;

const CONTROL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const MERGES: [&str; 4] = ["t h", "th e", "1 2", "Ġ the"];
/// Control tokens, one token for each byte, one for each merge.
pub(crate) const VOCABULARY: u32 = 3 + 256 + 4;
/// Positions of the model.
pub(crate) const CONTEXT: usize = 256;

const WIDTH: usize = 64;
const HEADS: usize = 4;
const KEY_HEADS: usize = 2;
const FEED: usize = 96;
const BLOCKS: usize = 2;

/// The token that stands for a byte: control tokens come first, then all bytes in order.
pub(crate) fn token(byte: u8) -> u32 {
    u32::from(byte) + 3
}

/// GPT-2's alphabet: the character that a byte is written as.
fn alphabet() -> Vec<String> {
    let mut hidden = 0x100..;
    let char = |byte: u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        _ => char::from_u32(hidden.next().unwrap()).unwrap(),
    };
    (0..=u8::MAX).map(char).map(String::from).collect()
}

/// The whole file.
pub(crate) fn file() -> Cursor<Vec<u8>> {
    let mut tokens: Vec<String> = CONTROL.iter().map(|name| (*name).to_owned()).collect();
    tokens.extend(alphabet());
    tokens.extend(MERGES.iter().map(|merge| merge.replace(' ', "")));
    let kinds = (0..tokens.len()).map(|index| Value::I32(if index < CONTROL.len() { 3 } else { 1 })).collect();
    let text = |text: &str| Value::String(text.to_owned());
    let size = |size: usize| Value::U32(u32::try_from(size).unwrap());
    let metadata = [
        ("general.architecture", text("llama")),
        ("llama.block_count", size(BLOCKS)),
        ("llama.context_length", size(CONTEXT)),
        ("llama.embedding_length", size(WIDTH)),
        ("llama.feed_forward_length", size(FEED)),
        ("llama.attention.head_count", size(HEADS)),
        ("llama.attention.head_count_kv", size(KEY_HEADS)),
        ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ("llama.rope.freq_base", Value::F32(10_000.0)),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("smollm")),
        ("tokenizer.ggml.tokens", Value::Array(tokens.iter().map(|token| text(token)).collect())),
        ("tokenizer.ggml.token_type", Value::Array(kinds)),
        ("tokenizer.ggml.merges", Value::Array(MERGES.iter().map(|merge| text(merge)).collect())),
    ];

    let mut random = Random(1);
    // Without an embedding of their own, control tokens are never the likeliest, so that answers are long.
    let mut embedding = vec![0.0; CONTROL.len() * WIDTH];
    embedding.extend((CONTROL.len() * WIDTH..tokens.len() * WIDTH).map(|_| random.next() * 0.4));
    let mut tensors = vec![
        ("token_embd.weight".to_owned(), matrix(embedding, WIDTH)),
        ("output_norm.weight".to_owned(), random.vector(WIDTH)),
    ];
    let keys = WIDTH / HEADS * KEY_HEADS;
    for block in 0..BLOCKS {
        let mut push = |name: &str, tensor| tensors.push((format!("blk.{block}.{name}.weight"), tensor));
        push("attn_norm", random.vector(WIDTH));
        push("attn_q", random.matrix(WIDTH, WIDTH));
        push("attn_k", random.matrix(keys, WIDTH));
        push("attn_v", random.matrix(keys, WIDTH));
        push("attn_output", random.matrix(WIDTH, WIDTH));
        push("ffn_norm", random.vector(WIDTH));
        push("ffn_gate", random.matrix(FEED, WIDTH));
        push("ffn_up", random.matrix(FEED, WIDTH));
        push("ffn_down", random.matrix(WIDTH, FEED));
    }
    let metadata: Vec<_> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.set_position(0);
    file
}

pub(crate) fn llama(precision: Precision) -> Llama {
    Llama::load(&mut Gguf::read(file()).unwrap(), precision).unwrap()
}

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::load(&Gguf::read(file()).unwrap()).unwrap()
}

fn matrix(data: Vec<f32>, columns: usize) -> QTensor {
    let tensor = Tensor::from_vec(data, ((), columns), &Device::Cpu).unwrap();
    QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
}

struct Random(u32);

impl Random {
    /// From −1 to 1.
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((self.0 >> 16) as u16) / 32_768.0 - 1.0
    }

    fn matrix(&mut self, rows: usize, columns: usize) -> QTensor {
        matrix((0..rows * columns).map(|_| self.next() * 0.4).collect(), columns)
    }

    fn vector(&mut self, len: usize) -> QTensor {
        let data: Vec<f32> = (0..len).map(|_| 1.0 + self.next() * 0.2).collect();
        QTensor::quantize(&Tensor::from_vec(data, len, &Device::Cpu).unwrap(), GgmlDType::F32).unwrap()
    }
}
