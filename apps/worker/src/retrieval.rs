//! Where documents and kept answers are.

use std::sync::Arc;

use enigma_cloudflare::{D1VectorizeCorpus, KvCache, MissingBinding};
use enigma_core::ports::{Cache, Corpus, TenantDirectory};
use worker::Env;

use crate::config::Config;

/// The stores of retrieval.
#[derive(Clone)]
pub struct Retrieval {
    /// The documents, in D1 and Vectorize.
    pub corpus: Arc<dyn Corpus>,
    /// Answers that are kept, in KV.
    pub cache: Arc<dyn Cache>,
}

impl Retrieval {
    /// The stores that `env` binds. Calls none of them yet.
    ///
    /// # Errors
    /// [`MissingBinding`].
    pub fn from_env(config: &Config, env: &Env, directory: Arc<dyn TenantDirectory>) -> Result<Self, MissingBinding> {
        let corpus = D1VectorizeCorpus::from_env(env, Some(directory), config.metadata_indexes.clone())?;
        Ok(Self { corpus: Arc::new(corpus), cache: Arc::new(KvCache::from_env(env)?) })
    }
}
