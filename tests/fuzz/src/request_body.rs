//! Bodies of requests.

use enigma_http::fuzz::{Asked, Refused, chat, completion};
use serde_json::Value;

/// The longest message that is accepted, in characters; short, so that a fuzzer reaches it.
const MAX_MESSAGE_CHARS: usize = 100;
/// The most issues that an answer lists.
const MAX_ISSUES: usize = 64;
/// The most tools that a request may have.
const MAX_TOOLS: usize = 128;

/// Reads `body` as both faces do.
pub fn request_body(body: &[u8]) {
    let (native, openai) = (chat(body, MAX_MESSAGE_CHARS), completion(body));
    assert_eq!(native.is_some(), openai.is_some(), "JSON is JSON on both faces");
    if let Some(Ok(asked)) = &native {
        let [message] = &asked.messages[..] else { panic!("a chat is one message: {asked:?}") };
        assert!((1..=MAX_MESSAGE_CHARS).contains(&message.content.chars().count()), "{asked:?}");
    }
    if let Some(Ok(asked)) = &openai {
        check_completion(asked);
    }
    for refused in [&native, &openai].into_iter().flatten().filter_map(|read| read.as_ref().err()) {
        check_refusal(refused);
    }
    // How a body is written does not matter.
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        let again = serde_json::to_vec_pretty(&json).expect("what was JSON is JSON");
        assert_eq!(chat(&again, MAX_MESSAGE_CHARS), native);
        assert_eq!(completion(&again), openai);
    }
}

fn check_completion(asked: &Asked) {
    assert!(!asked.messages.is_empty() && asked.tools.len() <= MAX_TOOLS, "{asked:?}");
    assert!(asked.tools.iter().all(|name| (1..=64).contains(&name.chars().count())), "{asked:?}");
    let sampling = &asked.sampling;
    for (number, least, most) in [
        (sampling.temperature, 0.0, 2.0),
        (sampling.top_p, 0.0, 1.0),
        (sampling.frequency_penalty, -2.0, 2.0),
        (sampling.presence_penalty, -2.0, 2.0),
    ] {
        assert!(number.is_none_or(|number| (least..=most).contains(&number)), "{asked:?}");
    }
    assert!(sampling.stop.len() <= 4 && sampling.stop.iter().all(|text| !text.is_empty()), "{asked:?}");
}

/// A refusal says why, and is short whatever it refuses.
fn check_refusal(details: &Refused) {
    let issues = details["issues"].as_array().unwrap_or_else(|| panic!("a refusal without issues: {details}"));
    assert!((1..=MAX_ISSUES).contains(&issues.len()), "{} issues", issues.len());
    for issue in issues {
        assert!(issue["path"].is_array(), "{issue}");
        let message = issue["message"].as_str().unwrap_or_default();
        assert!((1..=200).contains(&message.len()), "{issue}");
    }
}
