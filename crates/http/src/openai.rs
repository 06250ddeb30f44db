//! The OpenAI-compatible face: the same tenants, limits and budgets, in the shapes that OpenAI's SDKs speak.

pub(crate) mod completions;
pub(crate) mod embeddings;
pub(crate) mod models;
pub(crate) mod request;
pub(crate) mod speech;
