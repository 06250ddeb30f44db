//! The Model Context Protocol at `POST /mcp`: the tenant's tools and search as tools, its documents as resources.
//!
//! One message a request, one JSON answer, nothing kept in between (Streamable HTTP without sessions), so that every instance of
//! every host can answer. The protocol is plain functions over values; [`route`] alone touches the world. See ADR-044 for why it is
//! our own.

mod json_rpc;
mod resources;
pub(crate) mod route;
mod tools;
mod version;

pub(crate) use self::json_rpc::{Id, refusal};
