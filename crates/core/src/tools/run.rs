//! What a tool has at hand while it runs.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::error::ToolFailure;
use super::lenient::json_objects;
use super::prompt::{data_prompt, repair};
use crate::admission::Permit;
use crate::chat::Transcript;
use crate::id::{ModelId, RequestId, TraceId};
use crate::model::{
    CallMetadata, ChatMessage, Delta, FinishReason, GatewayError, ModelCall, ModelGateway, ModelOverrides,
    ResponseFormat, Sampling, ToolChoice, select_models,
};
use crate::ports::{Clock, IdSource};
use crate::search::Tally;
use crate::session::prompt_tokens;
use crate::tenant::{Caller, TenantContext};
use crate::time::Timestamp;

/// How much of an answer that cannot be used is shown to the model again, in characters.
const REPAIRED_CHARS: usize = 8000;

/// What is asked of a model: the tool's instructions, and the data that they are about.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// What to do, and the form of the answer: one JSON object. Never anything that a user wrote.
    pub instructions: &'a str,
    /// What users wrote. Each piece becomes one line that it cannot leave.
    pub data: &'a [Value],
    /// The most tokens that the answer may have.
    pub max_tokens: u32,
}

impl Question<'_> {
    /// The most tokens that [`ToolRun::ask_for`] should use for it, asked once more included.
    pub fn estimate(&self) -> u64 {
        let prompt = prompt_tokens(&data_prompt(self.instructions, self.data, 0));
        let answer = u64::from(self.max_tokens);
        2 * (prompt + answer) + (REPAIRED_CHARS as u64 / 4).min(answer) + REPAIR_TOKENS
    }
}

/// What asking again adds to a prompt besides the answer, about.
const REPAIR_TOKENS: u64 = 100;

/// One run of a tool: on whose behalf it is, and what the tool may use.
pub struct ToolRun<'a> {
    pub(super) context: &'a TenantContext,
    pub(super) caller: &'a Caller,
    pub(super) request: RequestId,
    pub(super) trace: &'a TraceId,
    pub(super) traceparent: Option<&'a str>,
    pub(super) route: &'static str,
    /// When the tool's time is up.
    pub(super) deadline: Timestamp,
    /// The right to spend; none where the tool has said that it needs none.
    pub(super) permit: Option<&'a Permit>,
    pub(super) tally: &'a Tally,
    pub(super) models: &'a ModelGateway,
    pub(super) overrides: &'a ModelOverrides,
    pub(super) clock: &'a dyn Clock,
    pub(super) ids: &'a dyn IdSource,
    pub(super) asked: AskedModel,
}

/// The model that was asked last.
#[derive(Debug, Default)]
pub(super) struct AskedModel(Mutex<Option<ModelId>>);

