//! On whose behalf a request is made, and whose limit it counts against.

use std::net::{IpAddr, Ipv6Addr};

use super::access::Principal;
use crate::id::UserId;
use crate::limit::Subject;

/// Where a request came from, as the host of this program vouches for it: the peer's address, or what a trusted proxy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAddress(UserId);

impl ClientAddress {
    /// An address as text. What cannot be one counts as the one unknown address, so that it shares one limit.
    pub fn new(text: &str) -> Self {
        Self(UserId::new(text).unwrap_or_else(|_| UserId::new("unknown").expect("a plain word is a user id")))
    }

    /// What limits count by. Whoever has an IPv6 address has its whole /64 (RFC 6177), and must not be a new client with each of
    /// them. An IPv4 address is the same in both spellings.
    pub fn of_ip(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                let network = Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64);
                Self::new(&format!("{network}/64"))
            }
            other => Self::new(&other.to_string()),
        }
    }

    /// The address as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// What a request says of its user.
#[derive(Debug, Clone, Default)]
pub struct UserHints {
    /// The body's `userId`, or OpenAI's `user`.
    pub body: Option<UserId>,
    /// The header `x-user-id`.
    pub header: Option<UserId>,
}

/// A user, and the subject whose limit their requests count against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For records and the list of sessions.
    pub user: UserId,
    /// For limits.
    pub subject: Subject,
}

/// Who the user is. A token names its user itself; the holder of a key speaks for the users that it names; who shows no
/// credentials is the address that they come from, whatever they call themselves.
pub(super) fn caller(principal: &Principal, hints: UserHints) -> Caller {
    match principal {
        Principal::Key { id, .. } => match hints.body.or(hints.header) {
            Some(user) => Caller { subject: Subject::new("user", user.as_str()), user },
            None => Caller {
                user: UserId::new(id.as_str()).expect("a key's name is a valid user id"),
                subject: Subject::new("key", id.as_str()),
            },
        },
        Principal::Token { user, .. } => Caller { subject: Subject::new("user", user.as_str()), user: user.clone() },
        Principal::Anonymous { address } => {
            Caller { user: address.0.clone(), subject: Subject::new("address", address.as_str()) }
        }
    }
}
