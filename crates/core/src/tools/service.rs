//! The use case of a tool: what it needs, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use super::command::{ToolCommand, ToolReply};
use super::conduct::conduct;
use super::definition::ToolDefinition;
use super::error::{ToolError, ToolRejected};
use super::registry::ToolRegistry;
use crate::admission::Admission;
use crate::chat::ChatError;
use crate::client::Client;
use crate::model::{ModelGateway, ModelOverrides};
use crate::ports::{AuditLog, Background, Clock, IdSource, IdempotencyStore};
use crate::tenant::TenantContext;

/// What a deployment decides about tools.
#[derive(Debug, Clone)]
pub struct ToolSettings {
    /// Models that it prescribes.
    pub overrides: ModelOverrides,
    /// How long a tool may take, where its own limit is not shorter.
    pub timeout: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long an audit record is kept.
    pub audit_for: Duration,
}

impl Default for ToolSettings {
    fn default() -> Self {
        Self {
            overrides: ModelOverrides::default(),
            timeout: Duration::from_secs(120),
            request_timeout: Duration::from_secs(300),
            audit_for: Duration::from_secs(7 * 24 * 3600),
        }
    }
}

/// What tools need of the world.
#[derive(Clone)]
pub struct ToolPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models that they ask.
    pub models: ModelGateway,
    /// The answers of requests that may be repeated.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// Where their runs are kept on record.
    pub audit: Arc<dyn AuditLog>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh names and chance.
    pub ids: Arc<dyn IdSource>,
}

/// Has tools do their work. The one way to them: for requests, for chats, and for whoever else calls them. Cheap to clone.
#[derive(Clone)]
pub struct ToolService {
    shared: Arc<Shared>,
}

struct Shared {
    registry: ToolRegistry,
    ports: ToolPorts,
    settings: ToolSettings,
}

impl ToolService {
    /// A service over the tools of `registry`.
    pub fn new(registry: ToolRegistry, ports: ToolPorts, settings: ToolSettings) -> Self {
        Self { shared: Arc::new(Shared { registry, ports, settings }) }
    }

    /// The definitions of the tools that the caller may use, by name.
    pub fn definitions<'a>(&'a self, context: &'a TenantContext) -> impl Iterator<Item = &'a ToolDefinition> {
        self.shared.registry.definitions(context)
    }

    /// The tools.
    pub fn registry(&self) -> &ToolRegistry {
        &self.shared.registry
    }

    pub(super) fn ports(&self) -> &ToolPorts {
        &self.shared.ports
    }

    pub(super) fn settings(&self) -> &ToolSettings {
        &self.shared.settings
    }

    /// Runs a tool to its end.
    ///
    /// As with chats, one task on `background` does all of it, and settles, records and writes its audit record exactly once on
    /// every ending. Whoever stops waiting ends the tool's work. A request that the limiter keeps out leaves no audit record:
    /// otherwise whoever is refused could still fill the log.
    ///
    /// # Errors
    /// [`ToolRejected`].
    pub async fn execute(
        &self,
        context: TenantContext,
        command: ToolCommand,
        background: &dyn Background,
    ) -> Result<ToolReply, ToolRejected> {
        let timeout = self.settings().request_timeout;
        let (client, events) = Client::<()>::connect(background, &self.ports().clock, timeout, timeout);
        let (done, reply) = oneshot::channel();
        background.spawn(Box::pin(conduct(self.clone(), context, command, client, done)));
        let reply = reply.await;
        // Held until here: whoever stops waiting drops it, and the service notices.
        drop(events);
        reply.map_err(|_| ToolError::Common(ChatError::Died))?
    }
}
