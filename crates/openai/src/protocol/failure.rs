//! What a response that is no answer means.

use enigma_core::model::{ModelError, Phase, error_name, is_about_length, retry_after};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// The error that a response with `status` is. Of its body only the provider's name for the error is kept: its sentences may
/// repeat the prompt, and errors reach logs.
pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> ModelError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    // Some clouds wrap the object into a list.
    let body = body.get(0).unwrap_or(&body);
    let message = || name(body).unwrap_or_else(|| "unnamed error".to_owned());
    let retry_after = || retry_after(|name| headers.get(name)?.to_str().ok());
    match status.as_u16() {
        429 => ModelError::RateLimited { retry_after: retry_after() },
        status @ (401 | 403) => ModelError::Unauthorized { status },
        // The provider, or a gateway before it (524 is Cloudflare's), gave up waiting.
        408 | 504 | 524 => ModelError::Timeout(Phase::FirstToken),
        status @ 300..=399 => {
            ModelError::Rejected { status, message: "the endpoint redirects; its base URL is wrong".to_owned() }
        }
        400 | 413 | 422 if is_about_length(&message(), sentence(body)) => ModelError::PromptTooLong,
        status @ 400..=499 => ModelError::Rejected { status, message: message() },
        status => {
            let message = format!("status {status} ({})", message());
            ModelError::Unavailable { message, source: None, retry_after: retry_after() }
        }
    }
}

/// The provider's name for the error, where it has one: `error.code` or `error.type` (OpenAI), `errors[0].code` (Cloudflare),
/// `code` or `type` (others).
fn name(body: &Value) -> Option<String> {
    ["/error/code", "/error/type", "/errors/0/code", "/code", "/type"].into_iter().find_map(|place| {
        match body.pointer(place)? {
            Value::String(text) => error_name(text).map(str::to_owned),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    })
}

/// The provider's sentence in the shapes in use: `error.message` (OpenAI), `error` (Ollama), `errors[0].message` (Cloudflare),
/// `message` (older vLLM) and `detail` (Python servers). To look at, not to keep.
fn sentence(body: &Value) -> &str {
    ["/error/message", "/error", "/errors/0/message", "/message", "/detail"]
        .into_iter()
        .find_map(|place| body.pointer(place)?.as_str())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(body: &str) -> String {
        match read(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes()) {
            ModelError::Rejected { status: 400, message } => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_found_in_every_shape() {
        for (body, name) in [
            (
                r#"{"error":{"message":"no","type":"invalid_request_error","code":"invalid_api_key"}}"#,
                "invalid_api_key",
            ),
            (r#"[{"error":{"message":"no","code":null,"type":"x"}}]"#, "x"),
            (r#"{"errors":[{"code":7003,"message":"no"}],"success":false}"#, "7003"),
            (r#"{"object":"error","message":"no","type":"BadRequestError"}"#, "BadRequestError"),
        ] {
            assert_eq!(rejected(body), name, "{body}");
        }
    }

    #[test]
    fn nothing_but_a_name_is_kept() {
        for body in [
            "",
            "<html>secret</html>",
            "{",
            "null",
            "7",
            r#"{"error":"your prompt was: secret"}"#,
            r#"{"error":{"message":"secret","code":"a sentence with a secret"}}"#,
            r#"{"detail":[{"input":"secret"}]}"#,
            r#"{"prompt":"secret"}"#,
        ] {
            assert_eq!(rejected(body), "unnamed error", "{body}");
            let error = read(StatusCode::BAD_GATEWAY, &HeaderMap::new(), body.as_bytes());
            assert!(!format!("{error} {error:?}").contains("secret"), "{body}");
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_from_other_faults() {
        for body in [
            r#"{"error":{"message":"no","code":"context_length_exceeded"}}"#,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}"#,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens."}"#,
        ] {
            let error = read(StatusCode::BAD_REQUEST, &HeaderMap::new(), body.as_bytes());
            assert!(matches!(error, ModelError::PromptTooLong), "{body}: {error}");
        }
    }

    #[test]
    fn a_provider_that_is_down_may_say_for_how_long() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
        };
        let seconds = [("retry-after", "3")];
        let date = [("retry-after", "Sun, 06 Nov 1994 08:49:40 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")];
        for (status, headers) in [(429, headers(&seconds)), (503, headers(&seconds)), (503, headers(&date))] {
            let error = read(StatusCode::from_u16(status).unwrap(), &headers, b"");
            assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(3)), "{status} {headers:?}");
        }
        assert_eq!(read(StatusCode::SERVICE_UNAVAILABLE, &HeaderMap::new(), b"").retry_after(), None);
    }

    #[test]
    fn statuses_say_whether_another_try_may_help() {
        let read = |status: u16| read(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"");
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
        assert_eq!(read(503).to_string(), "provider unavailable: status 503 (unnamed error)");
    }
}
