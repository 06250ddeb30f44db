//! What is said to a provider and what its refusals mean. Pure: no I/O, no clock, any target.

mod base_url;
mod body;
mod embeddings;
mod endpoint;
mod failure;
mod headers;
mod speech;

pub use endpoint::{AnswerForm, Dialect, Endpoint, EndpointOptions, InvalidEndpoint, TokenLimitField};
