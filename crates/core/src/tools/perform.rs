//! One run of a tool, whoever has asked for it: the check before, the run within its time, and the record after.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use serde_json::Value;

use super::audit::{AuditOutcome, AuditRecord, ParamsHash};
use super::command::ToolCall;
use super::error::{ToolError, ToolFailure};
use super::registry::Registered;
use super::run::{AskedModel, ToolRun};
use super::service::ToolService;
use crate::admission::Permit;
use crate::caught::caught;
use crate::chat::ChatError;
use crate::client::Client;
use crate::id::{AuditId, ModelId, RequestId, TraceId};
use crate::model::{GatewayError, ModelError, Phase};
use crate::port_error::degrade;
use crate::search::Tally;
use crate::tenant::{Caller, TenantContext};
use crate::time::Timestamp;
use crate::usage::Ending;

/// The most bytes that a result may have as JSON.
const MAX_RESULT_BYTES: usize = 1024 * 1024;

/// On whose behalf a tool runs, and as a part of what.
#[derive(Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) context: &'a TenantContext,
    pub(crate) caller: &'a Caller,
    pub(crate) request: RequestId,
    pub(crate) trace: &'a TraceId,
    pub(crate) traceparent: Option<&'a str>,
    pub(crate) route: &'static str,
    pub(crate) started: Timestamp,
}

/// A call that may be made.
pub(crate) struct ReadyTool<'a> {
    registered: &'a Registered,
    params: &'a Value,
}

impl ReadyTool<'_> {
    /// The tokens to set aside for it.
    pub(crate) fn estimate(&self) -> u64 {
        self.registered.tool.estimate(self.params)
    }
}

/// What a run has come to.
pub(crate) struct Performed {
    pub(crate) result: Result<Value, ToolError>,
    /// The model that was asked last.
    pub(crate) model: Option<ModelId>,
}

impl ToolService {
    /// Looks for the tool, and whether the caller may use it, with these parameters.
    pub(crate) fn check<'a>(&'a self, context: &TenantContext, call: &'a ToolCall) -> Result<ReadyTool<'a>, ToolError> {
        let registered = self.registry().find(&call.name).ok_or_else(|| ToolError::NotFound(call.name.clone()))?;
        if let Some(lacks) = registered.lacks(context) {
            return Err(ToolError::Denied(lacks));
        }
        registered.parameters.check(&call.params).map_err(ToolError::Invalid)?;
        Ok(ReadyTool { registered, params: &call.params })
    }

    /// Has the tool do its work, and ends it when its time is up, when the client goes, or when the program stops.
    pub(crate) async fn perform<E>(
        &self,
        client: &mut Client<E>,
        part: Part<'_>,
        ready: &ReadyTool<'_>,
        permit: Option<&Permit>,
        tally: &Tally,
    ) -> Performed {
        let (ports, settings) = (self.ports(), self.settings());
        let timeout = ready.registered.definition.timeout.min(settings.timeout);
        let run = ToolRun {
            context: part.context,
            caller: part.caller,
            request: part.request,
            trace: part.trace,
            traceparent: part.traceparent,
            route: part.route,
            deadline: ports.clock.now().saturating_add(timeout),
            permit,
            tally,
            models: &ports.models,
            overrides: &settings.overrides,
            clock: &*ports.clock,
            ids: &*ports.ids,
            asked: AskedModel::default(),
        };
        let result = {
            // A tool that panics has failed; the books and the client are owed an end all the same.
            let running = AssertUnwindSafe(ready.registered.tool.run(&run, ready.params)).catch_unwind();
            let timed = async {
                match select(pin!(running), ports.clock.sleep(timeout)).await {
                    Either::Left((done, _)) => {
                        let done = done.unwrap_or_else(|_| Err(ToolFailure::Other("the tool panicked".to_owned())));
                        done.map_err(|failure| failed(failure, timeout))
                    }
                    Either::Right(_) => Err(ToolError::TimedOut(timeout)),
                }
            };
            // What loses the race is dropped here, and with it the call of a model that it was waiting for.
            client.race(timed).await.unwrap_or_else(|ending| Err(ended(ending)))
        };
        let result = result.and_then(|data| check_output(ready.registered, data));
        if let Err(error @ (ToolError::Failed(_) | ToolError::TimedOut(_))) = &result {
            let (tenant, trace, tool) = (part.context.id(), part.trace, &ready.registered.definition.name);
            tracing::warn!(%tenant, %trace, %tool, error = error as &dyn std::error::Error, "tool failed");
        }
        Performed { result, model: run.asked.take() }
    }

    /// Puts a run on record. To be called once for each, when its end is known.
    pub(crate) async fn record(
        &self,
        part: Part<'_>,
        call: &ToolCall,
        outcome: AuditOutcome,
        duration: Duration,
        tokens: u64,
    ) {
        let ports = self.ports();
        let record = AuditRecord {
            id: AuditId::new(ports.ids.uuid()),
            at: part.started,
            request: part.request,
            trace: part.trace.clone(),
            route: part.route.to_owned(),
            user: part.caller.user.clone(),
            tool: call.name.clone(),
            params: ParamsHash::of(&call.params),
            outcome,
            duration,
            tokens,
            expires_at: part.started.saturating_add(self.settings().audit_for),
        };
        degrade(caught("audit log", ports.audit.append(part.context.id(), &record)).await);
    }
}

fn failed(failure: ToolFailure, timeout: Duration) -> ToolError {
    match failure {
        ToolFailure::Invalid(violations) => ToolError::Invalid(violations),
        // Whoever waits for a model knows of the tool's deadline, and may notice a moment before this dispatcher does.
        ToolFailure::Common(
            ChatError::TimedOut
            | ChatError::Gateway(GatewayError::Failed { source: ModelError::Timeout(Phase::Deadline), .. }),
        ) => ToolError::TimedOut(timeout),
        failure => ToolError::Failed(failure),
    }
}

fn check_output(tool: &Registered, data: Value) -> Result<Value, ToolError> {
    if let Err(violations) = tool.output.check(&data) {
        let first = violations.first().map(|first| format!("{} {}", first.pointer, first.message)).unwrap_or_default();
        return Err(ToolError::Failed(ToolFailure::Other(format!("the result breaks the schema: {first}"))));
    }
    if data.to_string().len() > MAX_RESULT_BYTES {
        return Err(ToolError::Failed(ToolFailure::Other("the result is too large".to_owned())));
    }
    Ok(data)
}

/// What a request is told that must end early.
pub(super) const fn ended(ending: Ending) -> ToolError {
    ToolError::Common(match ending {
        Ending::ShutDown => ChatError::ShuttingDown,
        Ending::ClientGone => ChatError::ClientGone,
        Ending::TimedOut | Ending::Failed | Ending::Finished => ChatError::TimedOut,
    })
}

/// How a request ended whose tool failed.
pub(crate) const fn ending(error: &ToolError) -> Ending {
    match error {
        ToolError::Common(ChatError::ClientGone) => Ending::ClientGone,
        ToolError::Common(ChatError::ShuttingDown) => Ending::ShutDown,
        ToolError::Common(ChatError::TimedOut) | ToolError::TimedOut(_) => Ending::TimedOut,
        _ => Ending::Failed,
    }
}
