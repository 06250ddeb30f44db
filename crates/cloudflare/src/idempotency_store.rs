//! Answers of requests that may be repeated, in the tenant's object.

use async_trait::async_trait;
use enigma_core::idempotency::{Begin, Fingerprint, IdempotencyKey};
use enigma_core::ports::IdempotencyStore;
use enigma_core::{PortError, RequestId, TenantId, Timestamp};
use serde::de::DeserializeOwned;

use crate::call::{AT_ONCE, Objects};
use crate::message::LedgerAsk;
use crate::names::ObjectName;

const PORT: &str = "idempotency store";

/// The longest answer that is kept, in bytes: a row of an object holds two megabytes.
const LONGEST_ANSWER: usize = 1_900_000;

/// Keeps the answers of requests that may be repeated.
#[derive(Clone)]
pub struct ObjectIdempotencyStore {
    objects: Objects,
}

impl ObjectIdempotencyStore {
    /// The store in `objects`.
    pub fn new(objects: Objects) -> Self {
        Self { objects }
    }

    async fn ask<A: DeserializeOwned>(&self, tenant: &TenantId, ask: LedgerAsk) -> Result<A, PortError> {
        let name = ObjectName::ledger(tenant);
        if ask.may_be_said_twice() {
            self.objects.ask_again(PORT, &name, tenant, ask, AT_ONCE).await
        } else {
            self.objects.ask(PORT, &name, tenant, ask, AT_ONCE).await
        }
    }
}

#[async_trait]
impl IdempotencyStore for ObjectIdempotencyStore {
    async fn begin(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        fingerprint: &Fingerprint,
        holder: RequestId,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<Begin, PortError> {
        let ask = LedgerAsk::BeginKey { key: key.clone(), fingerprint: *fingerprint, holder, lease_until, now };
        self.ask(tenant, ask).await
    }

    async fn finish(
        &self,
        tenant: &TenantId,
        key: &IdempotencyKey,
        holder: &RequestId,
        answer: &str,
        keep_until: Timestamp,
    ) -> Result<(), PortError> {
        if answer.len() > LONGEST_ANSWER {
            return Err(PortError::unavailable(PORT, format!("an answer of {} bytes is not kept", answer.len())));
        }
        let ask = LedgerAsk::FinishKey { key: key.clone(), holder: *holder, answer: answer.to_owned(), keep_until };
        self.ask(tenant, ask).await
    }

    async fn abandon(&self, tenant: &TenantId, key: &IdempotencyKey, holder: &RequestId) -> Result<(), PortError> {
        self.ask(tenant, LedgerAsk::AbandonKey { key: key.clone(), holder: *holder }).await
    }
}
