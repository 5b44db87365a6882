//! The PROXY protocol: a balancer that passes TCP on names the client in a header before the client's first byte.
//!
//! **Invariant:** exactly one header is read, from a trusted network only, and no byte beyond it. What follows it is the
//! client's, and names nobody.

use std::net::IpAddr;

use anyhow::ensure;
use clap::ValueEnum;
use proxy_header::{ParseConfig, ProxyHeader};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::address::TrustedProxies;
use crate::telemetry;

/// Bytes of a header. More than addresses are in it only if the balancer adds fields, which are passed over.
const HEADER_BYTES_MAX: usize = 4096;
/// Bytes of a header of version 1, by its specification.
const LINE_BYTES_MAX: usize = 107;

/// Whether the connections of a port begin with a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    /// None does; a header is a bad request.
    Off,
    /// All do; others are closed.
    Required,
}

impl ProxyProtocol {
    /// Refuses a setting with which every connection would be closed.
    pub fn check(self, variable: &str, proxies: &TrustedProxies) -> anyhow::Result<()> {
        ensure!(
            self == Self::Off || !proxies.is_empty(),
            "{variable} is `required`, but CHAT_TRUSTED_PROXIES names no network that a header is accepted from; \
             name the load balancer's there"
        );
        Ok(())
    }
}

/// Why a connection is closed before its first request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// Its network is not trusted to name clients.
    Untrusted,
    /// It does not begin with a header, or the header can't be read or is too large.
    Malformed,
    /// The header was not complete in time.
    Late,
    /// The other side closed it before its first byte, as checks of a balancer do.
    Gone,
}

impl Unnamed {
    /// Counts it, unless it was the other side that closed it. Its address is in no log.
    pub fn note(self) {
        let reason = match self {
            Self::Untrusted => "proxy_untrusted",
            Self::Malformed => "proxy_header",
            Self::Late => "proxy_late",
            Self::Gone => return,
        };
        tracing::debug!(reason, "a connection without an acceptable PROXY header is closed");
        metrics::counter!(telemetry::EDGE_REFUSED_TOTAL, "reason" => reason).increment(1);
    }
}

/// A complete header.
struct Header {
    bytes: usize,
    source: Option<IpAddr>,
}

/// The header that these bytes begin with; none while it may still become one.
fn parse(bytes: &[u8]) -> Result<Option<Header>, Unnamed> {
    let is_line = bytes.first() == Some(&b'P');
    let bytes_max = if is_line { LINE_BYTES_MAX } else { HEADER_BYTES_MAX };
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, bytes)) if bytes <= bytes_max => {
            Ok(Some(Header { bytes, source: header.proxied_address().map(|address| address.source.ip()) }))
        }
        Err(proxy_header::Error::BufferTooShort) if bytes.len() < bytes_max => Ok(None),
        Ok(_) | Err(_) => Err(Unnamed::Malformed),
    }
}

