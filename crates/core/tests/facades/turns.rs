use std::sync::Arc;

use enigma_core::model::Role;
use enigma_core::ports::{OpenTurn, SessionTurns};
use enigma_core::session::{Retention, StoredMessage, Turn};
use enigma_core::turns::QueuedTurns;
use enigma_core::{MessageId, RequestId, SessionId, TenantId, Timestamp};
use enigma_memory::{MemorySessionStore, MemoryTurnQueue};
use uuid::Uuid;

use crate::failing::Part;
use crate::logged::Logged;

#[tokio::test]
async fn a_list_of_sessions_that_fails_lags_behind_and_the_turn_is_kept() {
    let index = Arc::new(Part::new(true));
    let (queue, store) = (Arc::new(MemoryTurnQueue::default()), Arc::new(MemorySessionStore::default()));
    let turns = QueuedTurns::new(queue, store, index.clone());
    let (tenant, session): (TenantId, _) = ("acme".parse().unwrap(), SessionId::new(Uuid::nil()));
    let (retention, now) = (Retention { days: 1, max_messages: 10 }, Timestamp::from_millis(0));
    let begin = async |n| {
        let request = RequestId::new(Uuid::from_u128(n));
        turns.begin(&tenant, &session, request, 10, &retention, now).await.unwrap()
    };
    let message = StoredMessage {
        id: MessageId::new(Uuid::nil()),
        role: Role::User,
        content: "hello".to_owned(),
        at: now,
        tokens: None,
        truncated: false,
    };
    let turn = Turn { user: "alice".parse().unwrap(), messages: vec![message] };

    let (logged, _guard) = Logged::listen();
    let OpenTurn { held, .. } = begin(1).await;
    held.append(&turn, &retention, now).await.unwrap();
    assert_eq!((index.count(), logged.ports()), (1, vec!["session index".to_owned()]));
    assert_eq!(begin(2).await.history, turn.messages);
}
