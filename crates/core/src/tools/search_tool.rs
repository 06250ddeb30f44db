//! `search` as a tool, for those who speak to tools only: models, and programs over the Model Context Protocol.
//!
//! It is a tool for its callers and on record, and a search for the books: it goes through the [`SearchService`], which admits,
//! reserves and charges it as it does every search. So it is no [`Tool`](super::Tool), whose slot and permit the [`ToolService`] has
//! taken before it runs.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};

use super::audit::AuditOutcome;
use super::command::{ToolCommand, ToolReply};
use super::definition::{Permission, ToolDefinition};
use super::error::{ToolError, ToolFailure, ToolRejected};
use super::perform::{Part, ended};
use super::registry::lacks;
use super::schema::{Schema, Violation};
use super::service::ToolService;
use crate::admission::AdmissionError;
use crate::chat::{ChatError, StreamFailure};
use crate::client::Client;
use crate::id::ToolName;
use crate::limit::RateStatus;
use crate::ports::Background;
use crate::retrieval::{MAX_QUERY_CHARS, MetadataFilter, SearchMode};
use crate::search::{RetrievalError, RetrievalRejected, SearchCommand, SearchEvent, SearchService};
use crate::tenant::{Scope, TenantContext};
use crate::time::Timestamp;

/// Sources where the parameters do not say how many.
const DEFAULT_TOP_K: u32 = 5;
/// The most sources.
const MAX_TOP_K: u32 = 20;
const FLAG: &str = "tool_search";

/// Answers questions from documents, for callers of tools. Cheap to clone.
#[derive(Clone)]
pub struct SearchTool {
    shared: Arc<Shared>,
}

struct Shared {
    tools: ToolService,
    search: SearchService,
    definition: ToolDefinition,
    parameters: Schema,
}

/// What a run has come to, and what it has used.
struct Outcome {
    result: Result<Value, ToolError>,
    rate: Option<RateStatus>,
    tokens: u64,
    /// Whether the limiter let it in.
    is_in: bool,
}

impl SearchTool {
    /// The tool over `search`, on the record of `tools`.
    pub fn new(tools: ToolService, search: SearchService) -> Self {
        let definition = definition();
        let parameters = Schema::compile(&definition.parameters).expect("the schema is one");
        Self { shared: Arc::new(Shared { tools, search, definition, parameters }) }
    }

    /// What it is.
    pub fn definition(&self) -> &ToolDefinition {
        &self.shared.definition
    }

    /// Whether the caller may use it.
    pub fn is_allowed(&self, context: &TenantContext) -> bool {
        lacks(&self.shared.definition, FLAG, context).is_none()
    }

    /// Searches, to the end of the answer. One task on `background` does it and writes the audit record, once on every ending;
    /// whoever stops waiting ends the search. What the limiter keeps out leaves no audit record.
    ///
    /// # Errors
    /// [`ToolRejected`].
    pub async fn execute(
        &self,
        context: TenantContext,
        command: ToolCommand,
        background: Arc<dyn Background>,
    ) -> Result<ToolReply, ToolRejected> {
        let (clock, timeout) = (&self.shared.tools.ports().clock, self.shared.tools.settings().request_timeout);
        let (client, events) = Client::<()>::connect(&*background, clock, timeout, timeout);
        let (done, reply) = oneshot::channel();
        let (this, on) = (self.clone(), Arc::clone(&background));
        background.spawn(Box::pin(async move {
            let told = this.conduct(&context, command, client, &*on).await;
            // A client that has gone needs no answer.
            let _ = done.send(told);
        }));
        let reply = reply.await;
        // Held until here: whoever stops waiting drops it, and the task notices.
        drop(events);
        reply.map_err(|_| ToolError::Common(ChatError::Died))?
    }

