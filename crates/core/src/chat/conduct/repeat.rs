//! Repeats of a chat: the key that its first request holds, and the answer that is kept under it.

use super::{Conduct, Opened, Opening, reject};
use crate::admission::AdmissionError;
use crate::chat::command::ChatEvent;
use crate::chat::error::ChatError;
use crate::chat::service::Shared;
use crate::chat::transcript::KeptReply;
use crate::client::Client;
use crate::idempotency::{Begin, REPLAY_FOR};
use crate::port_error::{PortError, degrade};

impl Conduct {
    /// Asks for the idempotency key; `Some` is the answer of the first request.
    pub(super) async fn claim_key(&self) -> Result<Option<KeptReply>, ChatError> {
        let Some((key, fingerprint)) = &self.command.idempotency else { return Ok(None) };
        let Shared { ports, settings } = &*self.shared;
        // Who has no slot left is refused before anything is written.
        let rate = ports.admission.peek(&self.context, &self.command.caller, self.started).await?;
        if rate.remaining == 0 {
            return Err(AdmissionError::RateLimited(rate).into());
        }
        // After this time the request has ended, or its process has.
        let lease = self.started.saturating_add(settings.request_timeout * 2);
        let begun = ports
            .idempotency
            .begin(self.context.id(), key, fingerprint, self.command.request, lease, self.started)
            .await;
        let begun = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // It may have been given the key all the same, and would keep its own repeat out until the lease ends.
                self.free_key().await;
                return Err(error.into());
            }
        };
        match begun {
            Begin::First => Ok(None),
            Begin::InProgress => Err(ChatError::IdempotencyInProgress),
            Begin::Mismatch => Err(ChatError::IdempotencyMismatch),
            Begin::Replay(kept) => serde_json::from_str(&kept)
                .map(Some)
                .map_err(|error| PortError::corrupt("idempotency store", error).into()),
        }
    }

    pub(super) async fn replay(&self, kept: KeptReply, mut client: Client<ChatEvent>, opening: Opening) {
        let ports = &self.shared.ports;
        let rate = match ports.admission.peek(&self.context, &self.command.caller, self.started).await {
            Ok(rate) => rate,
            Err(error) => return reject(opening, ChatError::from(error).into()),
        };
        let opened = Opened {
            request: kept.request,
            created: kept.created,
            model: kept.done.model.clone(),
            tokens_in: kept.tokens_in,
            rate,
            replayed: true,
        };
        let _ = opening.send(Ok(opened));
        let mut events = kept.into_events();
        let last = events.split_off(events.len().saturating_sub(1));
        for event in events {
            if client.send(event).await.is_err() {
                return;
            }
        }
        client.close(last).await;
    }

    pub(super) async fn keep_answer(&self, kept: &KeptReply) {
        let Some((key, _)) = &self.command.idempotency else { return };
        let ports = &self.shared.ports;
        let answer = serde_json::to_string(kept).expect("a kept reply has no maps with odd keys, so it is JSON");
        let until = self.started.saturating_add(REPLAY_FOR);
        degrade(ports.idempotency.finish(self.context.id(), key, &self.command.request, &answer, until).await);
    }

    pub(super) async fn free_key(&self) {
        let Some((key, _)) = &self.command.idempotency else { return };
        degrade(self.shared.ports.idempotency.abandon(self.context.id(), key, &self.command.request).await);
    }
}
