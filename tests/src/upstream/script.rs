//! What the markers of a prompt mean.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use serde_json::{Value, json};

/// What a call is answered with.
pub(super) enum Reply {
    /// Nothing at all, for ever.
    Silence,
    /// An error.
    Status(StatusCode, Option<u32>),
    /// What a captive portal says.
    Html,
    /// An answer, step by step.
    Answer(VecDeque<Step>),
}

/// A step of an answer.
#[derive(Clone)]
pub(super) enum Step {
    Chunk(Bytes),
    /// So many pieces of a kibibyte.
    Flood(usize),
    Pause(Duration),
    Gate(String),
    Hang,
    /// The connection breaks off.
    Cut,
}

/// The text that `[[tokens n]]` makes.
pub fn words(n: usize) -> String {
    (0..n).map(word).collect()
}

fn word(n: usize) -> String {
    format!("w{n} ")
}

fn data(value: &Value) -> Bytes {
    format!("data: {value}\n\n").into()
}

fn chunk(delta: &Value, finish: Option<&str>) -> Bytes {
    data(&json!({
        "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
        "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
    }))
}

pub(super) fn content(text: &str) -> Bytes {
    chunk(&json!({ "content": text }), None)
}

/// Reads the markers of `text`.
pub(super) fn parse(text: &str, messages: &Value) -> Reply {
    let (mut steps, mut said, mut ends, mut finish, mut usage) = (VecDeque::new(), false, true, "stop", None);
    let mut calls = 0;
    for marker in text.split("[[").skip(1).filter_map(|rest| Some(rest.split_once("]]")?.0)) {
        let (name, rest) = marker.split_once(' ').unwrap_or((marker, ""));
        let numbers: Vec<u32> =
            rest.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect();
        let number = |n: usize| numbers.get(n).copied();
        let millis = |n: usize| Duration::from_millis(number(n).unwrap_or(0).into());
        let tokens = |steps: &mut VecDeque<Step>, count: u32| {
            for n in 0..count as usize {
                if n > 0 && !millis(1).is_zero() {
                    steps.push_back(Step::Pause(millis(1)));
                }
                steps.push_back(Step::Chunk(content(&word(n))));
            }
        };
        match name {
            "status" => {
                let status = StatusCode::from_u16(u16::try_from(number(0).unwrap()).unwrap()).unwrap();
                return Reply::Status(status, number(1));
            }
            "html" => return Reply::Html,
            "hang" if rest == "before first" => return Reply::Silence,
            "hang" => steps.push_back(Step::Hang),
            "tokens" => tokens(&mut steps, number(0).unwrap()),
            "say" => steps.push_back(Step::Chunk(content(rest))),
            "echo" => steps.push_back(Step::Chunk(content(&messages.to_string()))),
            "pause" => steps.push_back(Step::Pause(millis(0))),
            "gate" => steps.push_back(Step::Gate(rest.to_owned())),
            "flood" => steps.push_back(Step::Flood(number(0).unwrap() as usize)),
            "cut" => {
                tokens(&mut steps, number(0).unwrap_or(0));
                // What was said must have left before the connection goes.
                steps.push_back(Step::Pause(Duration::from_millis(50)));
                steps.push_back(Step::Cut);
            }
            // It is for the embedding of the text, not for its answer.
            "no" if rest == "embedding" => {}
            "no" => ends = false,
            "garbage" => steps.push_back(Step::Chunk(Bytes::from_static(b"data: {\"choices\": [oops\n\n"))),
            "error" => steps.push_back(Step::Chunk(data(&json!({ "error": { "message": "out of memory" } })))),
            "length" => finish = "length",
            "usage" => usage = Some((number(0).unwrap(), number(1).unwrap())),
            "tool" => {
                finish = "tool_calls";
                let call = |call: Value| Step::Chunk(chunk(&json!({ "tool_calls": [call] }), None));
                steps.push_back(call(json!({
                    "index": 0, "id": "call_1", "type": "function",
                    "function": { "name": "get_weather", "arguments": "" },
                })));
                for part in ["{\"city\":", "\"Paris\"}"] {
                    steps.push_back(call(json!({ "index": 0, "function": { "arguments": part } })));
                }
            }
            "call" => {
                let (function, arguments) = rest.split_once(' ').unwrap_or((rest, "{}"));
                let id = format!("call_{}", steps.len());
                finish = "tool_calls";
                let call = json!({ "index": calls, "id": id, "type": "function", "function": { "name": function, "arguments": arguments } });
                calls += 1;
                steps.push_back(Step::Chunk(chunk(&json!({ "tool_calls": [call] }), None)));
            }
            other => panic!("the script has no marker [[{other}]]"),
        }
        said |= matches!(name, "tokens" | "say" | "echo" | "flood" | "cut" | "tool" | "call" | "garbage" | "error");
    }
    if !said {
        steps.extend((0..3).map(|n| Step::Chunk(content(&word(n)))));
    }
    if ends {
        steps.push_back(Step::Chunk(chunk(&json!({}), Some(finish))));
        if let Some((prompt, completion)) = usage {
            steps.push_back(Step::Chunk(data(&json!({
                "id": "chatcmpl-scripted", "object": "chat.completion.chunk", "created": 1, "model": "scripted",
                "choices": [],
                "usage": {
                    "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
                },
            }))));
        }
        steps.push_back(Step::Chunk(Bytes::from_static(b"data: [DONE]\n\n")));
    }
    Reply::Answer(steps)
}

/// The same answer in one piece, without its pauses.
pub(super) fn whole(model: &str, steps: &VecDeque<Step>) -> Value {
    let mut text = String::new();
    for step in steps {
        let Step::Chunk(bytes) = step else { continue };
        let piece = std::str::from_utf8(bytes).unwrap().trim_start_matches("data: ");
        let piece: Value = serde_json::from_str(piece.trim()).unwrap_or_default();
        text.push_str(piece["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
    }
    json!({
        "id": "chatcmpl-scripted", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{
            "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop",
        }],
    })
}
