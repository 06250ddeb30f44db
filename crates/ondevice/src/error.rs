//! How loading a model fails.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A weight file that cannot be served.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a whole GGUF or safetensors file, or a tensor has not the shape that its metadata announce.
    #[error("not a readable weight file")]
    Format(#[from] candle_core::Error),
    /// A key that every model of this kind has is missing, or has another type.
    #[error("the GGUF metadata has no valid `{0}`")]
    Metadata(String),
    /// A tensor that every model of this kind has is missing, or has another shape than `config.json` announces.
    #[error("there is no tensor `{0}` of the shape that it has to have")]
    Tensor(String),
    /// `config.json` cannot be read.
    #[error("not a readable config.json")]
    Config(#[source] serde_json::Error),
    /// The file is in order, but holds another kind of model.
    #[error("{what} `{found}` is not supported")]
    Unsupported {
        /// The property at fault.
        what: &'static str,
        /// Its value in the file.
        found: String,
    },
    /// The vocabulary and its merges contradict each other, or `tokenizer.json` cannot be read.
    #[error("cannot build the tokenizer")]
    Tokenizer(#[source] Box<dyn StdError + Send + Sync>),
    /// The engine's thread cannot be started.
    #[error("cannot start the engine's thread")]
    Thread(#[source] io::Error),
}
