//! Where the services may send what others told them to send: public addresses, by https. Pure.
//!
//! **Invariant:** an address that is not known to be public is not public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Bytes of a URL.
const URL_BYTES_MAX: usize = 2048;

/// Why nothing is sent to a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnsafeUrl {
    /// It is longer than any that is in use.
    #[error("the address has more than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// It is no URL, or has no host.
    #[error("the address is not a URL such as https://example.com/path")]
    Malformed,
    /// It isn't https.
    #[error("the address must begin with https://")]
    NotHttps,
    /// It names a user or a password.
    #[error("the address must not hold a user name or a password")]
    UserInfo,
    /// It names a port other than 443.
    #[error("the address must not name a port other than 443")]
    Port,
    /// Its host is in a private network, or is this machine.
    #[error("the address must be a public one, not one of this machine or of a private network")]
    NotPublic,
}

/// The URL in `text`, if it is https on port 443 and its host isn't seen to be private. A host that is a name has to be
/// checked again when it is resolved. With `allow_loopback`, for development, this machine is allowed too, by http and
/// on any port.
pub fn check_url(text: &str, allow_loopback: bool) -> Result<Url, UnsafeUrl> {
    if text.len() > URL_BYTES_MAX {
        return Err(UnsafeUrl::TooLong);
    }
    let url = Url::parse(text).map_err(|_| UnsafeUrl::Malformed)?;
    let host = url.host().ok_or(UnsafeUrl::Malformed)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UnsafeUrl::UserInfo);
    }
    if allow_loopback && is_loopback_url(&url) {
        return Ok(url);
    }
    if url.scheme() != "https" {
        return Err(UnsafeUrl::NotHttps);
    }
    if url.port_or_known_default() != Some(443) {
        return Err(UnsafeUrl::Port);
    }
    let is_safe = match host {
        Host::Ipv4(address) => is_public(address.into()),
        Host::Ipv6(address) => is_public(address.into()),
        Host::Domain(_) => !is_loopback(&host),
    };
    if is_safe { Ok(url) } else { Err(UnsafeUrl::NotPublic) }
}

/// Whether a URL is one of this machine, by http or https.
pub fn is_loopback_url(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host().as_ref().is_some_and(is_loopback)
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
    }
}

/// Whether an address belongs to somebody on the internet: not private, not this machine or link, not one of many, and
/// not such an address within another.
pub const fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)    // this network, private, loopback, multicast, reserved, broadcast
            | (100, 64..=127, _)        // carrier-grade NAT
            | (169, 254, _)             // link-local
            | (172, 16..=31, _)         // private
            | (192, 0, 0 | 2)           // protocol assignments, documentation
            | (192, 88, 99)             // relays to 6to4
            | (192, 168, _)             // private
            | (198, 18 | 19, _)         // benchmarks
            | (198, 51, 100)            // documentation
            | (203, 0, 113) // documentation
    )
}

const fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // 6to4, and NAT64 by the well-known prefix: as public as the IPv4 address within. Mapped and compatible
        // addresses, NAT64 by prefixes of a network's own and Teredo have no business here.
        [0x2002, high, low, ..] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => is_public_v4(v4(high, low)),
        // Protocol assignments with Teredo, and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // All that is given out for use on the internet.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

