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

/// Events that are nearly alike, by what surrounds their text, some of which hide a text where it is not said.
const SURROUNDINGS: [(&str, &str); 9] = [
    ("{\"id\":\"1\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", "\"}}]}"),
    ("{\"id\":\"2\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"", "\"}}]}"),
    ("{\"choices\":[{\"delta\":{\"content\":\"", "\"}}],\"text\":\"a\"}"),
    ("{\"choices\":[{\"delta\":{\"content\":\"", "\"},\"finish_reason\":\"stop\"}]}"),
    ("{\"choices\":[{\"delta\":{\"reasoning\":\"", "\",\"content\":\"a\"}}]}"),
    ("{\"response\":\"a\",\"x\":\"", "\"}"),
    ("{\"x\":\"\\\"", "\",\"response\":\"\\u0061\"}"),
    ("{\"", "\":\"a\"}"),
    ("{\"response\":\"", "\"} "),
];

proptest! {
    #[test]
    fn a_template_changes_nothing_of_what_is_read(
        events in proptest::collection::vec(
            (0..SURROUNDINGS.len(), 1_usize..4, "(a|ab|b|response|é|\\\\n|\"|\\\\\"|\u{1}| |)"), 0..12,
        ),
    ) {
        let (mut with, mut without) = (ProviderStream::new(), State::default());
        for (around, times, text) in events {
            for _ in 0..times {
                let (before, after) = SURROUNDINGS[around];
                let data = format!("{before}{text}{after}");
                let (mut read, mut expected) = (Vec::new(), Vec::new());
                let outcome = with.push(format!("data: {data}\n\n").as_bytes(), &mut read).is_ok();
                prop_assert_eq!(outcome, without.event(data.as_bytes(), &mut expected).is_ok());
                prop_assert_eq!(read, expected, "{}", data);
                prop_assert_eq!(with.state.seen, without.seen);
            }
        }
    }
}

#[test]
fn events_that_differ_in_their_text_alone_are_read_by_a_template() {
    let mut stream = ProviderStream::new();
    let mut deltas = Vec::new();
    for text in ["a", "b", "ccc", "\\n", "d"] {
        let event = format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n");
        stream.push(event.as_bytes(), &mut deltas).unwrap();
    }
    assert_eq!(deltas, ["a", "b", "ccc", "\n", "d"].map(content));
    assert_eq!(stream.template.hits(), 3, "neither the first, nor the one with an escape");
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

/// Two calls side by side, in the shape in which OpenAI streams them.
const CALLS: &str = concat!(
    "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"index\":0,\"id\":\"call_a\",\"type\":\"function\",\"function\":{\"name\":\"get_weather\",\"arguments\":\"\"}}],\"refusal\":null},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{\\\"ci\"}}]},\"logprobs\":null,\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"ty\\\":\\\"Zürich 🏔\\\"}\"}}]},\"finish_reason\":null}]}\r\n\r\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":1,\"id\":\"call_b\",\"type\":\"function\",\"function\":{\"name\":\"now\",\"arguments\":\"{}\"}}]},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[],\"usage\":{\"prompt_tokens\":50,\"completion_tokens\":20,\"total_tokens\":70}}\n\n",
    "data: [DONE]\n\n",
);

#[test]
fn tool_calls_are_the_same_wherever_the_stream_is_cut() {
    let call = |index, id: Option<&str>, name: Option<&str>, arguments: &str| {
        let (id, name) = (id.map(str::to_owned), name.map(str::to_owned));
        Delta::ToolCall(ToolCallDelta { index, id, name, arguments: arguments.to_owned() })
    };
    let expected = vec![
        call(0, Some("call_a"), Some("get_weather"), ""),
        call(0, None, None, "{\"ci"),
        call(0, None, None, "ty\":\"Zürich 🏔\"}"),
        call(1, Some("call_b"), Some("now"), "{}"),
        Delta::Finish(FinishReason::ToolCalls),
        Delta::Usage(Usage { prompt_tokens: 50, completion_tokens: 20 }),
    ];
    let bytes = CALLS.as_bytes();
    for cut in 0..=bytes.len() {
        let (one, other) = bytes.split_at(cut);
        assert_eq!(run(&[one, other]).unwrap(), expected, "cut at {cut}");
    }
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(run(&single).unwrap(), expected, "byte by byte");
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
