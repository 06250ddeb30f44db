//! The forward pass of a BERT network whose tokens' outputs are averaged: a sentence embedder.
//!
//! Written here instead of taken from `candle-transformers`, which pads all texts of a batch to the longest and computes for the
//! padding too. Here the tokens of all texts stand one after the other in one matrix, so that a batch of short and long texts costs
//! what its tokens cost. Candle multiplies the matrices, which is nearly all of the work.

mod attention;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{Device, Error, Tensor};
use serde::Deserialize;

use self::attention::{Heads, attend};
use crate::error::LoadError;
use crate::math::{add, dot, gelu, layer_norm};

/// What we need of `config.json`.
#[derive(Debug, Deserialize)]
struct Config {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    max_position_embeddings: usize,
    vocab_size: usize,
    hidden_act: String,
    layer_norm_eps: f32,
    #[serde(default = "absolute")]
    position_embedding_type: String,
}

fn absolute() -> String {
    "absolute".to_owned()
}

/// The weights.
pub(crate) struct Bert {
    words: Vec<f32>,
    /// With the type of the first text added: there is never a second one.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    heads: Heads,
    width: usize,
}

struct Layer {
    /// Queries, keys and values, joined: one multiplication instead of three.
    qkv: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

struct Linear {
    /// Turned, so that a row of inputs times this is a row of outputs.
    weights: Tensor,
    bias: Vec<f32>,
}

struct Norm {
    weights: Vec<f32>,
    bias: Vec<f32>,
    epsilon: f32,
}

impl Bert {
    /// Reads `config.json` and `model.safetensors` of a folder.
    pub(crate) fn load(folder: &Path) -> Result<Self, LoadError> {
        let path = folder.join("config.json");
        let config = fs::read(&path).map_err(|source| LoadError::Open { path, source })?;
        let config: Config = serde_json::from_slice(&config).map_err(LoadError::Config)?;
        let path = folder.join("model.safetensors");
        let file = fs::read(&path).map_err(|source| LoadError::Open { path, source })?;
        Self::read(&config, &file)
    }

    fn read(config: &Config, file: &[u8]) -> Result<Self, LoadError> {
        for (what, found, supported) in [
            ("architecture", &config.model_type, "bert"),
            ("activation", &config.hidden_act, "gelu"),
            ("kind of positions", &config.position_embedding_type, "absolute"),
        ] {
            if found != supported {
                return Err(LoadError::Unsupported { what, found: found.clone() });
            }
        }
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || width == 0 || width % heads != 0 || config.max_position_embeddings == 0 {
            let found = format!("{width} wide, {heads} heads, {} positions", config.max_position_embeddings);
            return Err(LoadError::Unsupported { what: "shape", found });
        }
        let file = File { tensors: candle_core::safetensors::load_buffer(file, &Device::Cpu)?, config };
        let layers = (0..config.num_hidden_layers).map(|index| file.layer(index)).collect::<Result<_, _>>()?;
        let mut positions = file.matrix("embeddings.position_embeddings.weight", config.max_position_embeddings)?;
        let types = file.tensor("embeddings.token_type_embeddings.weight")?.get(0)?.to_vec1::<f32>()?;
        if types.len() != width {
            return Err(LoadError::Tensor("embeddings.token_type_embeddings.weight".to_owned()));
        }
        positions.chunks_exact_mut(width).for_each(|position| add(position, &types));
        let words = file.matrix("embeddings.word_embeddings.weight", config.vocab_size)?;
        Ok(Self {
            words,
            positions,
            norm: file.norm("embeddings.LayerNorm")?,
            layers,
            heads: Heads { count: heads, size: width / heads },
            width,
        })
    }

    /// The most tokens that a text may have.
    pub(crate) fn context(&self) -> usize {
        self.positions.len() / self.width
    }

    /// How many tokens it knows.
    pub(crate) fn words(&self) -> usize {
        self.words.len() / self.width
    }

    /// How many numbers a vector has.
    pub(crate) fn dimensions(&self) -> usize {
        self.width
    }

