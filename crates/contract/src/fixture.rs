//! Names, times and messages that the cases share.

use std::cell::RefCell;
use std::time::Duration;

use enigma_core::model::Role;
use enigma_core::session::{StoredMessage, Turn};
use enigma_core::{MessageId, RequestId, SessionId, TenantId, Timestamp, UserId};
use uuid::Uuid;

/// 2026-03-10T12:00:00Z: the middle of a day in the middle of a month, at which most cases begin.
pub const NOON: Timestamp = Timestamp::from_millis(1_773_144_000_000);

/// One day.
pub const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// So many milliseconds after [`NOON`].
pub fn after(millis: u64) -> Timestamp {
    NOON.saturating_add(Duration::from_millis(millis))
}

thread_local! {
    static REALM: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Puts the tenants of the cases that this thread runs from now on into a realm of their own: their ids begin with `name` and a
/// hyphen. For adapters whose backend outlives a case and cannot be emptied. Without a name there is no realm.
pub fn enter_realm(name: &str) {
    let prefix = if name.is_empty() { String::new() } else { format!("{name}-") };
    REALM.set(prefix);
}

/// A tenant.
pub fn tenant(name: &str) -> TenantId {
    let id = REALM.with_borrow(|prefix| format!("{prefix}{name}"));
    TenantId::new(&id).expect("cases use valid tenant ids")
}

/// The tenant that most cases are about.
pub fn acme() -> TenantId {
    tenant("acme")
}

/// Another tenant, whose id begins like the first one's.
pub fn acme_eu() -> TenantId {
    tenant("acme-eu")
}

/// A user.
pub fn user(name: &str) -> UserId {
    UserId::new(name).expect("cases use valid user ids")
}

/// The request of this number.
pub fn request(number: u128) -> RequestId {
    RequestId::new(Uuid::from_u128(number))
}

/// The session of this number.
pub fn session(number: u128) -> SessionId {
    SessionId::new(Uuid::from_u128(number))
}

/// The message of this number: the user's when it is even, the model's when it is odd, with as many tokens as its number says.
pub fn message(number: u32, at: Timestamp) -> StoredMessage {
    StoredMessage {
        id: MessageId::new(Uuid::from_u128(number.into())),
        role: if number.is_multiple_of(2) { Role::User } else { Role::Assistant },
        content: format!("message {number}"),
        at,
        tokens: Some(number),
        truncated: false,
    }
}

/// A turn of `user` with the messages of these numbers.
pub fn turn(user: &UserId, numbers: impl IntoIterator<Item = u32>, at: Timestamp) -> Turn {
    Turn { user: user.clone(), messages: numbers.into_iter().map(|number| message(number, at)).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noon_is_noon() {
        assert_eq!(NOON.to_rfc3339(), "2026-03-10T12:00:00Z");
    }
}
