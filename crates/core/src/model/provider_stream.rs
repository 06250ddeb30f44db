//! From a provider's bytes to deltas. Both shapes in use are understood, streamed and whole: OpenAI's chat completions (and
//! what imitates them), and Workers AI's `response` texts.

mod template;
mod wire;

use self::template::Template;
pub(super) use self::wire::{ErrorPiece, count};
use self::wire::{Payload, Text, ToolCallPiece, UsagePiece, Whole};
pub use self::wire::{error_name, is_about_length};
use super::{Delta, FinishReason, ModelError, SseDecoder, ToolCallDelta, Usage};

/// The longest event of a stream, in bytes. Longer ones are no answers.
const EVENT_LIMIT: usize = 1 << 20;

/// Parses the event stream of a provider.
///
/// ```
/// use enigma_core::model::{Delta, FinishReason, ProviderStream};
///
/// let mut stream = ProviderStream::new();
/// let mut deltas = Vec::new();
/// stream.push(b"data: {\"choices\":[{\"delta\":{\"content\":\"Hel", &mut deltas)?;
/// stream.push(b"lo\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n", &mut deltas)?;
/// stream.push(b"data: [DONE]\n\n", &mut deltas)?;
/// stream.end(&mut deltas)?;
/// assert_eq!(deltas, [Delta::Content("Hello".into()), Delta::Finish(FinishReason::Stop)]);
/// # Ok::<(), enigma_core::model::ModelError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProviderStream {
    decoder: SseDecoder,
    state: State,
    template: Template,
}

#[derive(Debug, Clone, Copy, Default)]
struct State {
    finished: bool,
    /// `[DONE]` was seen.
    done: bool,
    seen: Seen,
}

/// What was seen of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Seen {
    #[default]
    Nothing,
    /// A text, which may be empty and is an answer all the same.
    Text,
    ToolCalls,
}

impl Default for ProviderStream {
    fn default() -> Self {
        Self::new()
    }
}

impl ProviderStream {
    /// A parser at the start of a stream.
    pub const fn new() -> Self {
        let state = State { finished: false, done: false, seen: Seen::Nothing };
        Self { decoder: SseDecoder::new(EVENT_LIMIT), state, template: Template::none() }
    }

    /// Takes more bytes, split anywhere, and appends what they say to `deltas`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] for what is not an answer, and the provider's own error when the stream carries one.
    pub fn push(&mut self, bytes: &[u8], deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        let (state, template) = (&mut self.state, &mut self.template);
        let mut failure = None;
        let decoded = self.decoder.push(bytes, |data| {
            if failure.is_none() {
                failure = state.event_like(template, data, deltas).err();
            }
        });
        if let Some(failure) = failure {
            return Err(failure);
        }
        decoded.map_err(|error| ModelError::Malformed { message: error.to_string() })
    }

    /// The provider's stream has ended.
    ///
    /// # Errors
    /// [`ModelError::Interrupted`] when the answer had not.
    pub fn end(&mut self, deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if self.state.finished {
            return Ok(());
        }
        if self.state.done && self.state.seen != Seen::Nothing {
            self.state.finish(FinishReason::Stop, deltas);
            return Ok(());
        }
        let message =
            if self.state.done { "the stream holds no answer" } else { "the stream ended without a finish reason" };
        Err(ModelError::Interrupted { message: message.to_owned() })
    }
}

impl State {
    /// Reads an event, by the template where it fits.
    fn event_like(&mut self, template: &mut Template, data: &[u8], deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if !self.done
            && let Some(text) = template.text(data)
        {
            self.say(Some(Text(text.to_owned())), deltas);
            return Ok(());
        }
        let (before, state) = (deltas.len(), *self);
        self.event(data, deltas)?;
        if let [Delta::Content(text)] = &deltas[before..] {
            template.learn(data, text, |data| {
                let (mut state, mut deltas) = (state, Vec::new());
                state.event(data, &mut deltas).ok()?;
                match deltas.pop() {
                    Some(Delta::Content(text)) if deltas.is_empty() => Some(text),
                    _ => None,
                }
            });
        }
        Ok(())
    }

    fn event(&mut self, data: &[u8], deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if self.done {
            return Ok(());
        }
        let data = data.trim_ascii();
        if data.is_empty() {
            return Ok(());
        }
        if data == b"[DONE]" {
            self.done = true;
            return Ok(());
        }
        // Checked once and whole, which is faster than text by text.
        let Ok(text) = std::str::from_utf8(data) else {
            return Err(ModelError::Malformed { message: "the stream is not UTF-8".to_owned() });
        };
        let payload: Payload = serde_json::from_str(text).map_err(|error| malformed(&error))?;
        self.payload(payload, deltas)
    }

