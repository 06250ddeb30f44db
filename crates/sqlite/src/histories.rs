//! The newest messages of the sessions that were used last, at hand for their next turns.
//!
//! They are what the database says, always: the file is this process's alone, whoever changes a session has its turn, and
//! whatever changes it otherwise (a deletion, a sweep) makes it forgotten here before.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use enigma_core::session::{RecentMessages, Retention, StoredMessage, prune};
use enigma_core::{SessionId, TenantId, Timestamp, UserId};

/// The fewest bytes that a session counts for: its places in the maps.
const OVERHEAD: usize = 256;
/// The most messages of a session that are kept.
const AT_HAND: u32 = 200;

pub(crate) struct Histories {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<TenantId, HashMap<SessionId, Known>>,
    /// By the time of their last use, which is counted.
    by_use: BTreeMap<u64, (TenantId, SessionId)>,
    uses: u64,
    bytes: usize,
}

struct Known {
    /// Who began the session; nobody has yet where there are no messages.
    user: Option<UserId>,
    /// Oldest first.
    messages: Vec<StoredMessage>,
    /// Whether the session has none that are older.
    is_whole: bool,
    used: u64,
    bytes: usize,
}

impl Histories {
    /// Keeps about `capacity` bytes of text.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// The newest messages of a session, at most `limit`, as [`prune`] leaves them; `None` when the database has to be asked.
    pub(crate) fn recent(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        limit: u32,
        retention: Retention,
        now: Timestamp,
    ) -> Option<RecentMessages> {
        let state = self.lock();
        let known = state.sessions.get(tenant)?.get(session)?;
        let wanted = limit.min(retention.max_messages) as usize;
        if !known.is_whole && known.messages.len() < wanted {
            return None;
        }
        let newest = &known.messages[known.messages.len().saturating_sub(wanted)..];
        let messages = prune(newest.to_vec(), &retention, now);
        // Where retention has left nothing, the database says whose the session is.
        (known.messages.is_empty() || !messages.is_empty())
            .then(|| RecentMessages { user: known.user.clone(), messages })
    }

    /// Takes in what was read: the newest messages, at most `limit`.
    pub(crate) fn read(&self, tenant: &TenantId, session: &SessionId, read: &RecentMessages, limit: u32) {
        let RecentMessages { user, messages } = read.clone();
        let is_whole = messages.len() < limit as usize;
        self.put(tenant, session, user, messages, is_whole);
    }

    /// Takes in what was appended to the session of `user`, if what came before is known. What `retention` ends does not stay: it is not in the database
    /// any more, whatever retention the tenant has later.
    pub(crate) fn append(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        user: UserId,
        new: &[StoredMessage],
        retention: Retention,
        now: Timestamp,
    ) {
        let Some(Known { mut messages, is_whole, .. }) = self.take(tenant, session) else { return };
        messages.extend_from_slice(new);
        let all = messages.len();
        let most = Retention { max_messages: retention.max_messages.min(AT_HAND), ..retention };
        let kept = prune(messages, &most, now);
        let is_whole = is_whole && kept.len() == all;
        self.put(tenant, session, Some(user), kept, is_whole);
    }

    /// Forgets a session.
    pub(crate) fn forget(&self, tenant: &TenantId, session: &SessionId) {
        drop(self.take(tenant, session));
    }

    fn take(&self, tenant: &TenantId, session: &SessionId) -> Option<Known> {
        let mut state = self.lock();
        let sessions = state.sessions.get_mut(tenant)?;
        let known = sessions.remove(session)?;
        if sessions.is_empty() {
            state.sessions.remove(tenant);
        }
        state.by_use.remove(&known.used);
        state.bytes -= known.bytes;
        Some(known)
    }

