//! The tools of a deployment.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::definition::{Permission, Tool, ToolDefinition};
use super::schema::{InvalidSchema, Schema};
use super::{ClassifyIntent, ExtractEntities, IngestDocs, Summarize, TagChunkDocs};
use crate::id::ToolName;
use crate::ingest::IngestService;
use crate::tenant::{Scope, TenantContext};

/// The flag without which a tenant has no tools. It is off unless the tenant's file says otherwise.
const TOOLS_ENABLED: &str = "tools_enabled";

/// A tool that cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InvalidTool {
    /// There is one of that name.
    #[error("there is a tool {0} already")]
    Duplicate(ToolName),
    /// One of its schemas is none.
    #[error("the {part} of tool {tool}: {source}")]
    Schema {
        /// The tool.
        tool: ToolName,
        /// `parameters` or `output`.
        part: &'static str,
        /// Why.
        source: InvalidSchema,
    },
}

/// A tool that was registered, with what was made of its definition.
pub(super) struct Registered {
    pub(super) tool: Arc<dyn Tool>,
    pub(super) definition: ToolDefinition,
    pub(super) parameters: Schema,
    pub(super) output: Schema,
    /// `tool_NAME`, which is on unless the tenant's file says otherwise.
    flag: String,
}

impl Registered {
    /// What the caller lacks to use it, if anything.
    pub(super) fn lacks(&self, context: &TenantContext) -> Option<Permission> {
        lacks(&self.definition, &self.flag, context)
    }
}

/// What the caller lacks to use a tool, whose own flag this is, if anything.
pub(super) fn lacks(definition: &ToolDefinition, flag: &str, context: &TenantContext) -> Option<Permission> {
    let tenant = context.tenant();
    if !tenant.flag(TOOLS_ENABLED) {
        return Some(Permission::Flag(TOOLS_ENABLED.to_owned()));
    }
    if !tenant.flag_or(flag, true) {
        return Some(Permission::Flag(flag.to_owned()));
    }
    let own = definition.permissions.iter().cloned();
    std::iter::once(Permission::Scope(Scope::Tools)).chain(own).find(|permission| !permission.is_given(context))
}

/// The tools of a deployment, each under its own name.
#[derive(Default)]
pub struct ToolRegistry {
    tools: BTreeMap<ToolName, Registered>,
}

impl ToolRegistry {
    /// No tools.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tools that come with the platform. Documents are taken in by `ingest`.
    pub fn built_in(ingest: IngestService) -> Self {
        let tools: [Arc<dyn Tool>; 5] = [
            Arc::new(Summarize),
            Arc::new(ExtractEntities),
            Arc::new(ClassifyIntent),
            Arc::new(TagChunkDocs),
            Arc::new(IngestDocs::new(ingest)),
        ];
        let mut registry = Self::new();
        for tool in tools {
            registry.register(tool).expect("the tools of the platform have names and schemas of their own");
        }
        registry
    }

    /// Adds a tool.
    ///
    /// # Errors
    /// [`InvalidTool`] for a second tool of one name, and for schemas that are none; nothing has changed then.
    pub fn register(&mut self, tool: Arc<dyn Tool>) -> Result<(), InvalidTool> {
        let definition = tool.definition();
        let name = definition.name.clone();
        if self.tools.contains_key(&name) {
            return Err(InvalidTool::Duplicate(name));
        }
        let compile = |part, schema| {
            Schema::compile(schema).map_err(|source| InvalidTool::Schema { tool: name.clone(), part, source })
        };
        let parameters = compile("parameters", &definition.parameters)?;
        let output = compile("output", &definition.output)?;
        let flag = format!("tool_{name}");
        self.tools.insert(name, Registered { tool, definition, parameters, output, flag });
        Ok(())
    }

    /// The definitions of the tools that the caller may use, by name.
    pub fn definitions<'a>(&'a self, context: &'a TenantContext) -> impl Iterator<Item = &'a ToolDefinition> {
        self.tools.values().filter(|tool| tool.lacks(context).is_none()).map(|tool| &tool.definition)
    }

    /// The definition of a tool, whoever may use it.
    pub fn definition(&self, name: &ToolName) -> Option<&ToolDefinition> {
        self.find(name).map(|tool| &tool.definition)
    }

    pub(super) fn find(&self, name: &ToolName) -> Option<&Registered> {
        self.tools.get(name)
    }
}
