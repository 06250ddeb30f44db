//! What a tool is.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::error::ToolFailure;
use super::run::ToolRun;
use crate::id::ToolName;
use crate::tenant::{Scope, TenantContext};

/// What a caller must be allowed before a tool runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    /// A feature flag of the tenant must be on; flags are off unless the tenant's file says otherwise.
    Flag(String),
    /// The credentials must have this scope.
    Scope(Scope),
}

impl Permission {
    /// Whether the caller has it.
    pub fn is_given(&self, context: &TenantContext) -> bool {
        match self {
            Self::Flag(name) => context.tenant().flag(name),
            Self::Scope(scope) => context.require(*scope).is_ok(),
        }
    }
}

/// `flag:NAME` or `scope:NAME`, as clients are told.
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag:{name}"),
            Self::Scope(scope) => write!(f, "scope:{scope}"),
        }
    }
}

/// What a tool is, for those who call it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// Its name.
    pub name: ToolName,
    /// What it does, for people and for models.
    pub description: String,
    /// JSON Schema (2020-12) of its parameters.
    pub parameters: Value,
    /// JSON Schema (2020-12) of what it gives back.
    pub output: Value,
    /// How long it may take; never longer than the deployment lets a request take.
    pub timeout: Duration,
    /// What its caller needs, besides the flags `tools_enabled` and `tool_NAME`.
    pub permissions: Vec<Permission>,
    /// Whether its parameters hold whole documents, and so may be as large as those.
    pub takes_documents: bool,
}

/// A tool.
///
/// # Contract
/// - [`definition`](Self::definition) says the same each time; it is asked once, when the tool is registered.
/// - The future of [`run`](Self::run) may be dropped at any point: when its time is up, when the client goes away, when the program
///   stops. Whatever it asked for ends with it.
#[async_trait]
pub trait Tool: Send + Sync {
    /// What the tool is.
    fn definition(&self) -> ToolDefinition;

    /// The most tokens that a run with these parameters should use, which keep to the schema. They are set aside before it runs. A
    /// tool that says 0 cannot ask a model.
    fn estimate(&self, params: &Value) -> u64;

    /// Does the work. The parameters keep to the schema; what is given back is checked by the output's.
    ///
    /// # Errors
    /// [`ToolFailure`].
    async fn run(&self, run: &ToolRun<'_>, params: &Value) -> Result<Value, ToolFailure>;
}
