//! How many connections one client may have at a time, so that no single one can take all that there are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the connections of each client. Holds an entry for each client that has one, and so no more than there are connections.
#[derive(Clone)]
pub(crate) struct AddressLimit {
    most: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// The place of one connection. It is free again when this is dropped.
pub(crate) struct Place {
    limit: AddressLimit,
    client: IpAddr,
}

impl AddressLimit {
    /// At most `most` for one client.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, open: Arc::default() }
    }

    /// A place for a connection from `address`; `None` when its client has all that it may have.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Place> {
        let client = client(address);
        let mut open = self.open();
        let count = open.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        drop(open);
        Some(Place { limit: self.clone(), client })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        // Nothing can panic while the lock is held.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.limit.open();
        if let Some(count) = open.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.client);
            }
        }
    }
}

/// Whoever has an IPv6 address has its whole /64 (RFC 6177), as everywhere else in the platform.
fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_own_places_and_gets_them_back() {
        let limit = AddressLimit::new(2);
        let take = |address: &str| limit.take(address.parse().unwrap());
        let (first, second) = (take("192.0.2.1").unwrap(), take("::ffff:192.0.2.1").unwrap());
        assert!(take("192.0.2.1").is_none());
        let other = take("192.0.2.2").expect("somebody else");
        drop(first);
        let again = take("192.0.2.1").expect("one is free");
        assert!(take("192.0.2.1").is_none());
        drop((second, other, again));
        assert!(limit.open().is_empty(), "nobody is remembered");
    }

    #[test]
    fn all_addresses_of_a_network_of_ip_version_6_are_one_client() {
        let limit = AddressLimit::new(1);
        let _place = limit.take("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert!(limit.take("2001:db8:1:2:ffff::9".parse().unwrap()).is_none());
        assert!(limit.take("2001:db8:1:3::1".parse().unwrap()).is_some());
    }
}
