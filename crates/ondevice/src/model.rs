//! The port that the core asks.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use enigma_core::TenantId;
use enigma_core::model::{ChatModel, DeltaStream, ModelCall, ModelError, ResponseFormat, Role, ToolChoice};

use crate::engine::{Engine, Limits, Request};
use crate::error::LoadError;
use crate::gguf::Gguf;
use crate::llama::{Llama, Precision};
use crate::sampler::Sampler;
use crate::stop::StopTexts;
use crate::template::ChatMl;
use crate::tokenizer::Tokenizer;

/// How much a model takes on.
///
/// The number of computing threads is not among them: candle takes it from `CANDLE_NUM_THREADS`, or else `RAYON_NUM_THREADS`, or else
/// the number of cores, once for the whole process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnDeviceOptions {
    /// Conversations that are answered at the same time. More share the same speed, and each needs memory for its context.
    pub conversations: usize,
    /// Conversations that wait for one of those to end, of all tenants together. Further ones are refused with [`ModelError::Busy`];
    /// but a tenant that has fewer conversations here, answered and waiting, than another takes the place of the one that came last
    /// of the tenant with the most in line, and that one is told `Busy` instead.
    pub queue: usize,
    /// How long a conversation waits; then it is refused with [`ModelError::Busy`]. Keep it below the time in which callers expect the
    /// first piece of an answer, so that a line that is long is not taken for a model that is broken.
    pub patience: Duration,
    /// Tokens of prompt and answer together, at most as many as the model was trained for. SmolLM2 remembers a token in 46 kB.
    pub context: usize,
    /// Pieces of an answer that are kept for a reader who is slower than the model. Then the model waits.
    pub unread: usize,
}

impl Default for OnDeviceOptions {
    /// 4 conversations, 32 waiting for at most 20 s, 4096 tokens, 1024 pieces.
    fn default() -> Self {
        Self { conversations: 4, queue: 32, patience: Duration::from_secs(20), context: 4096, unread: 1024 }
    }
}

/// A chat model in this process.
///
/// It computes in a thread of its own, which sleeps while there is nothing to do and ends soon after the value is dropped. Where a call
/// names no temperature it is 0.2, and `top_p` 0.9, as the makers of SmolLM2 recommend.
///
/// Tenants share it evenly: a place that gets free goes to the tenant with the fewest conversations under way, and a full line makes room
/// for a tenant that has fewer than another. So [`ModelError::Busy`] comes from [`stream`](ChatModel::stream), or later as the first
/// and only item of the answer. A conversation that has begun is never displaced.
pub struct OnDeviceModel {
    engine: Engine,
    tokenizer: Arc<Tokenizer>,
    template: ChatMl,
    context: usize,
}

impl OnDeviceModel {
    /// Loads the weights, which takes about a second of computing: call it where blocking is allowed.
    ///
    /// # Errors
    /// [`LoadError`] when the file is not one of a model that can be served.
    pub fn load(path: &Path, options: OnDeviceOptions) -> Result<Self, LoadError> {
        let open = |source| LoadError::Open { path: path.to_owned(), source };
        Self::read(BufReader::new(File::open(path).map_err(open)?), options)
    }

    /// The same from any source of bytes.
    pub(crate) fn read<R: Read + Seek>(reader: R, options: OnDeviceOptions) -> Result<Self, LoadError> {
        let mut file = Gguf::read(reader)?;
        let tokenizer = Arc::new(Tokenizer::load(&file)?);
        let template = ChatMl::new(&tokenizer)?;
        let network = Llama::load(&mut file, Precision::Q8)?;
        let context = options.context.min(network.context());
        let OnDeviceOptions { conversations, queue, patience, unread, .. } = options;
        let limits = Limits { conversations, queue, patience, unread };
        let engine = Engine::start(network, Arc::clone(&tokenizer), limits).map_err(LoadError::Thread)?;
        Ok(Self { engine, tokenizer, template, context })
    }

    /// The most tokens that prompt and answer may have together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Puts a call in line.
    fn ask(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        refuse_unsupported(call)?;
        // Before the work of cutting the prompt into tokens, which a full queue would make vain.
        if self.engine.is_full_for(tenant) {
            return Err(ModelError::Busy);
        }
        let prompt = self.template.prompt(&self.tokenizer, &call.messages).map_err(|source| {
            let message = "cannot tokenize the prompt".to_owned();
            ModelError::Unavailable { message, source: Some(source), retry_after: None }
        })?;
        // One token of the answer has to fit as well.
        if prompt.len() >= self.context {
            let count = |tokens: usize| u32::try_from(tokens).unwrap_or(u32::MAX);
            return Err(ModelError::ContextLength {
                tokens: count(prompt.len()),
                limit: count(self.context.saturating_sub(1)),
            });
        }
        let room = usize::try_from(call.max_tokens).unwrap_or(usize::MAX).min(self.context - prompt.len());
        let answer = self.engine.submit(Request {
            tenant: tenant.clone(),
            prompt,
            room,
            sampler: Sampler::new(&call.sampling),
            stop: StopTexts::new(&call.sampling.stop),
        })?;
        Ok(Box::pin(answer))
    }
}

#[async_trait]
impl ChatModel for OnDeviceModel {
    async fn stream(&self, tenant: &TenantId, call: &ModelCall) -> Result<DeltaStream, ModelError> {
        self.ask(tenant, call)
    }
}

/// A model of this size neither calls tools nor keeps to a schema, and must not pretend to.
fn refuse_unsupported(call: &ModelCall) -> Result<(), ModelError> {
    let has_tool_turns =
        call.messages.iter().any(|message| message.role == Role::Tool || !message.tool_calls.is_empty());
    let wants_tools = matches!(call.tool_choice, ToolChoice::Required | ToolChoice::Function(_));
    if has_tool_turns || wants_tools || !call.tools.is_empty() {
        return Err(ModelError::Unsupported { feature: "tools" });
    }
    if call.response_format != ResponseFormat::Text {
        return Err(ModelError::Unsupported { feature: "response_format" });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
