//! The use case of a chat: what it needs, and how it is started.

use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;

use super::command::{ChatCommand, ChatEvents, ChatReply};
use super::conduct::{Opened, conduct};
use super::error::{ChatError, ChatRejected};
use crate::admission::Admission;
use crate::client::Client;
use crate::model::{ModelGateway, ModelOverrides};
use crate::ports::{Background, Clock, IdSource, IdempotencyStore, SessionTurns};
use crate::session::PromptLimits;
use crate::tenant::TenantContext;
use crate::tools::ToolService;

/// What a deployment decides about chats.
#[derive(Debug, Clone)]
pub struct ChatSettings {
    /// Models that it prescribes.
    pub overrides: ModelOverrides,
    /// How much history a model is shown.
    pub prompt: PromptLimits,
    /// The answer's cap where the request names none, in tokens.
    pub default_max_tokens: u32,
    /// The highest cap, in tokens.
    pub max_tokens: u32,
    /// How often a model may call tools of the platform before it has to answer; 0 means never.
    pub tool_rounds: u32,
    /// What such calls, and asking the model again, may spend beyond a chat without them, in tokens.
    pub tool_tokens: u64,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// How long a client may read nothing.
    pub send_timeout: Duration,
}

impl Default for ChatSettings {
    fn default() -> Self {
        Self {
            overrides: ModelOverrides::default(),
            prompt: PromptLimits { max_messages: 50, max_tokens: 4096 },
            default_max_tokens: 1024,
            max_tokens: 4096,
            tool_rounds: 4,
            tool_tokens: 16_384,
            request_timeout: Duration::from_secs(300),
            send_timeout: Duration::from_secs(20),
        }
    }
}

/// What a chat needs of the world.
#[derive(Clone)]
pub struct ChatPorts {
    /// Limits, budgets and records.
    pub admission: Admission,
    /// The models.
    pub models: ModelGateway,
    /// The sessions, turn by turn.
    pub turns: Arc<dyn SessionTurns>,
    /// The answers of requests that may be repeated.
    pub idempotency: Arc<dyn IdempotencyStore>,
    /// The tools that a request may name; without them it can name none.
    pub tools: Option<ToolService>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh names.
    pub ids: Arc<dyn IdSource>,
}

/// Answers chats. Cheap to clone.
#[derive(Clone)]
pub struct ChatService {
    shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) ports: ChatPorts,
    pub(super) settings: ChatSettings,
}

impl ChatService {
    /// A service over `ports`.
    pub fn new(ports: ChatPorts, settings: ChatSettings) -> Self {
        Self { shared: Arc::new(Shared { ports, settings }) }
    }

    /// What the deployment has decided.
    pub fn settings(&self) -> &ChatSettings {
        &self.shared.settings
    }

    /// Limits and budgets.
    pub fn admission(&self) -> &Admission {
        &self.shared.ports.admission
    }

    /// The models.
    pub fn models(&self) -> &ModelGateway {
        &self.shared.ports.models
    }

    /// Answers `command`. Returns when the model has begun to answer; the rest comes as events.
    ///
    /// One task on `background` does all of it, from the first slot that is taken to the last record, so that a caller who
    /// stops waiting, at whatever point, leaves nothing half done. Every reservation is settled or released exactly once, on
    /// every ending; if the process dies it expires.
    ///
    /// # Errors
    /// [`ChatRejected`] for everything that goes wrong before the first piece of the answer.
    pub async fn send(
        &self,
        context: TenantContext,
        command: ChatCommand,
        background: &dyn Background,
    ) -> Result<ChatReply, ChatRejected> {
        let Shared { ports, settings } = &*self.shared;
        let (client, events) =
            Client::connect(background, &ports.clock, settings.request_timeout, settings.send_timeout);
        let (opened, opening) = oneshot::channel();
        background.spawn(Box::pin(conduct(Arc::clone(&self.shared), context, command, client, opened)));
        let opened = opening.await.map_err(|_| ChatError::Died)??;
        Ok(reply(opened, events))
    }
}

fn reply(opened: Opened, events: ChatEvents) -> ChatReply {
    ChatReply {
        request: opened.request,
        created: opened.created,
        model: opened.model,
        tokens_in: opened.tokens_in,
        rate: opened.rate,
        replayed: opened.replayed,
        events,
    }
}
