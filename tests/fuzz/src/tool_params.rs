//! The parameters of tools.

use enigma_core::tools::{ClassifyIntent, ExtractEntities, Schema, Summarize, TagChunkDocs, Tool};
use serde_json::Value;

/// Checks parameters as every tool does, and has those estimated that pass.
pub fn tool_params(input: &[u8]) {
    let Ok(params) = serde_json::from_slice::<Value>(input) else { return };
    let tools: [&dyn Tool; 4] = [&Summarize, &ExtractEntities, &ClassifyIntent, &TagChunkDocs];
    for tool in tools {
        let definition = tool.definition();
        let schema =
            Schema::compile(&definition.parameters).unwrap_or_else(|error| panic!("{}: {error}", definition.name));
        match schema.check(&params) {
            Ok(()) => assert!(tool.estimate(&params) > 0, "{} asks a model and sets nothing aside", definition.name),
            Err(violations) => {
                assert!((1..=64).contains(&violations.len()), "{} violations", violations.len());
                for violation in violations {
                    let is_clipped = violation.pointer.chars().count() >= 300;
                    assert!(is_clipped || params.pointer(&violation.pointer).is_some(), "no such place: {violation:?}");
                    assert!(violation.message.chars().count() <= 300, "{violation:?}");
                }
            }
        }
    }
}