impl AskedModel {
    pub(super) fn note(&self, model: &ModelId) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(model.clone());
    }

    pub(super) fn take(&self) -> Option<ModelId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ToolRun<'_> {
    /// The tenant, and who showed the credentials.
    pub fn context(&self) -> &TenantContext {
        self.context
    }

    /// On whose behalf.
    pub fn caller(&self) -> &Caller {
        self.caller
    }

    /// The request that this is a part of.
    pub fn request(&self) -> RequestId {
        self.request
    }

    /// When the tool's time is up; it is stopped then.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Asks the tenant's chat model, and reads its answer strictly with `read`, which says what is wrong with an object that is not
    /// what was asked for. The object may stand in a code fence or among prose. After an answer that cannot be used the model is
    /// asked once more, and told why.
    ///
    /// # Errors
    /// [`ToolFailure::Unusable`] when the second answer cannot be used either; whatever else keeps a model from answering.
    pub async fn ask_for<T: Send>(
        &self,
        question: Question<'_>,
        read: impl Fn(&Value) -> Result<T, String> + Send + Sync,
    ) -> Result<T, ToolFailure> {
        let mut messages = data_prompt(question.instructions, question.data, self.ids.random());
        let answer = self.ask(messages.clone(), question.max_tokens).await?;
        let problem = match read_answer(&answer, &read) {
            Ok(result) => return Ok(result),
            Err(problem) => problem,
        };
        tracing::info!(tenant = %self.context.id(), trace = %self.trace, "a model's answer to a tool cannot be used, it is asked again");
        let shown: String = answer.chars().take(REPAIRED_CHARS).collect();
        repair(&mut messages, &shown, &problem);
        let answer = self.ask(messages, question.max_tokens).await?;
        read_answer(&answer, &read).map_err(ToolFailure::Unusable)
    }

    /// Asks the tenant's chat model, or the one that the deployment prescribes; the text of its answer. What a user wrote belongs
    /// between markers: [`ask_for`](Self::ask_for) sees to that.
    ///
    /// # Errors
    /// [`ToolFailure`] when no model answers, or the answer breaks off.
    pub async fn ask(&self, messages: Vec<ChatMessage>, max_tokens: u32) -> Result<String, ToolFailure> {
        let permit = self.permit.ok_or_else(|| ToolFailure::Other("the tool has set no tokens aside".to_owned()))?;
        let tenant = self.context.tenant();
        let plan = select_models(None, self.overrides, tenant)?;
        let estimate = prompt_tokens(&messages);
        let mut call = ModelCall {
            model: plan.primary().clone(),
            messages,
            max_tokens,
            sampling: Sampling { temperature: Some(0.0), ..Sampling::default() },
            tools: Vec::new(),
            tool_choice: ToolChoice::default(),
            response_format: ResponseFormat::default(),
            metadata: self.metadata(),
        };
        self.asked.note(plan.primary());
        let mut pending = self.tally.begin(estimate);
        let mut reply = match self.models.open(permit, tenant, &plan, &mut call, self.deadline).await {
            Ok(reply) => reply,
            Err(error) => {
                pending.end();
                return Err(error.into());
            }
        };
        self.asked.note(&reply.model);
        let provider = reply.provider.clone();
        let (mut transcript, mut characters) = (Transcript::default(), 0);
        let broken = loop {
            match reply.next().await {
                None => break None,
                Some(Ok(delta)) => {
                    if let Delta::Content(text) | Delta::Reasoning(text) = &delta {
                        characters += text.chars().count() as u64;
                        pending.heard(characters.div_ceil(4));
                    }
                    transcript.take(delta);
                    if transcript.is_beyond(max_tokens) {
                        transcript.finish = Some(FinishReason::Length);
                        break None;
                    }
                }
                Some(Err(error)) => break Some(error).filter(|_| transcript.finish.is_none()),
            }
        };
        let model = reply.model.clone();
        drop(reply);
        pending.end();
        let (usage, estimated) = transcript.usage(estimate);
        self.tally.add(usage.prompt_tokens.into(), usage.completion_tokens.into(), estimated, Some(&provider));
        match broken {
            Some(source) => Err(GatewayError::Failed { model, source }.into()),
            None => Ok(transcript.content),
        }
    }

    pub(super) fn metadata(&self) -> CallMetadata {
        CallMetadata {
            tenant: self.context.id().clone(),
            trace: self.trace.clone(),
            traceparent: self.traceparent.map(str::to_owned),
            session: None,
            route: self.route,
            gateway: self.context.tenant().ai_gateway_id().map(str::to_owned),
        }
    }
}

/// The first object of an answer that can be read, or what is wrong with the last one.
fn read_answer<T>(answer: &str, read: impl Fn(&Value) -> Result<T, String>) -> Result<T, String> {
    let mut problem = "it holds no JSON object".to_owned();
    for object in json_objects(answer) {
        match read(&object) {
            Ok(result) => return Ok(result),
            Err(wrong) => problem = wrong,
        }
    }
    Err(problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_object_that_can_be_read_is_the_answer() {
        let read = |value: &Value| value["n"].as_u64().ok_or_else(|| format!("n is {}", value["n"]));
        assert_eq!(read_answer(r#"<think>{"n":"?"}</think> {"n": 3} {"n": 4}"#, read), Ok(3));
        assert_eq!(read_answer(r#"{"n":"?"} {"n":null}"#, read), Err("n is null".to_owned()));
        assert_eq!(read_answer("I cannot.", read), Err("it holds no JSON object".to_owned()));
    }
}
