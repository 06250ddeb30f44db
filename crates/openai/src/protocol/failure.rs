//! What a response that is no answer means.

use enigma_core::model::{ModelError, Phase};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::retry_after;
use crate::secret::Scrubber;

/// The longest message of a provider that is kept, in characters.
const MESSAGE_LIMIT: usize = 300;

/// The error that a response with `status` is. Of its body only the provider's own message is kept: the rest may repeat the
/// prompt.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8], scrubber: &Scrubber) -> ModelError {
    let message = || cut(&scrubber.text(message(body).unwrap_or_default()));
    match status.as_u16() {
        429 => ModelError::RateLimited { retry_after: retry_after::read(headers) },
        status @ (401 | 403) => ModelError::Unauthorized { status },
        // The provider, or a gateway before it (524 is Cloudflare's), gave up waiting.
        408 | 504 | 524 => ModelError::Timeout(Phase::FirstToken),
        status @ 300..=399 => {
            ModelError::Rejected { status, message: "the endpoint redirects; its base URL is wrong".to_owned() }
        }
        status @ 400..=499 => ModelError::Rejected { status, message: message() },
        status => {
            let message = message();
            let colon = if message.is_empty() { "" } else { ": " };
            ModelError::unavailable(format!("status {status}{colon}{message}"))
        }
    }
}

/// The message in the shapes in use: `error.message` (OpenAI), `error` (Ollama), `errors[0].message` (Cloudflare), `message`
/// (older vLLM) and `detail` (Python servers; where it is a list, it repeats the request and is left out).
fn message(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    // Some clouds wrap the object into a list.
    let body = body.get(0).unwrap_or(&body);
    ["/error/message", "/error", "/errors/0/message", "/message", "/detail"]
        .into_iter()
        .find_map(|place| body.pointer(place)?.as_str())
        .map(str::to_owned)
}

/// One line of at most [`MESSAGE_LIMIT`] characters.
fn cut(message: &str) -> String {
    let one_line = message.chars().map(|c| if c.is_control() { ' ' } else { c });
    one_line.take(MESSAGE_LIMIT).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn rejected(body: &str) -> String {
        let scrubber = Scrubber::new([Secret::new("sk-secret-key")].into_iter());
        match read(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes(), &scrubber) {
            ModelError::Rejected { status: 400, message } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn messages_are_found_in_every_shape() {
        for body in [
            r#"{"error":{"message":"no","type":"x","code":"context_length_exceeded"}}"#,
            r#"[{"error":{"message":"no"}}]"#,
            r#"{"error":"no"}"#,
            r#"{"errors":[{"code":7003,"message":"no"}],"success":false}"#,
            r#"{"object":"error","message":"no"}"#,
            r#"{"detail":"no"}"#,
        ] {
            assert_eq!(rejected(body), "no", "{body}");
        }
    }

    #[test]
    fn nothing_but_a_message_is_kept() {
        for body in [
            "",
            "<html>secret</html>",
            "{",
            "null",
            "7",
            r#"{"detail":[{"input":"secret"}]}"#,
            r#"{"prompt":"secret"}"#,
        ] {
            assert_eq!(rejected(body), "", "{body}");
        }
    }

    #[test]
    fn messages_are_one_short_line_without_keys() {
        let long = rejected(&format!(r#"{{"error":"{}"}}"#, "ä".repeat(1000)));
        assert_eq!(long.chars().count(), 300);
        assert_eq!(rejected(r#"{"error":"a\r\nb sk-secret-key"}"#), "a  b [redacted]");
    }

    #[test]
    fn statuses_say_whether_another_try_may_help() {
        let scrubber = Scrubber::new(std::iter::empty());
        let read = |status: u16| read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"", &scrubber);
        for (status, retryable) in [
            (301, false),
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (408, true),
            (413, false),
            (422, false),
            (429, true),
            (500, true),
            (503, true),
            (504, true),
            (524, true),
            (529, true),
        ] {
            assert_eq!(read(status).is_retryable(), retryable, "{status}");
        }
        assert_eq!(read(503).to_string(), "provider unavailable: status 503");
    }
}
