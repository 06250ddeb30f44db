//! Tools of one's own.

use std::sync::Arc;

use async_trait::async_trait;
use enigma_core::tools::{InvalidTool, Tool, ToolDefinition, ToolFailure, ToolRegistry, ToolRun};
use serde_json::{Value, json};

use crate::harness::{Parrot, World};

/// Another bird, whose definition is changed.
struct Changed(fn(&mut ToolDefinition));

#[async_trait]
impl Tool for Changed {
    fn definition(&self) -> ToolDefinition {
        let mut definition = Parrot.definition();
        self.0(&mut definition);
        definition
    }

    fn estimate(&self, _: &Value) -> u64 {
        0
    }

    async fn run(&self, _: &ToolRun<'_>, _: &Value) -> Result<Value, ToolFailure> {
        Ok(json!({}))
    }
}

#[test]
fn a_name_is_given_once_and_schemas_are_schemas() {
    let mut registry = ToolRegistry::new();
    registry.register(Arc::new(Parrot)).unwrap();
    let same = registry.register(Arc::new(Changed(|_| {})));
    assert!(matches!(same, Err(InvalidTool::Duplicate(name)) if name.as_str() == "parrot"));
    let bad = registry.register(Arc::new(Changed(|it| {
        it.name = "owl".parse().unwrap();
        it.output = json!({ "type": "bird" });
    })));
    assert!(matches!(bad, Err(InvalidTool::Schema { part: "output", .. })), "{bad:?}");
    assert!(registry.definition(&"owl".parse().unwrap()).is_none());
    registry.register(Arc::new(Changed(|it| it.name = "owl".parse().unwrap()))).unwrap();
}

#[tokio::test]
async fn only_what_may_be_used_is_listed() {
    for (flags, expected) in [
        (json!({ "tools_enabled": true, "birds": true }), 1),
        (json!({ "tools_enabled": true }), 0),
        (json!({ "birds": true }), 0),
        (json!({ "tools_enabled": true, "birds": true, "tool_parrot": false }), 0),
        (json!({ "tools_enabled": true, "birds": true, "tool_parrot": true }), 1),
    ] {
        let world = World::new(&flags);
        assert_eq!(world.tools.definitions(&world.context().await).count(), expected, "{flags}");
    }
}
