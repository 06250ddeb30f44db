//! Durable Objects: each keeps the state of something that must be decided in one place. They are shells: what they decide,
//! functions of the core decide, and here it is read, decided and written without anything in between.
#![expect(clippy::future_not_send, reason = "an object lives on one thread")]
#![expect(missing_docs, reason = "the SDK's macro writes methods without them")]

mod chat_session;
mod idempotency_rows;
mod lease_rows;
mod ledger_rows;
mod rate_limiter;
mod rows;
mod session_rows;
mod tenant_ledger;
mod usage_rows;
mod window_rows;

use std::panic::AssertUnwindSafe;

use enigma_core::{PortError, TenantId};
use futures_util::FutureExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use worker::{Request, Response};

pub use self::chat_session::ChatSession;
pub use self::rate_limiter::RateLimiter;
use self::rows::{Rows, RowsError};
pub use self::tenant_ledger::TenantLedger;
use crate::message::Message;

/// Why an object does not answer a question.
#[derive(Debug, Error)]
enum ObjectError {
    #[error("the question is not one for this object: {0}")]
    Question(String),
    #[error("the object belongs to another tenant")]
    OtherTenant,
    #[error("the one who waited has left")]
    Left,
    #[error(transparent)]
    Rows(#[from] RowsError),
    #[error("another object does not answer: {0}")]
    Next(#[from] PortError),
}

impl ObjectError {
    const fn status(&self) -> u16 {
        match self {
            Self::Question(_) => 400,
            Self::OtherTenant => 403,
            Self::Left => 409,
            Self::Rows(_) => 500,
            Self::Next(_) => 503,
        }
    }
}

/// Reads a question and answers it. A panic is an answer too: it ends nothing but this question.
async fn answer<Q: DeserializeOwned, A: Serialize>(
    mut request: Request,
    act: impl AsyncFnOnce(Message<Q>) -> Result<A, ObjectError>,
) -> worker::Result<Response> {
    let answered = AssertUnwindSafe(async {
        // Read whole before anything is decided: a decision never waits for its question.
        let text = request.text().await.map_err(|error| ObjectError::Question(error.to_string()))?;
        #[cfg(feature = "faults")]
        assert_ne!(text, "panic", "as the test wants it");
        let message = serde_json::from_str(&text).map_err(|error| {
            // The place only: the question may hold what a user said.
            ObjectError::Question(format!("{:?} at column {}", error.classify(), error.column()))
        })?;
        act(message).await
    })
    .catch_unwind()
    .await;
    match answered {
        Ok(Ok(answer)) => Response::from_json(&answer),
        Ok(Err(error)) => Response::error(error.to_string(), error.status()),
        Err(_) => Response::error("the object panicked", 500),
    }
}

/// The name under which an object keeps whose it is.
const OWNER: &str = "tenant";

/// Whether the object belongs to `tenant`; the first who asks is its owner.
fn belongs(rows: &Rows, tenant: &TenantId) -> Result<(), ObjectError> {
    match rows.kept::<TenantId>(OWNER)? {
        Some(owner) if owner == *tenant => Ok(()),
        Some(_) => Err(ObjectError::OtherTenant),
        None => Ok(rows.keep(OWNER, tenant)?),
    }
}
