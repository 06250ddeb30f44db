//! Texts that nobody may see.

use std::fmt;
use std::sync::Arc;

use enigma_core::model::ModelError;
use http::HeaderValue;
use http::header::InvalidHeaderValue;

/// Shorter ones are no secrets, and taking them out of a text would only spoil it.
const SHORTEST_SCRUBBED: usize = 8;

/// A key, or another text that must not be seen. It can be given, not read: only this crate writes it, into a header.
///
/// ```
/// # use enigma_openai::Secret;
/// assert_eq!(format!("{:?}", Secret::new("sk-123")), "Secret(redacted)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from now on.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    #[cfg(feature = "native")]
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// A header's value, marked as sensitive.
    pub(crate) fn header_value(&self, prefix: &str) -> Result<HeaderValue, InvalidHeaderValue> {
        let mut value = HeaderValue::try_from(format!("{prefix}{}", self.0.trim()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Takes secrets out of texts that others wrote.
#[derive(Clone)]
pub(crate) struct Scrubber(Arc<[Secret]>);

impl Scrubber {
    pub(crate) fn new(secrets: impl Iterator<Item = Secret>) -> Self {
        let trimmed = secrets.map(|secret| Secret::new(secret.0.trim()));
        Self(trimmed.filter(|secret| secret.0.len() >= SHORTEST_SCRUBBED).collect())
    }

    pub(crate) fn text(&self, mut text: String) -> String {
        for secret in &*self.0 {
            if text.contains(&secret.0) {
                text = text.replace(&secret.0, "[redacted]");
            }
        }
        text
    }

    /// The error, without secrets in what the provider said.
    pub(crate) fn error(&self, error: ModelError) -> ModelError {
        match error {
            ModelError::Unavailable { message, source, retry_after } => {
                ModelError::Unavailable { message: self.text(message), source, retry_after }
            }
            ModelError::Rejected { status, message } => ModelError::Rejected { status, message: self.text(message) },
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_taken_out_of_texts_and_short_ones_are_none() {
        let scrubber = Scrubber::new([Secret::new(" sk-12345678\n"), Secret::new("1")].into_iter());
        assert_eq!(scrubber.text("key sk-12345678 is 1 of 2".into()), "key [redacted] is 1 of 2");
    }

    #[test]
    fn header_values_are_sensitive_and_never_two_lines() {
        let value = Secret::new("sk-1\n").header_value("Bearer ").unwrap();
        assert!(value.is_sensitive());
        assert_eq!(value, "Bearer sk-1");
        assert!(Secret::new("a\r\nx: b").header_value("").is_err());
    }
}
