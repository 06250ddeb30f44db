//! What a call that failed means.

use std::time::Duration;

use enigma_core::model::{ModelError, Phase, error_name, is_about_length};
use serde_json::Value;

/// The error that the binding threw, by its text: `InferenceUpstreamError: 3040: …`, or with the whole body of the response
/// instead of a code, where the binding did not understand it. Only codes and names are kept: the sentences may repeat the
/// prompt, and errors reach logs.
pub(super) fn failure(text: &str) -> ModelError {
    Said::in_text(text).into_error(None)
}

/// The error that a response with `status` is, by its body, as if the binding had thrown it, and else by its status. Where it is
/// about a limit, it may ask to wait for `retry_after`.
pub(super) fn refusal(status: u16, retry_after: Option<Duration>, body: &[u8]) -> ModelError {
    let mut said = Said::in_text(&String::from_utf8_lossy(body));
    said.status = Some(status);
    said.into_error(retry_after)
}

/// What a failure says.
#[derive(Debug, Default)]
struct Said {
    /// Of Workers AI (3000 and above), AI Gateway (2000 and above) or Cloudflare's API (9000 and above).
    code: Option<u32>,
    name: Option<String>,
    status: Option<u16>,
    /// To look at, not to keep.
    sentence: String,
}

impl Said {
    fn in_text(text: &str) -> Self {
        let mut said = Self::default();
        let mut rest = text.trim();
        while let Some((head, tail)) = rest.split_once(':') {
            let head = head.trim();
            if let Some(code) = code(head) {
                said.code = Some(code);
                rest = tail.trim_start();
                break;
            }
            let Some(name) = error_name(head).filter(|name| name.ends_with("Error")) else { break };
            said.name.get_or_insert_with(|| name.to_owned());
            rest = tail.trim_start();
        }
        match serde_json::from_str::<Value>(rest) {
            Ok(body) if body.is_object() => said.add(&body),
            _ => rest.clone_into(&mut said.sentence),
        }
        said
    }

    /// Adds what a body says in the shapes in use: Workers AI's (`internalCode`), AI Gateway's (`error[0]`), that of
    /// Cloudflare's API (`errors[0]`) and OpenAI's (`error`), which a gateway passes on.
    fn add(&mut self, body: &Value) {
        let codes =
            ["/internalCode", "/errors/0/code", "/error/0/code", "/error/code", "/error/type", "/code", "/name"];
        for said in codes.into_iter().filter_map(|place| body.pointer(place)) {
            let text = said.as_str();
            if let Some(code) = said.as_u64().and_then(|code| u32::try_from(code).ok()).or_else(|| code(text?)) {
                match u16::try_from(code) {
                    Ok(status @ 400..=599) => self.status = Some(status),
                    _ => self.code = Some(self.code.unwrap_or(code)),
                }
            } else if let Some(name) = text.and_then(error_name) {
                self.name = Some(name.to_owned());
                break;
            }
        }
        let sentences = [
            "/description",
            "/errors/0/message",
            "/error/0/message",
            "/error/message",
            "/message",
            "/error",
            "/detail",
        ];
        let sentence = sentences.into_iter().find_map(|place| body.pointer(place)?.as_str());
        sentence.unwrap_or_default().clone_into(&mut self.sentence);
        let status = body.get("httpCode").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
        self.status = self.status.or(status);
    }

    fn into_error(self, retry_after: Option<Duration>) -> ModelError {
        match self.code {
            // The account's share is used up for today (two codes are in use), there is no capacity left; the gateway's own
            // limit.
            Some(3036 | 4006 | 3040 | 2003) => ModelError::RateLimited { retry_after },
            // Waited too long, or was aborted where it waited.
            Some(3007 | 3008) => ModelError::Timeout(Phase::FirstToken),
            // The request as a whole, or its estimated tokens.
            Some(3006 | 5021) => ModelError::PromptTooLong,
            // No such model, in three forms, and no such gateway: another model may be there.
            Some(5007 | 3042 | 3039 | 2001) => self.rejected(404),
            // Inputs that are missing, of a wrong type, or against the model's schema.
            Some(3003 | 5004 | 5006) => self.refused_inputs(400),
            // The gateway's guards withheld the prompt, the answer, or data in it. No other model is to be tried: it may stand
            // behind no guard.
            Some(2016 | 2017 | 2030) => self.rejected(422),
            Some(2009 | 9109 | 10000) => ModelError::Unauthorized { status: 401 },
            // The account is blocked, may not use the model, has not agreed to its terms, or pays too little for it.
            Some(3023 | 3041 | 5016 | 5018 | 5035) => ModelError::Unauthorized { status: 403 },
            _ => self.into_error_by_status(retry_after),
        }
    }

