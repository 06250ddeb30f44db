//! The names of things, parsed once at the edge and trusted afterwards.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

/// A text that is not a valid name of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be {rule}")]
pub struct InvalidId {
    rule: &'static str,
}

impl InvalidId {
    pub(crate) const fn new(rule: &'static str) -> Self {
        Self { rule }
    }

    /// What a valid name looks like, as the end of the sentence "must be …".
    pub fn rule(&self) -> &'static str {
        self.rule
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Parses a name, which must be ", $rule, ".")]
            ///
            /// # Errors
            /// [`InvalidId`] when the text breaks that rule.
            pub fn new(text: &str) -> Result<Self, InvalidId> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(Arc::from(text))) } else { Err(InvalidId { rule: $rule }) }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
    };
}

text_id!(
    /// The unit of isolation. Its alphabet has no `:`, so that a key `tenant:rest` can be split in one way only.
    ///
    /// ```
    /// use enigma_core::TenantId;
    /// assert!(TenantId::new("acme-eu").is_ok());
    /// assert!(TenantId::new("Acme").is_err());
    /// assert!(TenantId::new("a:b").is_err());
    /// ```
    TenantId,
    "1 to 63 of a-z, 0-9 and -, not starting with -",
    |text| {
        let bytes = text.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes[0] != b'-'
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    }
);

text_id!(
    /// The person or program on whose behalf a request is made, within one tenant.
    UserId,
    "1 to 256 characters without control characters",
    |text| (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control)
);

text_id!(
    /// A model, by the name that clients and tenants use for it.
    ModelId,
    "1 to 200 visible ASCII characters",
    |text| (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
);

text_id!(
    /// Where a model runs: a configured endpoint, or this process.
    ProviderId,
    "1 to 63 of a-z, 0-9, - and _",
    |text| {
        (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }
);

text_id!(
    /// Ties together everything that one request caused, across services.
    TraceId,
    "1 to 128 of A-Z, a-z, 0-9, ., _ and -",
    |text| {
        (1..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }
);

text_id!(
    /// The name of an API key, safe to log; it says nothing about the key itself.
    KeyId,
    "1 to 64 of A-Z, a-z, 0-9, ., _ and -",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    }
);

text_id!(
    /// A tool, by the name that clients and models call it.
    ToolName,
    "1 to 64 of A-Z, a-z, 0-9, _ and -",
    |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
    }
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Takes a UUID as it is.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID.
            pub const fn uuid(&self) -> Uuid {
                self.0
            }

            /// Its bytes, as they are stored.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.hyphenated())
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            /// Parses the hyphenated form (RFC 9562, section 4), in either case, and no other.
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let parsed = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
                parsed.map(Self).ok_or(InvalidId { rule: "a UUID" })
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

uuid_id!(
    /// A conversation of one tenant. Chosen by the client, so two tenants may use the same one and never meet.
    SessionId
);
uuid_id!(
    /// One message of a session.
    MessageId
);
uuid_id!(
    /// One request; unlike the trace it is never taken from the client.
    RequestId
);
uuid_id!(
    /// One ingestion of a document. Of all versions of a document at most one is published.
    VersionId
);

uuid_id!(
    /// One record of the audit log.
    AuditId
);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tenant_ids_keep_to_their_alphabet() {
        for good in ["a", "0", "acme", "a-b-c", "9lives", &"x".repeat(63)] {
            assert!(TenantId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a_b", "a:b", "a b", "ä", "a/b", &"x".repeat(64)] {
            assert!(TenantId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn session_ids_are_hyphenated_uuids_of_any_case() {
        let id: SessionId = "6F9619FF-8B86-D011-B42D-00CF4FC964FF".parse().unwrap();
        assert_eq!(id.to_string(), "6f9619ff-8b86-d011-b42d-00cf4fc964ff");
        assert!("6f9619ff8b86d011b42d00cf4fc964ff".parse::<SessionId>().is_err());
        assert!("{6f9619ff-8b86-d011-b42d-00cf4fc964}".parse::<SessionId>().is_err());
    }

    proptest! {
        #[test]
        fn an_accepted_tenant_id_never_holds_a_separator(text in ".{0,70}") {
            if let Ok(id) = TenantId::new(&text) {
                prop_assert!(!id.as_str().contains([':', '/', '\0', '.']));
                prop_assert_eq!(id.as_str(), text);
            }
        }
    }
}
