//! A chat model and a sentence embedder that run in this process, from local weight files: no service, no key, no network.
//!
//! The chat model serves SmolLM2-135M-Instruct, and other models of the llama architecture that use its tokenizer and ChatML, from GGUF files of any
//! quantisation. One thread computes for all conversations, some at a time and the others in a bounded line,
//! which no tenant can fill against the others; see [`OnDeviceModel`].
//!
//! The embedder is all-MiniLM-L6-v2, and other models of the BERT architecture whose tokens' outputs are averaged, from safetensors; see
//! [`OnDeviceEmbedder`].
//!
//! It is not a general inference server: no GPU, no tools, no constrained output, no other tokenizers. A model of this size shows that
//! the platform works, and writes fluent English; what it says is not to be relied on.
//!
//! [`weights`] names the files that are known to work, and with the feature `pull` fetches them.

mod bert;
mod embedder;
mod engine;
mod error;
mod fairness;
mod gguf;
mod llama;
mod math;
mod model;
mod network;
mod sampler;
mod stop;
mod template;
#[cfg(test)]
mod testing;
mod tokenizer;
pub mod weights;

pub use embedder::{OnDeviceEmbedder, OnDeviceEmbedderOptions};
pub use error::LoadError;
pub use model::{OnDeviceModel, OnDeviceOptions};