    fn put(
        &self,
        tenant: &TenantId,
        session: &SessionId,
        user: Option<UserId>,
        messages: Vec<StoredMessage>,
        is_whole: bool,
    ) {
        drop(self.take(tenant, session));
        let text: usize = messages.iter().map(|message| message.content.len() + OVERHEAD).sum();
        let bytes = text + OVERHEAD;
        // One that would push out many is not worth it.
        if bytes > self.capacity / 16 {
            return;
        }
        let mut state = self.lock();
        while state.bytes + bytes > self.capacity {
            let Some((_, (tenant, session))) = state.by_use.pop_first() else { break };
            let Some(sessions) = state.sessions.get_mut(&tenant) else { continue };
            let freed = sessions.remove(&session).map_or(0, |known| known.bytes);
            if sessions.is_empty() {
                state.sessions.remove(&tenant);
            }
            state.bytes -= freed;
        }
        state.uses += 1;
        let place = state.uses;
        state.bytes += bytes;
        state.by_use.insert(place, (tenant.clone(), *session));
        let known = Known { user, messages, is_whole, used: place, bytes };
        // Somebody who has not waited for the session's turn may have put it here meanwhile.
        let before = state.sessions.entry(tenant.clone()).or_default().insert(*session, known);
        if let Some(before) = before {
            state.by_use.remove(&before.used);
            state.bytes -= before.bytes;
        }
    }

    /// A panic under the lock could only come from a lack of memory.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enigma_core::MessageId;
    use enigma_core::model::Role;
    use uuid::Uuid;

    const MUCH: Retention = Retention { days: 30, max_messages: 1000 };
    const NOW: Timestamp = Timestamp::from_millis(1_773_144_000_000);

    fn alice() -> UserId {
        UserId::new("alice").unwrap()
    }

    fn known(numbers: std::ops::Range<u128>) -> RecentMessages {
        RecentMessages { user: Some(alice()), messages: messages(numbers) }
    }

    fn messages(numbers: std::ops::Range<u128>) -> Vec<StoredMessage> {
        let message = |number| StoredMessage {
            id: MessageId::new(Uuid::from_u128(number)),
            role: Role::User,
            content: "hello".to_owned(),
            at: NOW,
            tokens: None,
            truncated: false,
        };
        numbers.map(message).collect()
    }

    fn recent(histories: &Histories, tenant: &str, session: u128, limit: u32) -> Option<Vec<u128>> {
        let (tenant, session) = (TenantId::new(tenant).unwrap(), SessionId::new(Uuid::from_u128(session)));
        let found = histories.recent(&tenant, &session, limit, MUCH, NOW)?;
        assert_eq!(found.user, Some(alice()));
        Some(found.messages.into_iter().map(|message| message.id.uuid().as_u128()).collect())
    }

    #[test]
    fn what_is_told_is_the_newest_and_nothing_that_is_not_known_for_sure() {
        let histories = Histories::new(1 << 20);
        let (acme, session) = (TenantId::new("acme").unwrap(), SessionId::new(Uuid::from_u128(1)));
        assert_eq!(recent(&histories, "acme", 1, 4), None);
        histories.append(&acme, &session, alice(), &messages(0..2), MUCH, NOW);
        assert_eq!(recent(&histories, "acme", 1, 4), None, "what came before is not known");

        histories.read(&acme, &session, &known(0..2), 4);
        assert_eq!(recent(&histories, "acme", 1, 4), Some(vec![0, 1]));
        histories.append(&acme, &session, alice(), &messages(2..4), Retention { days: 30, max_messages: 3 }, NOW);
        assert_eq!(recent(&histories, "acme", 1, 3), Some(vec![1, 2, 3]));
        assert_eq!(recent(&histories, "acme", 1, 4), None, "there is an older one");
        assert_eq!(recent(&histories, "other", 1, 3), None, "another tenant's session of the same name");
        histories.forget(&acme, &session);
        assert_eq!(recent(&histories, "acme", 1, 1), None);
        assert_eq!(histories.lock().bytes, 0);
    }

    #[test]
    fn those_that_were_used_longest_ago_make_room() {
        let histories = Histories::new(64 * 1024);
        let acme = TenantId::new("acme").unwrap();
        for number in 0..1_000 {
            histories.read(&acme, &SessionId::new(Uuid::from_u128(number)), &known(0..4), 10);
            assert!(histories.lock().bytes <= 64 * 1024);
        }
        assert_eq!(recent(&histories, "acme", 0, 4), None);
        assert_eq!(recent(&histories, "acme", 999, 4), Some(vec![0, 1, 2, 3]));
        histories.read(&acme, &SessionId::new(Uuid::from_u128(5_000)), &known(0..100), 200);
        assert_eq!(recent(&histories, "acme", 5_000, 4), None, "too large to be worth it");
        let state = histories.lock();
        assert_eq!(state.by_use.len(), state.sessions.values().map(HashMap::len).sum::<usize>());
    }
}
