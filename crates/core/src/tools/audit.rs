//! What is kept of each run of a tool, for those who operate the platform. Never parameters or results.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::canonical::canonical_json;
use super::error::ToolError;
use crate::chat::ChatError;
use crate::id::{AuditId, InvalidId, RequestId, TenantId, ToolName, TraceId, UserId};
use crate::port_error::PortError;
use crate::ports::{AuditLog, Clock};
use crate::time::Timestamp;

/// SHA-256 of the canonical text of a run's parameters: it tells whether two runs were asked the same, and not what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ParamsHash([u8; 32]);

impl ParamsHash {
    /// The hash of these parameters.
    pub fn of(params: &Value) -> Self {
        Self(Sha256::digest(canonical_json(params).as_bytes()).into())
    }

    /// A hash from its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<String> for ParamsHash {
    type Error = InvalidId;

    /// From 64 hexadecimal digits.
    fn try_from(text: String) -> Result<Self, InvalidId> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(&text, &mut bytes).map_err(|_| InvalidId::new("64 of 0-9 and a-f"))?;
        Ok(Self(bytes))
    }
}

impl From<ParamsHash> for String {
    fn from(hash: ParamsHash) -> Self {
        hex::encode(hash.0)
    }
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditOutcome {
    /// It gave a result.
    Succeeded,
    /// The caller was not allowed to.
    Denied,
    /// There is no such tool.
    NotFound,
    /// The parameters broke the schema.
    Invalid,
    /// The budget did not cover it, or the ledger did not answer.
    Refused,
    /// It took too long.
    TimedOut,
    /// It failed.
    Failed,
    /// The client went away, or the program stopped.
    Cancelled,
}

impl AuditOutcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Succeeded,
        Self::Denied,
        Self::NotFound,
        Self::Invalid,
        Self::Refused,
        Self::TimedOut,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The outcome of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == text)
    }
}

impl From<&ToolError> for AuditOutcome {
    fn from(error: &ToolError) -> Self {
        match error {
            ToolError::Common(ChatError::ClientGone | ChatError::ShuttingDown) => Self::Cancelled,
            ToolError::Common(ChatError::TimedOut) | ToolError::TimedOut(_) => Self::TimedOut,
            ToolError::Common(_) => Self::Refused,
            ToolError::NotFound(_) => Self::NotFound,
            ToolError::Denied(_) => Self::Denied,
            ToolError::Invalid(_) => Self::Invalid,
            ToolError::Failed(_) => Self::Failed,
        }
    }
}

/// The record of one run of a tool, allowed or denied. There is exactly one for each that the limiter let in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditRecord {
    /// Its name.
    pub id: AuditId,
    /// When the run was asked for.
    pub at: Timestamp,
    /// The request that it was a part of.
    pub request: RequestId,
    /// The trace of that request.
    pub trace: TraceId,
    /// The route that it came through, such as `/tools/execute`.
    pub route: String,
    /// On whose behalf.
    pub user: UserId,
    /// The tool that was asked for, whether or not there is one.
    pub tool: ToolName,
    /// The parameters, as a hash.
    pub params: ParamsHash,
    /// How it ended.
    pub outcome: AuditOutcome,
    /// How long it took.
    pub duration: Duration,
    /// The tokens that it used.
    pub tokens: u64,
    /// From when on the record is gone.
    pub expires_at: Timestamp,
}

/// Which records are asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditQuery {
    /// Those of one tool.
    pub tool: Option<ToolName>,
    /// Those of this time or later.
    pub since: Option<Timestamp>,
    /// Those before this time.
    pub until: Option<Timestamp>,
}

impl AuditQuery {
    /// Whether a record is among those.
    pub fn matches(&self, record: &AuditRecord) -> bool {
        self.tool.as_ref().is_none_or(|tool| *tool == record.tool)
            && self.since.is_none_or(|since| record.at >= since)
            && self.until.is_none_or(|until| record.at < until)
    }
}

/// Records, the newest first, and where the next page begins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditPage {
    /// The records.
    pub records: Vec<AuditRecord>,
    /// The place of the last record, when there are more after it.
    pub next: Option<(Timestamp, AuditId)>,
}

/// Shows the audit log to operators. Cheap to clone.
#[derive(Clone)]
pub struct AuditService {
    log: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
}

impl AuditService {
    /// The service over `log`.
    pub fn new(log: Arc<dyn AuditLog>, clock: Arc<dyn Clock>) -> Self {
        Self { log, clock }
    }

    /// The records of `tenant` that `query` asks for and that come after `after`, the newest first, at most `limit`.
    ///
    /// # Errors
    /// [`PortError`].
    pub async fn list(
        &self,
        tenant: &TenantId,
        query: &AuditQuery,
        after: Option<(Timestamp, AuditId)>,
        limit: u32,
    ) -> Result<AuditPage, PortError> {
        self.log.list(tenant, query, after, limit, self.clock.now()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_is_that_of_the_canonical_text() {
        // printf '{"a":1,"b":"x"}' | sha256sum
        let digits = "ecf9e98ec0641e23113ff3ce8bdc78d0ddd249886517fd4a7f68cc83d4e65667";
        let hash = ParamsHash::of(&json!({ "b": "x", "a": 1 }));
        assert_eq!(hash, ParamsHash::of(&json!({ "a": 1.0, "b": "x" })));
        assert_ne!(hash, ParamsHash::of(&json!({ "a": 1, "b": "y" })));
        assert_eq!(String::from(hash), digits);
        assert_eq!(ParamsHash::try_from(String::from(hash)).unwrap(), hash);
        assert!(ParamsHash::try_from("00".to_owned()).is_err());
    }

    #[test]
    fn outcomes_read_as_they_are_written() {
        for outcome in AuditOutcome::ALL {
            assert_eq!(AuditOutcome::parse(outcome.as_str()), Some(outcome));
            assert_eq!(serde_json::to_value(outcome).unwrap(), outcome.as_str());
        }
        assert_eq!(AuditOutcome::parse("fine"), None);
    }
}
