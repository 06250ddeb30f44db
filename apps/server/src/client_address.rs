//! Where a request came from: the peer, unless that is a proxy whose word counts.

use std::net::IpAddr;
use std::str::FromStr;

use enigma_core::tenant::ClientAddress;
use http::HeaderMap;

/// An address, or all that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    start: u128,
    bits: u32,
}

/// A text that is not a network.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InvalidNetwork;

/// Addresses of both versions in one space: an IPv4 address is its mapped IPv6 one (RFC 4291, section 2.5.5.2).
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn prefix(number: u128, bits: u32) -> u128 {
    // A shift by all 128 bits is no shift in Rust.
    number.checked_shr(128 - bits).unwrap_or(0)
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        prefix(number(address), self.bits) == self.start
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u32>().map_err(|_| InvalidNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(length);
        if bits > length {
            return Err(InvalidNetwork);
        }
        let bits = bits + 128 - length;
        Ok(Self { start: prefix(number(address), bits), bits })
    }
}

/// Whose word about their client counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TrustedProxies {
    pub(crate) networks: Vec<Network>,
    /// Whoever can open the server's socket in the file system.
    pub(crate) unix: bool,
}

impl TrustedProxies {
    /// Whether `peer` is one of them. A peer without an address has come through the file system.
    pub(crate) fn contain(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.unix, |address| self.networks.iter().any(|network| network.contains(address)))
    }
}

/// Whose request it is. `x-forwarded-for` is read from its end, where the proxies write: the first hop that is not a trusted
/// proxy is the client, and what stands before it is only what the client says.
pub(crate) fn client_address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &TrustedProxies) -> ClientAddress {
    let mut client = peer.map(|peer| peer.to_canonical());
    let values = headers.get_all("x-forwarded-for").iter().rev();
    let mut hops = values.flat_map(|value| value.as_bytes().rsplit(|b| *b == b','));
    while trusted.contain(client) {
        // A hop that is no address says nothing, and neither does what stands before it.
        let Some(hop) = hops.next().and_then(|hop| address(str::from_utf8(hop).ok()?.trim())) else { break };
        client = Some(hop);
    }
    client.map_or_else(|| ClientAddress::new("unix"), ClientAddress::of_ip)
}

/// An address, with or without a port: proxies write both.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.split_once(']')).map_or(hop, |(address, _)| address);
    let address = bare.parse().or_else(|_| hop.parse().map(|socket: std::net::SocketAddr| socket.ip()));
    address.ok().map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn trusted(texts: &[&str], unix: bool) -> TrustedProxies {
        TrustedProxies { networks: networks(texts), unix }
    }

    #[track_caller]
    fn assert_client(peer: &str, forwarded: &[&str], trusted_networks: &[&str], expected: &str) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let peer = (peer != "unix").then(|| peer.parse().unwrap());
        let (networks, unix): (Vec<_>, Vec<_>) = trusted_networks.iter().partition(|text| **text != "unix");
        let client = client_address(peer, &headers, &trusted(&networks, !unix.is_empty()));
        assert_eq!(client.as_str(), expected);
    }

    #[test]
    fn the_peer_is_the_client_whatever_it_says() {
        assert_client("192.0.2.1", &[], &[], "192.0.2.1");
        assert_client("192.0.2.1", &["203.0.113.9"], &[], "192.0.2.1");
        assert_client("192.0.2.1", &["203.0.113.9"], &["192.0.2.2", "10.0.0.0/8"], "192.0.2.1");
        assert_client("::ffff:192.0.2.1", &[], &[], "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_it_is_the_last_hop_that_is_none_of_them() {
        let trusted = ["127.0.0.1", "10.0.0.0/8"];
        assert_client("127.0.0.1", &["203.0.113.9"], &trusted, "203.0.113.9");
        assert_client("10.1.2.3", &["203.0.113.9, 10.9.9.9"], &trusted, "203.0.113.9");
        assert_client("::ffff:10.1.2.3", &["203.0.113.9"], &trusted, "203.0.113.9");
        assert_client("127.0.0.1", &["203.0.113.9:4711"], &trusted, "203.0.113.9");
        assert_client("127.0.0.1", &["10.0.0.1, 10.0.0.2"], &trusted, "10.0.0.1");
        assert_client("127.0.0.1", &[], &trusted, "127.0.0.1");
    }

    #[test]
    fn what_a_client_writes_before_its_own_address_is_ignored() {
        let trusted = ["127.0.0.1"];
        assert_client("127.0.0.1", &["1.1.1.1, 203.0.113.9"], &trusted, "203.0.113.9");
        assert_client("127.0.0.1", &["1.1.1.1", "203.0.113.9"], &trusted, "203.0.113.9");
        assert_client("127.0.0.1", &["127.0.0.1, 203.0.113.9"], &trusted, "203.0.113.9");
    }

    #[test]
    fn a_hop_that_is_no_address_ends_the_search() {
        let trusted = ["127.0.0.1"];
        for wrong in ["unknown", "", "1.1.1.1, ", "1.1.1.1, x", "\u{e4}"] {
            assert_client("127.0.0.1", &[wrong], &trusted, "127.0.0.1");
        }
    }

    #[test]
    fn a_client_of_ip_version_6_is_its_network() {
        assert_client("2001:db8:1:2:3::4", &[], &[], "2001:db8:1:2::/64");
        assert_client("2001:db8:1:2:ffff::", &[], &[], "2001:db8:1:2::/64");
        assert_client("::1", &["[2001:db8::1]:443"], &["::1"], "2001:db8::/64");
        assert_client("::1", &[], &[], "::1");
    }

    #[test]
    fn a_peer_without_an_address_is_believed_only_when_that_is_configured() {
        let forwarded = ["1.1.1.1, 203.0.113.9"];
        assert_client("unix", &forwarded, &[], "unix");
        assert_client("unix", &forwarded, &["0.0.0.0/0", "::/0"], "unix");
        assert_client("unix", &forwarded, &["unix"], "203.0.113.9");
        assert_client("unix", &forwarded, &["unix", "203.0.113.0/24"], "1.1.1.1");
        assert_client("unix", &[], &["unix"], "unix");
        assert_client("192.0.2.1", &forwarded, &["unix"], "192.0.2.1");
    }

    #[test]
    fn networks_contain_what_begins_alike() {
        let contains =
            |network: &str, address: &str| network.parse::<Network>().unwrap().contains(address.parse().unwrap());
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.7/8", "10.0.0.1"), "bits after the prefix do not count");
        assert!(contains("2001:db8::/32", "2001:db8:ffff::1") && !contains("2001:db8::/32", "2001:db9::1"));
        assert!(contains("0.0.0.0/0", "203.0.113.9") && !contains("0.0.0.0/0", "2001:db8::1"));
        assert!(contains("::/0", "2001:db8::1"));
        for wrong in ["", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "x", "10.0.0/8", "10.0.0.0/8/8"] {
            assert_eq!(wrong.parse::<Network>(), Err(InvalidNetwork), "{wrong}");
        }
    }
}
