//! Workers AI, always behind AI Gateway.

mod answer;
mod binding;
mod body;
mod embedder;
mod failure;
mod inputs;
mod model;
mod options;
mod speech;

pub use binding::{AiBinding, MissingBinding};
pub use body::{AbortOnDrop, JsBody};
pub use embedder::WorkersAiEmbedder;
pub use model::WorkersAiModel;
pub use speech::WorkersAiSynthesizer;