const fn v4(high: u16, low: u16) -> Ipv4Addr {
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: [&str; 16] = [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "142.250.74.74",
        "169.253.255.255",
        "172.15.255.255",
        "172.32.0.0",
        "192.167.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2606:4700:4700::1111",
        "2a00:1450:4001:830::200a",
        "64:ff9b::8.8.8.8",
        "2002:0808:0808::1",
    ];

    const NOT_PUBLIC: [&str; 66] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.1.2.3",
        "169.254.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.8",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "192.168.255.255",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::2",
        "::127.0.0.1",
        "::10.0.0.1",
        "::8.8.8.8",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:192.168.1.1",
        "::ffff:8.8.8.8",
        "::ffff:0:10.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b::192.168.0.1",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "64:ff9b::1:8.8.8.8",
        "100::1",
        "2001::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:10::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:0a00:0001::",
        "2002:c0a8:0101::1",
        "2002:a9fe:a9fe::1",
        "2002:ac10:0001::1",
        "3fff::1",
        "3fff:fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456:789a::1",
        "fe80::1",
        "febf::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ];

    #[test]
    fn only_addresses_of_the_internet_are_public() {
        for address in PUBLIC {
            assert!(is_public(address.parse().unwrap()), "{address}");
        }
        for address in NOT_PUBLIC {
            assert!(!is_public(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn only_https_to_the_internet_is_safe() {
        for safe in [
            "https://fcm.googleapis.com/fcm/send/abc:def",
            "https://updates.push.services.mozilla.com:443/wpush/v2/gAAA",
            "https://web.push.apple.com/QGuQ?a=b",
            "https://1.1.1.1/",
            "https://[2606:4700:4700::1111]/",
        ] {
            assert!(check_url(safe, false).is_ok(), "{safe}");
        }
        for (refused, why) in [
            ("", UnsafeUrl::Malformed),
            ("push", UnsafeUrl::Malformed),
            ("/wpush/v2/gAAA", UnsafeUrl::Malformed),
            ("https://", UnsafeUrl::Malformed),
            ("data:text/plain,a", UnsafeUrl::Malformed),
            ("http://example.com/", UnsafeUrl::NotHttps),
            ("ftp://example.com/", UnsafeUrl::NotHttps),
            ("unix://run/docker.sock", UnsafeUrl::NotHttps),
            ("https://user@example.com/", UnsafeUrl::UserInfo),
            ("https://user:password@example.com/", UnsafeUrl::UserInfo),
            ("https://example.com:8443/", UnsafeUrl::Port),
            ("https://example.com:80/", UnsafeUrl::Port),
            ("http://127.0.0.1/", UnsafeUrl::NotHttps),
            ("https://127.0.0.1/", UnsafeUrl::NotPublic),
            ("https://2130706433/", UnsafeUrl::NotPublic),
            ("https://0x7f.1/", UnsafeUrl::NotPublic),
            ("https://0177.0.0.1/", UnsafeUrl::NotPublic),
            ("https://10.1.2.3/", UnsafeUrl::NotPublic),
            ("https://169.254.169.254/latest/meta-data/", UnsafeUrl::NotPublic),
            ("https://[::1]/", UnsafeUrl::NotPublic),
            ("https://[::ffff:10.0.0.1]/", UnsafeUrl::NotPublic),
            ("https://[fd00::1]/", UnsafeUrl::NotPublic),
            ("https://localhost/", UnsafeUrl::NotPublic),
            ("https://LOCALHOST./", UnsafeUrl::NotPublic),
            ("https://a.localhost/", UnsafeUrl::NotPublic),
        ] {
            assert_eq!(check_url(refused, false), Err(why), "{refused}");
        }
        assert_eq!(check_url(&format!("https://example.com/{}", "a".repeat(2048)), false), Err(UnsafeUrl::TooLong));
    }

    #[test]
    fn development_allows_this_machine_and_nothing_else_besides() {
        for safe in ["http://127.0.0.1:8080/a", "http://[::1]:9/", "http://localhost:1234/", "https://127.0.0.9/"] {
            assert!(check_url(safe, true).is_ok(), "{safe}");
        }
        for (refused, why) in [
            ("http://example.com/", UnsafeUrl::NotHttps),
            ("http://10.0.0.1:8080/", UnsafeUrl::NotHttps),
            ("https://192.168.0.1/", UnsafeUrl::NotPublic),
            ("https://example.com:8443/", UnsafeUrl::Port),
            ("ftp://127.0.0.1/", UnsafeUrl::NotHttps),
            ("http://me@127.0.0.1/", UnsafeUrl::UserInfo),
        ] {
            assert_eq!(check_url(refused, true), Err(why), "{refused}");
        }
    }
}
