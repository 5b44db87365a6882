//! Whose address a request comes from: that of the socket, or what trusted proxies say of it.
//!
//! **Invariant:** what a client writes in `X-Forwarded-For` itself is never believed. The list is read from its end, where
//! our own proxies wrote, and no further than to the first hop that isn't one of them.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use axum::http::{HeaderMap, HeaderName};
use ipnet::IpNet;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Hops that are looked at. Nobody has so many proxies in a row.
const HOPS_MAX: usize = 16;
/// Networks in the list of trusted proxies.
const NETWORKS_MAX: usize = 256;

/// Who counts as one client: an address of version 4, or the 64 bits of one of version 6 that a subscriber is given.
///
/// Shows nothing of itself: addresses of people are in no log.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    V4(Ipv4Addr),
    V6(u64),
}

impl From<IpAddr> for ClientAddress {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d].iter().fold(0, |bits, segment| bits << 16 | u64::from(*segment)))
            }
        }
    }
}

impl fmt::Debug for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientAddress")
    }
}

/// The networks of the proxies before this gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        let entries = list.split(',').map(str::trim);
        let networks: Vec<_> =
            if list.trim().is_empty() { Vec::new() } else { entries.map(network).collect::<Result<_, _>>()? };
        if networks.len() > NETWORKS_MAX {
            return Err(format!("{} networks are more than {NETWORKS_MAX}", networks.len()));
        }
        Ok(Self(networks.into()))
    }
}

fn network(entry: &str) -> Result<IpNet, String> {
    let single = entry.parse::<IpAddr>().map(IpNet::from);
    let network = single.or_else(|_| entry.parse::<IpNet>());
    let network = network.map_err(|_| format!("`{entry}` is no network; write it as 10.0.0.0/8 or fd00::/8"))?;
    if network.prefix_len() == 0 {
        return Err(format!("`{entry}` is everybody: whoever connects could say what their address is"));
    }
    if network != network.trunc() {
        return Err(format!("`{entry}` has bits beyond its prefix; did you mean {}?", network.trunc()));
    }
    Ok(network)
}

impl TrustedProxies {
    /// Whether it names no network.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether what this socket says of others is believed.
    pub fn contains(&self, socket: IpAddr) -> bool {
        let socket = socket.to_canonical();
        self.0.iter().any(|network| network.contains(&socket))
    }

    /// The client behind a socket. If a proxy says nothing of it, or what can't be read, the proxy itself.
    pub fn client(&self, socket: IpAddr, headers: &HeaderMap) -> ClientAddress {
        let mut nearest = socket;
        let mut values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        values.reverse();
        let hops = values.into_iter().flat_map(|value| value.as_bytes().rsplit(|byte| *byte == b','));
        for hop in hops.take(HOPS_MAX) {
            if !self.contains(nearest) {
                break;
            }
            let Some(address) = address_of(hop) else { break };
            nearest = address;
        }
        nearest.into()
    }
}

/// An entry of the list: an address, and a port if some proxy adds it.
fn address_of(hop: &[u8]) -> Option<IpAddr> {
    let hop = std::str::from_utf8(hop).ok()?.trim_matches([' ', '\t']);
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok().map(IpAddr::V6);
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    hop.parse().ok().or_else(with_port).or_else(in_brackets).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxies(list: &str) -> TrustedProxies {
        list.parse().unwrap()
    }

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        headers
    }

    fn address(text: &str) -> ClientAddress {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn only_proxies_are_believed_and_only_as_far_as_they_reach() {
        let trusted = proxies("10.0.0.0/8, 192.0.2.7,fd00::/8");
        for (socket, forwarded, expected) in [
            ("203.0.113.9", &["198.51.100.1"][..], "203.0.113.9"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.1.1.1", &["198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["1.1.1.1, 198.51.100.1, 192.0.2.7", "10.2.2.2"], "198.51.100.1"),
            ("10.1.1.1", &["198.51.100.1:55123"], "198.51.100.1"),
            ("10.1.1.1", &["[2001:db8::1]:443"], "2001:db8::"),
            ("10.1.1.1", &["[2001:db8::1]"], "2001:db8::"),
            ("10.1.1.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("10.1.1.1", &["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
            ("10.1.1.1", &["198.51.100.1, unknown"], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.1, _hidden, 10.2.2.2"], "10.2.2.2"),
            ("10.1.1.1", &["198.51.100.1,"], "10.1.1.1"),
            ("10.1.1.1", &[""], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.1\u{e9}"], "10.1.1.1"),
            ("10.1.1.1", &["198.51.100.1%eth0"], "10.1.1.1"),
        ] {
            let client = trusted.client(socket.parse().unwrap(), &headers(forwarded));
            assert!(client == address(expected), "{socket} {forwarded:?}");
        }
        let endless = headers(&[&vec!["10.2.2.2"; 10_000].join(",")]);
        assert!(trusted.client("10.1.1.1".parse().unwrap(), &endless) == address("10.2.2.2"));
        assert!(
            TrustedProxies::default().client("10.1.1.1".parse().unwrap(), &headers(&["1.1.1.1"]))
                == address("10.1.1.1")
        );
    }

    #[test]
    fn a_subscriber_of_version_6_is_one_client_and_nothing_is_shown_of_anybody() {
        assert!(address("2001:db8:1:2::3") == address("2001:db8:1:2:ffff::"));
        assert!(address("2001:db8:1:2::3") != address("2001:db8:1:3::3"));
        assert_eq!(format!("{:?}", address("198.51.100.1")), "ClientAddress");
    }

    #[test]
    fn wrong_networks_end_the_start_with_what_is_wrong() {
        assert_eq!(proxies(""), TrustedProxies::default());
        for (wrong, says) in [
            ("10.0.0.0/33", "is no network"),
            ("proxy.internal", "is no network"),
            ("10.0.0.0/8,", "is no network"),
            ("10.0.0.0/8;fd00::/8", "is no network"),
            ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
            ("0.0.0.0/0", "is everybody"),
            ("::/0", "is everybody"),
        ] {
            let error = wrong.parse::<TrustedProxies>().unwrap_err();
            assert!(error.contains(says), "{wrong}: {error}");
        }
        assert!(vec!["10.0.0.1"; NETWORKS_MAX + 1].join(",").parse::<TrustedProxies>().is_err());
    }

    proptest! {
        #[test]
        fn nothing_that_a_client_sends_itself_changes_what_the_proxy_says(
            sent in proptest::collection::vec("[ -~]{0,60}", 0..4),
            client in any::<u32>(),
        ) {
            let trusted = proxies("10.0.0.0/8");
            let client = IpAddr::V4(client.into());
            prop_assume!(!trusted.contains(client));
            let mut headers = HeaderMap::new();
            for value in &sent {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            let socket = "10.0.0.1".parse().unwrap();
            // A proxy may add a header of its own or go on in the last one.
            let mut own = headers.clone();
            own.append(FORWARDED_FOR, client.to_string().parse().unwrap());
            prop_assert!(trusted.client(socket, &own) == client.into());
            let mut joined = HeaderMap::new();
            joined.append(FORWARDED_FOR, format!("{}, {client}", sent.join(",")).parse().unwrap());
            prop_assert!(trusted.client(socket, &joined) == client.into());
            // Without a trusted proxy the socket alone counts.
            prop_assert!(trusted.client(client, &headers) == client.into());
        }
    }
}