    fn into_error_by_status(self, retry_after: Option<Duration>) -> ModelError {
        match self.status {
            Some(429) => ModelError::RateLimited { retry_after },
            Some(status @ (401 | 403)) => ModelError::Unauthorized { status },
            Some(408 | 504 | 524) => ModelError::Timeout(Phase::FirstToken),
            Some(status @ (400 | 413 | 422)) => self.refused_inputs(status),
            Some(status @ 400..=499) => self.rejected(status),
            Some(status) => {
                let message = format!("status {status} ({})", self.label());
                ModelError::Unavailable { message, source: None, retry_after }
            }
            None if self.is_about_length() => ModelError::PromptTooLong,
            None if self.is_about_credentials() => ModelError::Unauthorized { status: 401 },
            None => ModelError::unavailable(self.label()),
        }
    }

    fn refused_inputs(self, status: u16) -> ModelError {
        if self.is_about_length() { ModelError::PromptTooLong } else { self.rejected(status) }
    }

    fn rejected(&self, status: u16) -> ModelError {
        ModelError::Rejected { status, message: self.label() }
    }

    fn is_about_length(&self) -> bool {
        is_about_length(self.name.as_deref().unwrap_or_default(), &self.sentence)
    }

    fn is_about_credentials(&self) -> bool {
        let sentence = self.sentence.to_ascii_lowercase();
        ["authentication error", "unauthorized"].iter().any(|start| sentence.starts_with(start))
    }

    /// The name and the code.
    fn label(&self) -> String {
        match (&self.name, self.code) {
            (Some(name), Some(code)) => format!("{name} {code}"),
            (Some(name), None) => name.clone(),
            (None, Some(code)) => format!("code {code}"),
            (None, None) => "unnamed error".to_owned(),
        }
    }
}

