//! The platform's own routes.

pub(crate) mod chat;
pub(crate) mod health;
pub(crate) mod openapi;
pub(crate) mod sessions;
