//! What the routes work with.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::chat::{ChatService, SessionService};
use enigma_core::embeddings::EmbedService;
use enigma_core::ingest::{DocumentService, IngestService};
use enigma_core::ports::{Clock, IdSource, TenantDirectory};
use enigma_core::search::SearchService;
use enigma_core::speech::SpeechService;
use enigma_core::tenant::Resolver;
use enigma_core::tools::{SearchTool, ToolService};

use crate::overload::{Overload, OverloadLimits};

/// What a host decides about its HTTP face.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// The name of the environment, such as `production`; `/health` tells it.
    pub environment: String,
    /// The most bytes that a body may have.
    pub max_body_bytes: usize,
    /// The most bytes that a body with a document may have.
    pub max_document_body_bytes: usize,
    /// The most characters that a chat's message may have; never more than 10,000.
    pub max_message_chars: usize,
    /// After how much silence an event stream shows that it is alive.
    pub keep_alive: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            environment: "development".to_owned(),
            max_body_bytes: 65_536,
            max_document_body_bytes: 2 * 1024 * 1024,
            max_message_chars: 10_000,
            keep_alive: Duration::from_secs(15),
        }
    }
}

/// Whether the host can do its work.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// Looks whether what the host depends on is there.
    ///
    /// # Errors
    /// Why not, for the operators' log; clients are only told that it is not.
    async fn check(&self) -> Result<(), String>;
}

/// What the routes need of the host.
#[derive(Clone)]
pub struct AppPorts {
    /// Ties requests to tenants.
    pub resolver: Resolver,
    /// The tenants, for the questions that browsers ask before they send credentials.
    pub directory: Arc<dyn TenantDirectory>,
    /// Answers chats.
    pub chat: ChatService,
    /// Shows and deletes sessions.
    pub sessions: SessionService,
    /// Answers questions from documents.
    pub search: SearchService,
    /// Takes documents in.
    pub ingest: IngestService,
    /// Lists and deletes documents.
    pub documents: DocumentService,
    /// Has tools do their work.
    pub tools: ToolService,
    /// Embeds texts.
    pub embeddings: EmbedService,
    /// Speaks texts.
    pub speech: SpeechService,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Fresh names.
    pub ids: Arc<dyn IdSource>,
    /// For `/readyz`.
    pub readiness: Arc<dyn Readiness>,
}

struct Shared {
    ports: AppPorts,
    settings: HttpSettings,
    /// Made when it is asked for first: a Worker makes its state for each request, and few are for this.
    search_tool: OnceLock<SearchTool>,
}

/// The routes' shared state. Cheap to clone.
#[derive(Clone)]
pub struct App {
    shared: Arc<Shared>,
    overload: Option<Arc<Overload>>,
}

impl App {
    /// The state of a host.
    pub fn new(ports: AppPorts, settings: HttpSettings) -> Self {
        Self { shared: Arc::new(Shared { ports, settings, search_tool: OnceLock::new() }), overload: None }
    }

    /// The same, for a host that has to bound itself what it does at once.
    #[must_use]
    pub fn bounded(self, limits: OverloadLimits) -> Self {
        Self { overload: Some(Arc::new(Overload::new(limits))), ..self }
    }

    pub(crate) fn ports(&self) -> &AppPorts {
        &self.shared.ports
    }

    pub(crate) fn settings(&self) -> &HttpSettings {
        &self.shared.settings
    }

    pub(crate) fn search_tool(&self) -> &SearchTool {
        let Shared { ports, search_tool, .. } = &*self.shared;
        search_tool.get_or_init(|| SearchTool::new(ports.tools.clone(), ports.search.clone()))
    }

    pub(crate) fn overload(&self) -> Option<&Overload> {
        self.overload.as_deref()
    }
}