/// Takes the header off a socket: the client's address, or none if the balancer speaks for itself (`LOCAL`) or does not know
/// it (`UNKNOWN`).
pub async fn read(socket: &mut TcpStream) -> Result<Option<IpAddr>, Unnamed> {
    let mut bytes = vec![0; HEADER_BYTES_MAX];
    let mut taken = 0;
    loop {
        // Looked at first, as it is not known where the header ends; then taken, so that the next look waits for more.
        let ended = if taken == 0 { Unnamed::Gone } else { Unnamed::Malformed };
        let seen = taken + socket.peek(&mut bytes[taken..]).await.map_err(|_| ended)?;
        if seen == taken {
            return Err(ended);
        }
        let header = parse(&bytes[..seen])?;
        let end = header.as_ref().map_or(seen, |header| header.bytes);
        let header_bytes = bytes.get_mut(taken..end).ok_or(Unnamed::Malformed)?;
        socket.read_exact(header_bytes).await.map_err(|_| ended)?;
        if let Some(header) = header {
            return Ok(header.source);
        }
        taken = end;
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::{collection::vec, prelude::*};
    use proxy_header::{ProxiedAddress, Tlv};

    use super::*;
    use crate::tests::mutation::mutated;

    fn addresses() -> impl Strategy<Value = ProxiedAddress> {
        let any_port = |(source, port): (IpAddr, u16), destination| {
            ProxiedAddress::stream(SocketAddr::new(source, port), SocketAddr::new(destination, 443))
        };
        let v4 = (any::<[u8; 4]>(), any::<u16>(), any::<[u8; 4]>())
            .prop_map(move |(source, port, to)| any_port((source.into(), port), to.into()));
        let v6 = (any::<[u16; 8]>(), any::<u16>(), any::<[u16; 8]>())
            .prop_map(move |(source, port, to)| any_port((source.into(), port), to.into()));
        prop_oneof![v4, v6]
    }

    /// Valid headers of both versions, and the address that each names.
    fn headers() -> impl Strategy<Value = (Vec<u8>, Option<IpAddr>)> {
        let unnamed = [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ::1 ::1 1 1\r\n", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"];
        prop_oneof![
            1 => proptest::sample::select(unnamed.map(<[u8]>::to_vec).to_vec()).prop_map(|bytes| (bytes, None)),
            2 => addresses().prop_map(|address| (encoded(&address, None), Some(address.source.ip()))),
            2 => (addresses(), vec(any::<u8>(), 0..600))
                .prop_map(|(address, field)| (encoded(&address, Some(field)), Some(address.source.ip()))),
        ]
    }

    /// In version 1, or in version 2 with a field.
    fn encoded(address: &ProxiedAddress, field: Option<Vec<u8>>) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        let length = match field {
            None => ProxyHeader::with_address(address.clone()).encode_to_slice_v1(&mut bytes),
            Some(field) => ProxyHeader::with_tlvs(Some(address.clone()), [Tlv::Custom(0xe0, field.into())])
                .encode_to_slice_v2(&mut bytes),
        };
        bytes.truncate(length.unwrap());
        bytes
    }

    proptest! {
        #[test]
        fn every_header_is_taken_whole_and_nothing_of_what_follows_it(
            (header, source) in headers(),
            following in vec(any::<u8>(), 0..60),
        ) {
            for end in 0..header.len() {
                prop_assert!(matches!(parse(&header[..end]), Ok(None)), "it is waited for at {end}");
            }
            let parsed = parse(&[&header[..], &following].concat()).unwrap().unwrap();
            prop_assert_eq!((parsed.bytes, parsed.source), (header.len(), source));
        }

        #[test]
        fn fuzz_a_changed_header_is_refused_waited_for_or_ends_within_its_bounds(
            bytes in mutated((headers(), vec(any::<u8>(), 0..60)).prop_map(|((header, _), more)| [header, more].concat())),
        ) {
            let mut waited_for = 0;
            for end in 0..=bytes.len() {
                match parse(&bytes[..end]) {
                    Ok(None) => waited_for = end,
                    Ok(Some(header)) => {
                        prop_assert!(header.bytes == end, "it ends with its last byte");
                        prop_assert!(header.bytes > waited_for && header.bytes <= HEADER_BYTES_MAX);
                        break;
                    }
                    Err(unnamed) => {
                        prop_assert_eq!(unnamed, Unnamed::Malformed);
                        break;
                    }
                }
            }
            prop_assert!(waited_for < HEADER_BYTES_MAX);
        }

        #[test]
        fn fuzz_no_bytes_are_more_than_refused_or_waited_for(bytes in vec(any::<u8>(), 0..200)) {
            for start in [&b""[..], b"PROXY ", b"PROXY TCP6 ", b"\r\n\r\n\0\r\nQUIT\n", b"\r\n\r\n\0\r\nQUIT\n\x21\x21"] {
                let bytes = [start, &bytes].concat();
                if let Ok(Some(header)) = parse(&bytes) {
                    prop_assert!(header.bytes <= bytes.len());
                }
            }
        }
    }

    #[test]
    fn a_header_that_is_too_large_or_of_another_protocol_is_refused() {
        let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16)).into_bytes();
        let binary = |length: u16| [b"\r\n\r\n\0\r\nQUIT\n\x20\0", &length.to_be_bytes()[..]].concat();
        assert!(parse(&line(LINE_BYTES_MAX)).unwrap().is_some());
        assert!(parse(&[binary(4080), vec![0; 4080]].concat()).unwrap().is_some());
        for wrong in [
            line(LINE_BYTES_MAX + 1),
            line(LINE_BYTES_MAX + 1)[..LINE_BYTES_MAX].to_vec(),
            [binary(4081), vec![0; 4080]].concat(),
            [binary(u16::MAX), vec![0; 4080]].concat(),
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"POST / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01".to_vec(),
            b"PROXY TCP4 198.51.100.7 192.0.2.1 70000 443\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::7 2001:db8::1 1 443\r\n".to_vec(),
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c198.51.100.7".to_vec(),
        ] {
            assert!(matches!(parse(&wrong), Err(Unnamed::Malformed)), "{}", wrong.escape_ascii());
        }
    }
}
