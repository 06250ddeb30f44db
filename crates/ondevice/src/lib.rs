//! A chat model that runs in this process, from a local weight file: no service, no key, no network.
//!
//! It serves SmolLM2-135M-Instruct, and other models of the llama architecture that use its tokenizer and ChatML, from GGUF files of any
//! quantisation. One thread computes for all conversations, some at a time and the others in a bounded line,
//! which no tenant can fill against the others; see [`OnDeviceModel`].
//!
//! It is not a general inference server: no GPU, no tools, no constrained output, no other tokenizers. A model of this size shows that
//! the platform works, and writes fluent English; what it says is not to be relied on.
//!
//! [`weights`] names the files that are known to work, and with the feature `pull` fetches them.

mod engine;
mod error;
mod gguf;
mod llama;
mod model;
mod network;
mod sampler;
mod stop;
mod template;
#[cfg(test)]
mod testing;
mod tokenizer;
pub mod weights;

pub use error::LoadError;
pub use model::{OnDeviceModel, OnDeviceOptions};
