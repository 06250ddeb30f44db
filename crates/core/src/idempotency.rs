//! Repeats of a request: the first answer again, or a reason why not.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::{InvalidId, RequestId};
use crate::limit::Subject;
use crate::time::Timestamp;

/// How long an answer can be had again.
pub const REPLAY_FOR: std::time::Duration = std::time::Duration::from_secs(24 * 60 * 60);

/// The name of a request that may be repeated: a hash over the caller, the route and the client's key, so that two users of a
/// tenant who choose the same key never see each other's answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IdempotencyKey(String);

/// A hash of what was asked, to tell a repeat from another request under the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint([u8; 32]);

impl IdempotencyKey {
    /// The key of a request of `caller` to `route`; `None` unless `text`, the header's value, is 1 to 255 printable ASCII
    /// characters.
    pub fn new(caller: &Subject, route: &str, text: &str) -> Option<Self> {
        let printable = text.bytes().all(|b| (0x20..0x7f).contains(&b));
        ((1..=255).contains(&text.len()) && printable)
            .then(|| Self(hex::encode(digest(&[caller.as_str().as_bytes(), route.as_bytes(), text.as_bytes()]))))
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// From what [`IdempotencyKey::as_str`] gave.
impl TryFrom<String> for IdempotencyKey {
    type Error = InvalidId;

    fn try_from(digits: String) -> Result<Self, InvalidId> {
        let is_digest = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_digest { Ok(Self(digits)) } else { Err(InvalidId::new("64 of 0-9 and a-f")) }
    }
}

impl From<IdempotencyKey> for String {
    fn from(key: IdempotencyKey) -> Self {
        key.0
    }
}

impl Fingerprint {
    /// The fingerprint of everything that makes the request what it is.
    pub fn of(parts: &[&[u8]]) -> Self {
        Self(digest(parts))
    }

    /// A fingerprint from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        // Each length goes first, so that no two lists of parts hash the same text.
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// What is kept under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyEntry {
    /// What was asked.
    pub fingerprint: Fingerprint,
    /// The request that holds the key.
    pub holder: RequestId,
    /// The answer, when it is there.
    pub answer: Option<String>,
    /// Until when this entry counts: while the request runs the time at which it is taken for dead, afterwards the end of the
    /// time in which its answer can be had again.
    pub expires_at: Timestamp,
}

/// What becomes of a request with a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Begin {
    /// It is the first: it holds the key and goes on.
    First,
    /// It is a repeat: here is the answer.
    Replay(String),
    /// The first one still runs.
    InProgress,
    /// The key was used for something else.
    Mismatch,
}

/// Decides by what is kept under the key.
pub fn begin(entry: Option<&IdempotencyEntry>, fingerprint: &Fingerprint, now: Timestamp) -> Begin {
    match entry.filter(|entry| now < entry.expires_at) {
        None => Begin::First,
        Some(entry) if entry.fingerprint != *fingerprint => Begin::Mismatch,
        Some(IdempotencyEntry { answer: Some(answer), .. }) => Begin::Replay(answer.clone()),
        Some(_) => Begin::InProgress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn keys_differ_by_caller_and_route_and_accept_printable_ascii_only() {
        let (alice, bob) = (Subject::new("user", "alice"), Subject::new("user", "bob"));
        let key = |who: &Subject, route: &str, text: &str| IdempotencyKey::new(who, route, text);
        assert_eq!(key(&alice, "/chat", "k"), key(&alice, "/chat", "k"));
        assert_ne!(key(&alice, "/chat", "k"), key(&bob, "/chat", "k"));
        assert_ne!(key(&alice, "/chat", "k"), key(&alice, "/ingest", "k"));
        assert_ne!(key(&alice, "/cha", "tk"), key(&alice, "/chat", "k"));
        for bad in ["", "tab\t", "ü", &"x".repeat(256)] {
            assert_eq!(key(&alice, "/chat", bad), None);
        }
    }

    #[test]
    fn a_key_travels_as_its_digits_and_nothing_else_is_one() {
        let key = IdempotencyKey::new(&Subject::new("user", "alice"), "/chat", "k").unwrap();
        let text = serde_json::to_string(&key).unwrap();
        assert_eq!(text, format!("\"{}\"", key.as_str()));
        assert_eq!(serde_json::from_str::<IdempotencyKey>(&text).unwrap(), key);
        let digits = key.as_str();
        for bad in [String::new(), digits[1..].to_owned(), format!("{digits}0"), "A".repeat(64), "ä".repeat(32)] {
            assert!(IdempotencyKey::try_from(bad).is_err());
        }
    }

    #[test]
    fn an_entry_decides_until_it_expires() {
        let (ask, other) = (Fingerprint::of(&[b"a"]), Fingerprint::of(&[b"b"]));
        let at = Timestamp::from_millis;
        let mut entry = IdempotencyEntry {
            fingerprint: ask,
            holder: RequestId::new(Uuid::nil()),
            answer: None,
            expires_at: at(100),
        };
        assert_eq!(begin(None, &ask, at(0)), Begin::First);
        assert_eq!(begin(Some(&entry), &ask, at(99)), Begin::InProgress);
        assert_eq!(begin(Some(&entry), &ask, at(100)), Begin::First, "its holder died");
        assert_eq!(begin(Some(&entry), &other, at(0)), Begin::Mismatch);
        entry.answer = Some("hi".into());
        assert_eq!(begin(Some(&entry), &ask, at(99)), Begin::Replay("hi".into()));
        assert_eq!(begin(Some(&entry), &other, at(99)), Begin::Mismatch);
    }
}
