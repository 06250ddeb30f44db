//! Models that chat, embed and speak behind any OpenAI-compatible HTTP endpoint: Ollama, vLLM, llama.cpp, a cloud's own, AI Gateway.
//!
//! What it is: an adapter of [`enigma_core::model::ChatModel`], [`enigma_core::model::Embedder`] and
//! [`enigma_core::model::SpeechSynthesizer`]. An [`Endpoint`] says where a provider is and which dialect it
//! speaks, a [`Transport`] carries bytes there and back, and an [`OpenAiModel`], an [`OpenAiEmbedder`] or an
//! [`OpenAiSynthesizer`] is both together. All but
//! [`NativeTransport`] (feature `native`) is free of a runtime and compiles for wasm32, where the host brings a transport of
//! its own.
//!
//! What it is not: a general OpenAI client. It knows `POST {base_url}/chat/completions`, `/embeddings` and `/audio/speech`, and
//! nothing else. It neither tries
//! again, nor falls back, nor counts failures: the core does, which is told by [`ModelError`](enigma_core::model::ModelError)
//! what another try is worth. It keeps no time either: the time that a first token and the next one may take is the core's to
//! watch, by dropping what takes too long.
//!
#![cfg_attr(feature = "native", doc = "```")]
#![cfg_attr(not(feature = "native"), doc = "```ignore")]
//! use std::sync::Arc;
//! use enigma_openai::{Endpoint, EndpointOptions, OpenAiModel, NativeTransport, TransportOptions};
//!
//! let transport = Arc::new(NativeTransport::new(&TransportOptions::default())?);
//! let endpoint = Endpoint::new(EndpointOptions::at("http://127.0.0.1:11434/v1"))?;
//! let model = OpenAiModel::new(endpoint, transport);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Secrets
//! Keys and configured header values are [`Secret`]s: no `Debug` shows them, their header values are marked sensitive, and they
//! are taken out of what a provider says when it fails.

mod answer;
mod embedder;
mod model;
mod protocol;
mod secret;
mod synthesizer;
mod transport;

pub use embedder::OpenAiEmbedder;
pub use model::OpenAiModel;
pub use protocol::{AnswerForm, Dialect, Endpoint, EndpointOptions, InvalidEndpoint, TokenLimitField};
pub use secret::Secret;
pub use synthesizer::OpenAiSynthesizer;
pub use transport::{ByteStream, Transport, TransportError};
#[cfg(feature = "native")]
pub use transport::{InvalidTransport, NativeTransport, TransportOptions};
