//! From a provider's bytes to deltas. Both shapes in use are understood, streamed and whole: OpenAI's chat completions (and
//! what imitates them), and Workers AI's `response` texts.

use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

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
        Self { decoder: SseDecoder::new(EVENT_LIMIT), state }
    }

    /// Takes more bytes, split anywhere, and appends what they say to `deltas`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`] for what is not an answer, and the provider's own error when the stream carries one.
    pub fn push(&mut self, bytes: &[u8], deltas: &mut Vec<Delta>) -> Result<(), ModelError> {
        let state = &mut self.state;
        let mut failure = None;
        let decoded = self.decoder.push(bytes, |data| {
            if failure.is_none() {
                failure = state.event(data, deltas).err();
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
        let payload: Payload = serde_json::from_slice(data).map_err(|error| malformed(&error))?;
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
    let mut payload = match answer {
        Whole::Text(text) => return Ok(vec![Delta::Content(text), Delta::Finish(FinishReason::Stop)]),
        Whole::Object(payload) => *payload,
    };
    if let Some(result) = payload.result.take() {
        match *result {
            Whole::Text(text) => payload.response = Some(Text(text)),
            Whole::Object(inner) => payload = *inner,
        }
    }
    let (mut state, mut deltas) = (State::default(), Vec::new());
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

fn malformed(error: &serde_json::Error) -> ModelError {
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

#[derive(Deserialize)]
struct Payload {
    choices: Option<Vec<Choice>>,
    usage: Option<UsagePiece>,
    error: Option<ErrorPiece>,
    response: Option<Text>,
    text: Option<Text>,
    content: Option<Text>,
    tool_calls: Option<Vec<ToolCallPiece>>,
    result: Option<Box<Whole>>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u32>,
    delta: Option<Piece>,
    message: Option<Piece>,
    text: Option<Text>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Piece {
    content: Option<Text>,
    refusal: Option<Text>,
    reasoning_content: Option<Text>,
    reasoning: Option<Text>,
    tool_calls: Option<Vec<ToolCallPiece>>,
}

#[derive(Deserialize)]
struct ToolCallPiece {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionPiece>,
    name: Option<String>,
    arguments: Option<Text>,
}

#[derive(Deserialize, Default)]
struct FunctionPiece {
    name: Option<String>,
    arguments: Option<Text>,
}

#[derive(Deserialize)]
struct UsagePiece {
    #[serde(default, deserialize_with = "count")]
    prompt_tokens: Option<u32>,
    #[serde(default, deserialize_with = "count")]
    completion_tokens: Option<u32>,
}

/// A count that is not one is no count: the answer beside it is good all the same.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Option::<Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok()))
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Whole {
    Text(String),
    Object(Box<Payload>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ErrorPiece {
    Object { message: Option<String>, code: Option<Value>, status: Option<Value> },
    Text(String),
    Other(de::IgnoredAny),
}

impl ErrorPiece {
    fn into_model_error(self) -> ModelError {
        let (message, name, status) = match self {
            Self::Object { message, code, status } => {
                // Either may be a name instead of a number.
                let number =
                    |value: &Option<Value>| value.as_ref().and_then(Value::as_u64).and_then(|n| u16::try_from(n).ok());
                let name = code.as_ref().and_then(Value::as_str).and_then(error_name).unwrap_or_default();
                (message.unwrap_or_default(), name.to_owned(), number(&status).or_else(|| number(&code)))
            }
            Self::Text(message) => (message, String::new(), None),
            Self::Other(_) => (String::new(), String::new(), None),
        };
        if is_about_length(&name, &message) {
            return ModelError::PromptTooLong;
        }
        // A provider's own words may repeat the prompt, and so never reach a log; its name for the error cannot.
        let message = if name.is_empty() { "unnamed error".to_owned() } else { name };
        match status {
            Some(429) => ModelError::RateLimited { retry_after: None },
            Some(status @ (401 | 403)) => ModelError::Unauthorized { status },
            Some(status @ 400..=499) => ModelError::Rejected { status, message },
            _ => ModelError::unavailable(message),
        }
    }
}

/// A provider's name for an error, if it is one and no sentence: short, and of the letters that names are made of.
pub fn error_name(text: &str) -> Option<&str> {
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    (is_name && (1..=64).contains(&text.len())).then_some(text)
}

/// Whether a provider's error says that the prompt does not fit its model, by the names and sentences in use.
pub fn is_about_length(name: &str, message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    matches!(name, "context_length_exceeded" | "exceed_context_size_error")
        || ["maximum context length", "context size", "context window"].iter().any(|words| message.contains(words))
}

/// A text, however it is written: a string, a number, a list of parts with a `text` each, or JSON that stands for itself.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text(text.to_owned()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Text, E> {
        Ok(Text(text))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Text, E> {
        Ok(Text(value.to_string()))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Text, E> {
        Ok(Text(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Text, A::Error> {
        #[derive(Deserialize)]
        struct Part {
            text: Option<String>,
        }
        let mut joined = String::new();
        while let Some(part) = parts.next_element::<Part>()? {
            joined.push_str(part.text.as_deref().unwrap_or_default());
        }
        Ok(Text(joined))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Text, A::Error> {
        let value = Value::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(Text(value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn content(text: &str) -> Delta {
        Delta::Content(text.to_owned())
    }

    fn run(chunks: &[&[u8]]) -> Result<Vec<Delta>, ModelError> {
        let (mut stream, mut deltas) = (ProviderStream::new(), Vec::new());
        for chunk in chunks {
            stream.push(chunk, &mut deltas)?;
        }
        stream.end(&mut deltas)?;
        Ok(deltas)
    }

    const OPENAI: &str = concat!(
        "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
        ": ping\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm\"}}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße, \"}}]}\r\n\r\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"🌍\"},\"logprobs\":null}]}\n\n",
        "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"length\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n",
        "data: [DONE]\n\n",
    );

    fn openai_deltas() -> Vec<Delta> {
        vec![
            Delta::Reasoning("hm".into()),
            content("Grüße, "),
            content("🌍"),
            Delta::Finish(FinishReason::Length),
            Delta::Usage(Usage { prompt_tokens: 7, completion_tokens: 2 }),
        ]
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_deltas(cuts in proptest::collection::vec(0..OPENAI.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, OPENAI.len()]);
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &OPENAI.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(run(&chunks).unwrap(), openai_deltas());
        }

        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = run(&[b"data: ", &bytes, b"\n\n"]);
            let _ = parse_whole_answer(&bytes);
        }
    }

    #[test]
    fn a_stream_that_is_cut_anywhere_before_its_finish_is_interrupted() {
        let finish = OPENAI.find("\"length\"").unwrap();
        for end in 0..finish {
            let Err(ModelError::Interrupted { .. }) = run(&[&OPENAI.as_bytes()[..end]]) else {
                panic!("cut at {end} passed for whole")
            };
        }
    }

    #[test]
    fn workers_ai_streams_end_with_done() {
        let text = "data: {\"response\":\"Hi\"}\n\ndata: {\"response\":5,\"p\":\"abc\"}\n\n\
                    data: {\"response\":\"\",\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";
        let usage = Delta::Usage(Usage { prompt_tokens: 3, completion_tokens: 2 });
        let deltas = vec![content("Hi"), content("5"), usage, Delta::Finish(FinishReason::Stop)];
        assert_eq!(run(&[text.as_bytes()]).unwrap(), deltas);
        assert!(run(&[b"data: {\"response\":\"Hi\"}\n\n"]).is_err(), "without [DONE] it was cut");
        assert!(run(&[b"data: [DONE]\n\n"]).is_err(), "an empty stream is no answer");
    }

    #[test]
    fn tool_calls_come_in_pieces() {
        let text = "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"index\":1,\"function\":{\"arguments\":\"{\\\"a\\\"\"}}]}}]}\n\n\
                    data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let deltas = run(&[text.as_bytes()]).unwrap();
        let first = ToolCallDelta { index: 1, id: Some("c1".into()), name: Some("f".into()), arguments: String::new() };
        let second = ToolCallDelta { index: 1, id: None, name: None, arguments: "{\"a\"".into() };
        let end = Delta::Finish(FinishReason::ToolCalls);
        assert_eq!(deltas, [Delta::ToolCall(first), Delta::ToolCall(second), end]);
    }

    #[test]
    fn an_error_in_the_stream_is_the_providers() {
        let error = run(&[b"data: {\"error\":{\"message\":\"slow down\",\"code\":429}}\n\n"]).unwrap_err();
        assert!(matches!(error, ModelError::RateLimited { .. }));
        let named = r#"{"error":{"code":429,"message":"a\nb","status":"RESOURCE_EXHAUSTED"}}"#;
        assert!(matches!(parse_whole_answer(named.as_bytes()), Err(ModelError::RateLimited { .. })));
        let odd = r#"{"response":"Hi","usage":{"prompt_tokens":1.5,"completion_tokens":-1}}"#;
        assert_eq!(parse_whole_answer(odd.as_bytes()).unwrap(), [content("Hi"), Delta::Finish(FinishReason::Stop)]);
        let error = run(&[b"data: {\"error\":\"boom\"}\n\n"]).unwrap_err();
        assert!(matches!(error, ModelError::Unavailable { .. }));
        let error = run(&[b"data: {oops}\n\n"]).unwrap_err();
        assert!(matches!(error, ModelError::Malformed { .. }));
    }

    #[test]
    fn whole_answers_of_every_shape() {
        let stop = || Delta::Finish(FinishReason::Stop);
        for body in [
            r#""Hi""#,
            r#"{"response":"Hi"}"#,
            r#"{"text":"Hi"}"#,
            r#"{"content":"Hi"}"#,
            r#"{"content":[{"type":"text","text":"H"},{"text":"i"}]}"#,
            r#"{"result":"Hi"}"#,
            r#"{"result":{"response":"Hi"},"success":true,"errors":[]}"#,
            r#"{"choices":[{"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"text":"Hi"}]}"#,
        ] {
            assert_eq!(parse_whole_answer(body.as_bytes()).unwrap(), [content("Hi"), stop()], "{body}");
        }
        let body = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},
            {"id":"b","function":{"name":"g","arguments":"{}"}}]},"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#;
        let indices: Vec<u32> = parse_whole_answer(body.as_bytes())
            .unwrap()
            .iter()
            .filter_map(|delta| if let Delta::ToolCall(call) = delta { Some(call.index) } else { None })
            .collect();
        assert_eq!(indices, [0, 1]);
        assert!(parse_whole_answer(b"{}").is_err());
        assert!(parse_whole_answer(b"<html>").is_err());
    }
}
