//! The platform's own routes.

pub(crate) mod chat;
pub(crate) mod documents;
pub(crate) mod health;
pub(crate) mod ingest;
pub(crate) mod openapi;
pub(crate) mod search;
pub(crate) mod sessions;
pub(crate) mod speech;
pub(crate) mod tools;