    fn payload(&mut self, payload: Payload, deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        if let Some(error) = payload.error {
            return Err(error.into_model_error());
        }
        let text = payload.response.or(payload.text).or(payload.content);
        self.say(text, deltas);
        for call in payload.tool_calls.unwrap_or_default() {
            self.call(call, deltas);
        }
        // One answer is asked for, so a second choice would be another answer in between this one.
        if let Some(choice) =
            payload.choices.unwrap_or_default().into_iter().find(|choice| choice.index.unwrap_or(0) == 0)
        {
            if let Some(piece) = choice.delta.or(choice.message) {
                if let Some(Text(thought)) = piece.reasoning_content.or(piece.reasoning)
                    && !thought.is_empty()
                {
                    deltas.push(Delta::Reasoning(thought));
                }
                self.say(piece.content.or(piece.refusal), deltas);
                for call in piece.tool_calls.unwrap_or_default() {
                    self.call(call, deltas);
                }
            }
            self.say(choice.text, deltas);
            if let Some(reason) = choice.finish_reason {
                self.finish(finish_reason(&reason), deltas);
            }
        }
        // Half a count is none: the other half would pass for zero.
        if let Some(UsagePiece { prompt_tokens: Some(prompt_tokens), completion_tokens: Some(completion_tokens) }) =
            payload.usage
        {
            deltas.push(Delta::Usage(Usage { prompt_tokens, completion_tokens }));
        }
        Ok(())
    }

    fn say(&mut self, text: Option<Text>, deltas: &mut Vec<Delta>) {
        if let Some(Text(text)) = text {
            self.see(Seen::Text);
            if !text.is_empty() {
                deltas.push(Delta::Content(text));
            }
        }
    }

    fn call(&mut self, call: ToolCallPiece, deltas: &mut Vec<Delta>) {
        self.see(Seen::ToolCalls);
        let function = call.function.unwrap_or_default();
        deltas.push(Delta::ToolCall(ToolCallDelta {
            index: call.index.unwrap_or(0),
            id: call.id.filter(|id| !id.is_empty()),
            // Workers AI writes the name beside the arguments instead of inside `function`.
            name: function.name.or(call.name).filter(|name| !name.is_empty()),
            arguments: function.arguments.or(call.arguments).map(|Text(text)| text).unwrap_or_default(),
        }));
    }

    fn see(&mut self, seen: Seen) {
        if self.seen != Seen::ToolCalls {
            self.seen = seen;
        }
    }

    fn finish(&mut self, reason: FinishReason, deltas: &mut Vec<Delta>) {
        if !std::mem::replace(&mut self.finished, true) {
            // Some providers end a round of tool calls with `stop`.
            let reason = if self.seen == Seen::ToolCalls && reason == FinishReason::Stop {
                FinishReason::ToolCalls
            } else {
                reason
            };
            deltas.push(Delta::Finish(reason));
        }
    }
}

/// Parses an answer that came in one piece: OpenAI's object, Workers AI's `response`, `text`, `content` or `result`, or a bare
/// JSON string.
///
/// # Errors
/// [`ModelError::Malformed`] when there is no answer in it, and the provider's own error when it is one.
pub fn parse_whole_answer(body: &[u8]) -> Result<Vec<Delta>, ModelError> {
    let answer: Whole = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let (mut state, mut deltas) = (State::default(), Vec::new());
    let mut payload = match answer {
        Whole::Text(text) => {
            state.say(Some(Text(text)), &mut deltas);
            state.finish(FinishReason::Stop, &mut deltas);
            return Ok(deltas);
        }
        Whole::Object(payload) => *payload,
    };
    if let Some(result) = payload.result.take() {
        match *result {
            Whole::Text(text) => payload.response = Some(Text(text)),
            Whole::Object(inner) => payload = *inner,
        }
    }
    if let Some(choices) = &mut payload.choices {
        for piece in choices.iter_mut().filter_map(|choice| choice.message.as_mut()) {
            number(piece.tool_calls.as_mut());
        }
    }
    number(payload.tool_calls.as_mut());
    state.payload(payload, &mut deltas)?;
    if !state.finished {
        if state.seen == Seen::Nothing {
            return Err(ModelError::Malformed { message: "the body holds no answer".to_owned() });
        }
        state.finish(FinishReason::Stop, &mut deltas);
    }
    // The order of a stream: pieces, finish, usage.
    deltas.sort_by_key(|delta| match delta {
        Delta::Finish(_) => 1,
        Delta::Usage(_) => 2,
        _ => 0,
    });
    Ok(deltas)
}

/// Whole answers list their calls without an index.
fn number(calls: Option<&mut Vec<ToolCallPiece>>) {
    for (index, call) in (0u32..).zip(calls.into_iter().flatten()) {
        call.index.get_or_insert(index);
    }
}

pub(super) fn malformed(error: &serde_json::Error) -> ModelError {
    // The category and place only: the text of the answer must not reach a log.
    let kind = match error.classify() {
        serde_json::error::Category::Data => "unexpected JSON",
        _ => "invalid JSON",
    };
    ModelError::Malformed { message: format!("{kind} at column {}", error.column()) }
}

fn finish_reason(reason: &str) -> FinishReason {
    match reason {
        "length" | "max_tokens" => FinishReason::Length,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Stop,
    }
}

#[cfg(test)]
mod tests;