    /// One vector for each text, of length 1. A text has at least one token, and at most as many as there are positions.
    pub(crate) fn embed(&self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>, Error> {
        let mut texts_rows = Vec::with_capacity(texts.len());
        let mut x = Vec::with_capacity(texts.iter().map(|tokens| tokens.len()).sum::<usize>() * self.width);
        for tokens in texts {
            let start = x.len() / self.width;
            if tokens.is_empty() || tokens.len() > self.context() {
                return Err(Error::Msg(format!("a text of {} tokens", tokens.len())));
            }
            for (token, position) in tokens.iter().zip(self.positions.chunks_exact(self.width)) {
                let place = *token as usize * self.width;
                let word = self.words.get(place..place + self.width);
                let word = word.ok_or_else(|| Error::Msg(format!("there is no token {token}")))?;
                x.extend(word.iter().zip(position).map(|(word, position)| word + position));
            }
            texts_rows.push(start..start + tokens.len());
        }
        self.norm.apply(&mut x);
        for layer in &self.layers {
            let seen = attend(&layer.qkv.apply(&x)?, &texts_rows, self.heads)?;
            add(&mut x, &layer.attention_output.apply(&seen)?);
            layer.attention_norm.apply(&mut x);
            let mut up = layer.up.apply(&x)?;
            gelu(&mut up);
            add(&mut x, &layer.down.apply(&up)?);
            layer.norm.apply(&mut x);
        }
        Ok(texts_rows
            .into_iter()
            .map(|rows| mean(&x[rows.start * self.width..rows.end * self.width], self.width))
            .collect())
    }
}

/// The direction of the rows' mean.
fn mean(rows: &[f32], width: usize) -> Vec<f32> {
    let mut sum = vec![0.0; width];
    rows.chunks_exact(width).for_each(|row| add(&mut sum, row));
    // The length of a sum is that of a mean but for a factor, which goes out of both.
    let scale = dot(&sum, &sum).sqrt().recip();
    for x in &mut sum {
        *x *= scale;
    }
    sum
}

impl Linear {
    fn apply(&self, x: &[f32]) -> Result<Vec<f32>, Error> {
        let (inputs, outputs) = self.weights.dims2()?;
        let x = Tensor::from_slice(x, (x.len() / inputs, inputs), &Device::Cpu)?;
        let mut y: Vec<f32> = x.matmul(&self.weights)?.flatten_all()?.to_vec1()?;
        y.chunks_exact_mut(outputs).for_each(|row| add(row, &self.bias));
        Ok(y)
    }
}

impl Norm {
    fn apply(&self, x: &mut [f32]) {
        layer_norm(x, &self.weights, &self.bias, self.epsilon);
    }
}

/// The tensors of a file, with the shapes that its configuration announces.
struct File<'a> {
    tensors: HashMap<String, Tensor>,
    config: &'a Config,
}

impl File<'_> {
    fn tensor(&self, name: &str) -> Result<&Tensor, LoadError> {
        self.tensors.get(name).ok_or_else(|| LoadError::Tensor(name.to_owned()))
    }

    /// `rows` rows of the model's width.
    fn matrix(&self, name: &str, rows: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name)?;
        if tensor.dims() != [rows, self.config.hidden_size] {
            return Err(LoadError::Tensor(name.to_owned()));
        }
        Ok(tensor.flatten_all()?.to_vec1()?)
    }

    fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
        let tensor = self.tensor(name)?;
        if tensor.dims() == [len] { Ok(tensor.to_vec1()?) } else { Err(LoadError::Tensor(name.to_owned())) }
    }

    fn norm(&self, name: &str) -> Result<Norm, LoadError> {
        let width = self.config.hidden_size;
        Ok(Norm {
            weights: self.vector(&format!("{name}.weight"), width)?,
            bias: self.vector(&format!("{name}.bias"), width)?,
            epsilon: self.config.layer_norm_eps,
        })
    }

    /// Layers that have the same inputs, joined.
    fn linear(&self, names: &[String], inputs: usize, outputs: usize) -> Result<Linear, LoadError> {
        let mut weights = Vec::with_capacity(names.len());
        let mut bias = Vec::with_capacity(names.len() * outputs);
        for name in names {
            let weight = format!("{name}.weight");
            let tensor = self.tensor(&weight)?;
            if tensor.dims() != [outputs, inputs] {
                return Err(LoadError::Tensor(weight));
            }
            weights.push(tensor);
            bias.extend(self.vector(&format!("{name}.bias"), outputs)?);
        }
        Ok(Linear { weights: Tensor::cat(&weights, 0)?.t()?.contiguous()?, bias })
    }

    fn layer(&self, index: usize) -> Result<Layer, LoadError> {
        let (width, feed) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let one = |part: &str, inputs, outputs| self.linear(&[name(part)], inputs, outputs);
        let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
        Ok(Layer {
            qkv: self.linear(&qkv, width, width)?,
            attention_output: one("attention.output.dense", width, width)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            up: one("intermediate.dense", width, feed)?,
            down: one("output.dense", feed, width)?,
            norm: self.norm(&name("output.LayerNorm"))?,
        })
    }
}