fn code(text: &str) -> Option<u32> {
    let is_code = (4..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_code.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn assert_is(error: &ModelError, expected: &str) {
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }

    #[test]
    fn codes_say_what_happened() {
        for (text, expected) in [
            ("InferenceUpstreamError: 3036: You have used up your secret", "provider rate limit reached"),
            ("4006: you have used up your daily free allocation", "provider rate limit reached"),
            ("InferenceUpstreamError: 3040: Capacity temporarily exceeded", "provider rate limit reached"),
            ("AiError: AiError: 3040: No more data centers", "provider rate limit reached"),
            ("AiError: 3007: Request timeout", "no answer in time (FirstToken)"),
            ("AiError: 3008: Request was aborted", "no answer in time (FirstToken)"),
            ("AiError: 3006: Request is too large", "the prompt is too long for the model"),
            ("InferenceUpstreamError: 5007: No such model secret or task", "… 404 (InferenceUpstreamError 5007)"),
            ("AiError: 3042: The model name is invalid", "… 404 (AiError 3042)"),
            ("AiError: 5004: Invalid data: secret", "… 400 (AiError 5004)"),
            ("5006: Error: oneOf at '/' not met: secret", "… 400 (code 5006)"),
            ("AiError: 5018: not allowed", "provider refused our credentials with status 403"),
            ("AiError: 5035: needs the paid plan", "provider refused our credentials with status 403"),
            ("AiError: 10000: Authentication error", "provider refused our credentials with status 401"),
            ("AiGatewayError: 2001: Please configure AI Gateway", "… 404 (AiGatewayError 2001)"),
            ("AiGatewayError: 2003: Rate limited", "provider rate limit reached"),
            ("AiGatewayError: 2009: Unauthorized", "provider refused our credentials with status 401"),
            ("AiGatewayError: 2016: Prompt blocked", "… 422 (AiGatewayError 2016)"),
            ("AiError: 3043: Internal server error", "provider unavailable: AiError 3043"),
        ] {
            let expected = expected.replace('…', "provider refused the call with status");
            assert_is(&failure(text), &expected);
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_is_told_by_its_code_or_its_sentence() {
        for text in [
            "InferenceUpstreamError: 5021: The estimated number of input and maximum output tokens (9000) exceeded this \
             model context window limit (8192).",
            "3010: AiError: the tokens (35000) exceeded this model context window limit (24000)",
            "AiError: 5004: This model's maximum context length is 4096 tokens",
            r#"InferenceUpstreamError: {"error":{"message":"no","code":"context_length_exceeded"}}"#,
        ] {
            assert_is(&failure(text), "the prompt is too long for the model");
        }
    }

    #[test]
    fn a_body_in_place_of_a_code_is_understood_in_every_shape() {
        for (body, expected) in [
            (r#"{"internalCode":3040,"name":"Out of secret","description":"x"}"#, "provider rate limit reached"),
            (r#"{"success":false,"errors":[{"code":7003,"message":"secret"}]}"#, "… InferenceUpstreamError 7003"),
            (
                r#"{"success":false,"error":[{"code":2009,"message":"x"}]}"#,
                "provider refused our credentials with status 401",
            ),
            (r#"{"error":{"message":"secret","type":"server_error"}}"#, "… server_error"),
            (
                r#"{"httpCode":424,"code":"9999","name":"GuardError"}"#,
                "provider refused the call with status 424 (GuardError 9999)",
            ),
            (r#"{"error":"secret"}"#, "… InferenceUpstreamError"),
            (r#"{"error":{"code":429,"message":"secret"}}"#, "provider rate limit reached"),
        ] {
            let text = format!("InferenceUpstreamError: {body}");
            assert_is(&failure(&text), &expected.replace('…', "provider unavailable:"));
        }
    }

    #[test]
    fn nothing_but_codes_and_names_is_kept() {
        for (text, label) in [
            ("", "unnamed error"),
            ("secret", "unnamed error"),
            ("secret: 3040: x", "unnamed error"),
            ("secret prompt: secret", "unnamed error"),
            ("TypeError: secret", "TypeError"),
            ("Error: secret: 3040: secret", "Error"),
            ("InferenceUpstreamError: <html>secret</html>", "InferenceUpstreamError"),
            (r#"InferenceUpstreamError: {"prompt":"secret""#, "InferenceUpstreamError"),
            (r#"Error: {"code":"a sentence with a secret"}"#, "Error"),
            ("InferenceUpstreamError: undefined: secret", "InferenceUpstreamError"),
            ("Error: 123456789: secret", "Error"),
        ] {
            assert_is(&failure(text), &format!("provider unavailable: {label}"));
            assert_is(&refusal(502, None, text.as_bytes()), &format!("provider unavailable: status 502 ({label})"));
        }
    }

    #[test]
    fn a_response_is_told_by_its_code_and_else_by_its_status() {
        assert_is(
            &refusal(500, None, br#"{"internalCode":5007}"#),
            "provider refused the call with status 404 (code 5007)",
        );
        assert_is(&refusal(413, None, b"maximum context length"), "the prompt is too long for the model");
        for (status, retryable) in [
            (400, false),
            (401, false),
            (403, false),
            (404, false),
            (408, true),
            (422, false),
            (429, true),
            (500, true),
            (503, true),
            (504, true),
            (524, true),
        ] {
            assert_eq!(refusal(status, None, b"\xff").is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn a_response_means_what_it_means_when_the_class_throws_it() {
        let blocks = [2_000, 3_000, 4_000, 5_000, 7_000, 9_100, 10_000];
        for code in blocks.into_iter().flat_map(|first| first..first + 50) {
            let thrown = failure(&format!("{code}: secret")).to_string();
            for body in [
                json!({ "internalCode": code, "name": "not a name", "message": "secret", "description": "secret" }),
                json!({ "success": false, "errors": [{ "code": code, "message": "secret" }], "result": null }),
                json!({ "success": false, "error": [{ "code": code, "message": "secret" }], "result": [] }),
            ] {
                let told = refusal(500, None, body.to_string().as_bytes());
                let label = format!("code {code}");
                assert_is(&told, &thrown.replace(&format!(": {label}"), &format!(": status 500 ({label})")));
            }
        }
        let body = br#"{"internalCode":5007,"name":"InferenceUpstreamError","description":"secret"}"#;
        assert_is(&refusal(400, None, body), &failure("InferenceUpstreamError: 5007: secret").to_string());
    }

    #[test]
    fn the_wish_to_wait_is_kept_where_waiting_helps() {
        let wait = Some(Duration::from_secs(7));
        for (status, body) in [
            (429, r#"{"internalCode":3040,"name":"InferenceUpstreamError"}"#),
            (429, r#"{"internalCode":3036}"#),
            (500, r#"{"internalCode":3040}"#),
            (429, r#"{"success":false,"error":[{"code":2003,"message":"Rate limited"}]}"#),
            (429, "<html>"),
            (429, ""),
            (503, r#"{"name":"InferenceUpstreamError"}"#),
            (503, ""),
        ] {
            assert_eq!(refusal(status, wait, body.as_bytes()).retry_after(), wait, "{body}");
            assert_eq!(refusal(status, None, body.as_bytes()).retry_after(), None, "{body}");
        }
    }
}