    async fn conduct(
        &self,
        context: &TenantContext,
        command: ToolCommand,
        mut client: Client<()>,
        background: &dyn Background,
    ) -> Result<ToolReply, ToolRejected> {
        let Shared { tools, .. } = &*self.shared;
        let started = tools.ports().clock.now();
        let outcome = match self.parsed(context, &command) {
            Ok(search) => {
                let searching = AssertUnwindSafe(self.search(context, search, background)).catch_unwind();
                match client.race(searching).await {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(_)) => {
                        let panicked = ToolFailure::Other("the search panicked".to_owned());
                        Outcome { result: Err(ToolError::Failed(panicked)), rate: None, tokens: 0, is_in: true }
                    }
                    // What it has used is known to the search, which settles it.
                    Err(ending) => Outcome { result: Err(ended(ending)), rate: None, tokens: 0, is_in: true },
                }
            }
            Err(error) => self.refuse(context, &command, error, started).await,
        };
        let duration = tools.ports().clock.now().since(started);
        if let Err(error @ (ToolError::Failed(_) | ToolError::TimedOut(_))) = &outcome.result {
            let (tenant, trace, error) = (context.id(), &command.trace, error as &dyn std::error::Error);
            tracing::warn!(%tenant, %trace, tool = %command.call.name, error, "tool failed");
        }
        let Outcome { result, rate, tokens, is_in } = outcome;
        if is_in {
            let part = Part {
                context,
                caller: &command.caller,
                request: command.request,
                trace: &command.trace,
                traceparent: command.traceparent.as_deref(),
                route: command.route,
                started,
            };
            let outcome = result.as_ref().map_or_else(AuditOutcome::from, |_| AuditOutcome::Succeeded);
            tools.record(part, &command.call, outcome, duration, tokens).await;
        }
        match (result, rate) {
            (Ok(data), Some(rate)) => Ok(ToolReply { data, duration, tokens, rate, replayed: false }),
            (Ok(_), None) => Err(ToolError::Common(ChatError::Died).into()),
            (Err(error), Some(rate)) => Err(ToolRejected { rate: Some(rate), ..error.into() }),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// A call that may not be made, or not with these parameters, takes its slot all the same, and is on record.
    async fn refuse(
        &self,
        context: &TenantContext,
        command: &ToolCommand,
        error: ToolError,
        now: Timestamp,
    ) -> Outcome {
        let admission = &self.shared.tools.ports().admission;
        match admission.pass(context, &command.caller, command.request, now).await {
            Ok(rate) => Outcome { result: Err(error), rate: Some(rate), tokens: 0, is_in: true },
            Err(error) => Outcome { result: Err(error.into()), rate: None, tokens: 0, is_in: false },
        }
    }

    fn parsed(&self, context: &TenantContext, command: &ToolCommand) -> Result<SearchCommand, ToolError> {
        let Shared { definition, parameters, .. } = &*self.shared;
        if let Some(lacks) = lacks(definition, FLAG, context) {
            return Err(ToolError::Denied(lacks));
        }
        let params = &command.call.params;
        parameters.check(params).map_err(ToolError::Invalid)?;
        let filter = params.get("filter").map(MetadataFilter::from_json).transpose().map_err(|error| {
            let steps = error.path.iter().map(|step| step.replace('~', "~0").replace('/', "~1"));
            let pointer = steps.fold("/filter".to_owned(), |pointer, step| pointer + "/" + &step);
            ToolError::Invalid(vec![Violation::new(pointer, error.reason)])
        })?;
        Ok(SearchCommand {
            request: command.request,
            trace: command.trace.clone(),
            traceparent: command.traceparent.clone(),
            route: command.route,
            caller: command.caller.clone(),
            query: params["query"].as_str().unwrap_or_default().to_owned(),
            top_k: params["topK"].as_u64().and_then(|top_k| u32::try_from(top_k).ok()).unwrap_or(DEFAULT_TOP_K),
            filter: filter.unwrap_or_default(),
            mode: params["mode"].as_str().and_then(SearchMode::parse).unwrap_or_default(),
        })
    }

    async fn search(&self, context: &TenantContext, command: SearchCommand, background: &dyn Background) -> Outcome {
        let mut reply = match self.shared.search.search(context.clone(), command, background).await {
            Ok(reply) => reply,
            Err(rejected) => return rejected_by(rejected),
        };
        let (mut sources, mut answer, mut failure) = (Vec::new(), String::new(), None);
        let done = loop {
            match reply.events.next().await {
                Some(SearchEvent::Sources(found)) => sources = found,
                Some(SearchEvent::Content(text)) => answer.push_str(&text),
                Some(SearchEvent::Failed(kind)) => failure = Some(broken_off(kind)),
                Some(SearchEvent::Done(done)) => break Some(done),
                None => break None,
            }
        };
        let (rate, is_in) = (Some(reply.rate), true);
        let Some(done) = done else {
            return Outcome { result: Err(ChatError::Died.into()), rate, tokens: 0, is_in };
        };
        let data = json!({
            "answer": answer,
            "sources": sources,
            "confidence": done.confidence,
            "followUps": done.follow_ups,
        });
        Outcome { result: failure.map_or(Ok(data), Err), rate, tokens: done.tokens_in + done.tokens_out, is_in }
    }
}

fn rejected_by(RetrievalRejected { error, rate }: RetrievalRejected) -> Outcome {
    let is_kept_out = matches!(
        &error,
        RetrievalError::Common(ChatError::Admission(
            AdmissionError::RateLimited(_) | AdmissionError::TooManyStreams { .. }
        ))
    );
    // What was refused before it had a slot has no windows to tell.
    let is_in = rate.is_some() && !is_kept_out;
    let error = match error {
        RetrievalError::Common(error @ (ChatError::Gateway(_) | ChatError::ModelNotAllowed(_))) => {
            ToolError::Failed(ToolFailure::Common(error))
        }
        RetrievalError::Common(error) => ToolError::Common(error),
        error => ToolError::Failed(ToolFailure::Retrieval(error)),
    };
    Outcome { result: Err(error), rate, tokens: 0, is_in }
}

fn broken_off(failure: StreamFailure) -> ToolError {
    match failure {
        StreamFailure::TimedOut => ChatError::TimedOut.into(),
        StreamFailure::ShutDown => ChatError::ShuttingDown.into(),
        StreamFailure::Model | StreamFailure::NotKept => {
            ToolError::Failed(ToolFailure::Told("The answer broke off".to_owned()))
        }
    }
}

fn definition() -> ToolDefinition {
    ToolDefinition {
        name: ToolName::new("search").expect("it keeps to the alphabet"),
        description:
            "Answers a question from the tenant's documents, and cites the passages that the answer rests on as \
                      [source:docId#chunkId]."
                .to_owned(),
        parameters: json!({
            "type": "object",
            "properties": {
                "query": {
                    "type": "string", "minLength": 1, "maxLength": MAX_QUERY_CHARS, "pattern": "\\S",
                    "description": "The question.",
                },
                "topK": {
                    "type": "integer", "minimum": 1, "maximum": MAX_TOP_K, "default": DEFAULT_TOP_K,
                    "description": "The most passages.",
                },
                "filter": {
                    "type": "object",
                    "description": "Which documents count, by their metadata; fields with values, or with $eq, $ne, $in, \
                                    $nin, $lt, $lte, $gt, $gte.",
                },
                "mode": {
                    "enum": ["hybrid", "vector", "keyword"], "default": "hybrid",
                    "description": "By meaning and by words, or by one of the two.",
                },
            },
            "required": ["query"],
            "additionalProperties": false,
        }),
        output: json!({
            "type": "object",
            "properties": {
                "answer": { "type": "string" },
                "sources": { "type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "id": { "type": "string", "description": "docId#chunkId, as in citations." },
                        "docId": { "type": "string" },
                        "chunkId": { "type": "string" },
                        "title": { "type": "string" },
                        "url": { "type": "string" },
                        "source": { "type": "string" },
                        "text": { "type": "string" },
                        "score": { "type": "number", "minimum": 0, "maximum": 1 },
                    },
                    "required": ["id", "docId", "chunkId", "text", "score"],
                } },
                "confidence": { "type": "number", "minimum": 0, "maximum": 1 },
                "followUps": { "type": "array", "items": { "type": "string" } },
            },
            "required": ["answer", "sources", "confidence", "followUps"],
        }),
        timeout: Duration::from_secs(120),
        permissions: vec![Permission::Scope(Scope::Search)],
        takes_documents: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_schemas_are_ones_and_parameters_are_checked() {
        let definition = definition();
        Schema::compile(&definition.output).unwrap();
        let parameters = Schema::compile(&definition.parameters).unwrap();
        for good in [
            json!({ "query": "why?" }),
            json!({ "query": "why?", "topK": 20, "mode": "vector", "filter": { "year": { "$gte": 2020 } } }),
        ] {
            assert!(parameters.check(&good).is_ok(), "{good}");
        }
        for bad in [
            json!({}),
            json!({ "query": " \n" }),
            json!({ "query": "x".repeat(MAX_QUERY_CHARS + 1) }),
            json!({ "query": "why?", "topK": 0 }),
            json!({ "query": "why?", "topK": 21 }),
            json!({ "query": "why?", "mode": "all" }),
            json!({ "query": "why?", "filter": [] }),
            json!({ "query": "why?", "tenant": "other" }),
            json!("why?"),
        ] {
            assert!(parameters.check(&bad).is_err(), "{bad}");
        }
    }
}
