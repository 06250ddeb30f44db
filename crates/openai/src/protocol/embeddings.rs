//! The JSON body of a request for vectors.

use bytes::Bytes;
use enigma_core::model::EmbeddingCall;
use serde::Serialize;

/// The body that asks `model` for the vectors of `call`. Base64 would be half as long, but not all servers know it, and some take no
/// notice; either is understood.
pub(super) fn encode(call: &EmbeddingCall, model: &str) -> Bytes {
    let body = Body { model, input: &call.inputs, encoding_format: "float", dimensions: call.dimensions };
    let json = serde_json::to_vec(&body).expect("texts and numbers have a JSON form");
    Bytes::from(json)
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [String],
    encoding_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
}
