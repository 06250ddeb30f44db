//! Embeddings that a test can reason about: texts with the same words are near.

use serde_json::{Value, json};

/// How many numbers a vector has: what the model's name ends with, or else this.
const DIMENSIONS: usize = 64;

/// The vector of a text: each of its words points into a direction of its own, as far as there are enough.
fn vector(text: &str, dimensions: usize) -> Vec<f64> {
    let mut vector = vec![0.01; dimensions];
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        // FNV-1a.
        let hash = word
            .to_lowercase()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        vector[usize::try_from(hash % dimensions as u64).unwrap()] += 1.0;
    }
    let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
    vector.iter().map(|x| x / length).collect()
}

/// The answer to a call; `None` when one of its texts has the marker `[[no embedding]]`.
pub(super) fn answer(body: &Value) -> Option<Value> {
    let model = body["model"].as_str().unwrap_or_default();
    let dimensions = model.rsplit('-').next().and_then(|end| end.parse().ok()).unwrap_or(DIMENSIONS);
    let texts = texts(body);
    if texts.iter().any(|text| text.contains("[[no embedding]]")) {
        return None;
    }
    let tokens: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
    let data: Vec<_> = (texts.iter().enumerate())
        .map(|(index, text)| json!({ "object": "embedding", "index": index, "embedding": vector(text, dimensions) }))
        .collect();
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    Some(json!({ "object": "list", "data": data, "model": model, "usage": usage }))
}

/// The texts of a call.
pub(super) fn texts(body: &Value) -> Vec<&str> {
    match &body["input"] {
        Value::String(text) => vec![text],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}
