//! Which web sites may have their visitors' browsers talk to this gateway.
//!
//! **Invariant:** an origin is let in only if the header has exactly the bytes of an entry; nothing is taken apart or
//! normalised when a request comes. Never `*`, and never with credentials: tokens come in a header that scripts set.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, Method, header, request};
use tower_http::cors::{AllowOrigin, CorsLayer};
use url::Url;

use crate::refusal::Refusal;

/// Entries of the list.
const ORIGINS_MAX: usize = 100;
/// How long a browser remembers what it was told before a request.
const PREFLIGHT_AGE: Duration = Duration::from_hours(1);

/// The origins that may come in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origins(Arc<[HeaderValue]>);

impl FromStr for Origins {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        if list.trim().is_empty() {
            return Ok(Self::default());
        }
        let origins: Vec<_> = list.split(',').map(|entry| origin(entry.trim())).collect::<Result<_, _>>()?;
        if origins.len() > ORIGINS_MAX {
            return Err(format!("{} origins are more than {ORIGINS_MAX}", origins.len()));
        }
        Ok(Self(origins.into()))
    }
}

/// An entry, if it is what a browser would send.
fn origin(entry: &str) -> Result<HeaderValue, String> {
    let wrong = |why: &str| Err(format!("`{entry}` is no origin such as https://app.example: {why}"));
    if entry.contains('*') {
        return wrong("there are no wildcards; name each");
    }
    let Some((scheme, rest)) = entry.split_once("://") else {
        return wrong("it is scheme://host, with :port if need be");
    };
    if !scheme.starts_with(|first: char| first.is_ascii_lowercase())
        || !scheme.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte))
    {
        return wrong("its scheme is not one in lower case");
    }
    if rest.contains(['/', '?', '#', '\\', '@']) {
        return wrong("it ends with the host or port, without a slash");
    }
    let Ok(url) = Url::parse(entry) else { return wrong("it can't be read") };
    let is_as_sent = if matches!(scheme, "http" | "https") {
        url.origin().ascii_serialization() == entry
    } else {
        // Apps that are made of web pages have schemes of their own.
        scheme != "file" && url.as_str() == entry && url.has_host() && rest.bytes().all(is_plain)
    };
    if !is_as_sent || url.host_str().is_some_and(|host| host.ends_with('.')) {
        return wrong("browsers send it in lower case, in ASCII, without the scheme's own port");
    }
    HeaderValue::from_str(entry).or_else(|_| wrong("it can't be a header"))
}

const fn is_plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b':' | b'_')
}

impl Origins {
    /// Refuses a request from a page of a site that isn't in the list. Requests without an Origin, and from pages of the
    /// gateway's own host, come in.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        if !headers.contains_key(header::ORIGIN) || self.allow(headers) || is_own(headers) {
            return Ok(());
        }
        Err(Refusal::forbidden("this Origin is not in the gateway's list of allowed origins"))
    }

    /// Whether there is one Origin, and it is in the list.
    fn allow(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let is_listed = sent.next().is_some_and(|origin| self.0.contains(origin));
        is_listed && sent.next().is_none()
    }

    /// Tells browsers which sites' scripts may send requests and read the answers.
    pub fn cors(&self) -> CorsLayer {
        let origins = self.clone();
        let is_allowed = move |_: &HeaderValue, request: &request::Parts| origins.allow(&request.headers);
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(is_allowed))
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
            .expose_headers([header::RETRY_AFTER])
            .max_age(PREFLIGHT_AGE)
    }
}

/// Whether the one Origin has the one Host that the request is for.
fn is_own(headers: &HeaderMap) -> bool {
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        values.next().filter(|_| values.next().is_none())?.to_str().ok()
    };
    let (Some(origin), Some(host)) = (only(header::ORIGIN), only(header::HOST)) else { return false };
    let site = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    site.is_some_and(|site| !site.is_empty() && site == host)
}

/// Origins that are not `https://app.example` or `http://localhost:8080`, however much they look like it.
#[cfg(test)]
pub const BAD_ORIGINS: [&str; 40] = [
    "",
    " ",
    "null",
    "*",
    "https://app.example/",
    "https://app.example ,https://app.example",
    "https://app.example https://app.example",
    "https://app.example,https://evil.example",
    "https://app.example#",
    "https://app.example?",
    "https://app.example\\",
    "https://app.example/.evil.example",
    "http://app.example",
    "HTTPS://app.example",
    "https://App.example",
    "https://APP.EXAMPLE",
    "https://app.example.",
    "https://app.example.evil.example",
    "https://evil-app.example",
    "https://evil.example/https://app.example",
    "https://evil.example?https://app.example",
    "https://evil.example#https://app.example",
    "https://app.example@evil.example",
    "https://user@app.example",
    "https://user:password@app.example",
    "https://app.example:443",
    "https://app.example:8443",
    "https://app.example:",
    "https://app.example:0443",
    "https://sub.app.example",
    "https://.app.example",
    "https://app.exampl",
    "https://pp.example",
    "https:app.example",
    "//app.example",
    "app.example",
    "wss://app.example",
    "http://localhost",
    "http://localhost:80800",
    "https://xn--app-example.example",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(origins: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for origin in origins {
            headers.append(header::ORIGIN, HeaderValue::from_bytes(origin.as_bytes()).unwrap());
        }
        headers
    }

    #[test]
    fn only_listed_origins_come_in_r6_4() {
        let origins: Origins = "https://app.example, http://localhost:8080".parse().unwrap();
        assert_eq!(origins.check(&HeaderMap::new()), Ok(()));
        for right in ["https://app.example", "http://localhost:8080"] {
            assert_eq!(origins.check(&sent(&[right])), Ok(()));
            assert!(origins.check(&sent(&[right, right])).is_err(), "two are not one");
            assert!(Origins::default().check(&sent(&[right])).is_err());
        }
        for wrong in
            BAD_ORIGINS.into_iter().chain(["https://аpp.example", "https://app。example", "https://app.example\u{a0}"])
        {
            assert!(origins.check(&sent(&[wrong])).is_err(), "{wrong}");
            assert!(origins.check(&sent(&["https://app.example", wrong])).is_err(), "{wrong}");
        }
    }

    #[test]
    fn pages_of_the_gateways_own_host_come_in() {
        let with_host = |origins: &[&str], host: &'static str| {
            let mut headers = sent(origins);
            headers.insert(header::HOST, HeaderValue::from_static(host));
            headers
        };
        let check = |origins: &[&str], host| Origins::default().check(&with_host(origins, host));
        for scheme in ["http", "https"] {
            assert_eq!(check(&[&format!("{scheme}://app.example:8443")], "app.example:8443"), Ok(()));
        }
        for wrong in BAD_ORIGINS {
            assert!(check(&[wrong], "app.example:8444").is_err(), "{wrong}");
        }
        assert!(check(&["https://"], "").is_err());
        assert!(check(&["https://app.example", "https://app.example"], "app.example").is_err());
        let mut two = with_host(&["https://app.example"], "app.example");
        two.append(header::HOST, HeaderValue::from_static("app.example"));
        assert!(Origins::default().check(&two).is_err());
    }

    #[test]
    fn entries_that_no_browser_sends_end_the_start() {
        assert_eq!("".parse(), Ok(Origins::default()));
        for right in [
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
            "capacitor://localhost",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert!(right.parse::<Origins>().is_ok(), "{right}");
        }
        for wrong in [
            "https://app.example/",
            "https://app.example/path",
            "https://app.example?x",
            "https://app.example#x",
            "https://user@app.example",
            "https://app.example:443",
            "http://app.example:80",
            "https://app.example:",
            "https://app.example:99999",
            "https://App.example",
            "HTTPS://app.example",
            "https://bücher.example",
            "https://app.example.",
            "https://*.example",
            "https://app.example,",
            "https://app.example;https://other.example",
            "https://app .example",
            "https:app.example",
            "https://",
            "app.example",
            "*",
            "null",
            "file://",
            "file://host",
            "capacitor://",
            "capacitor://Local",
            "1app://localhost",
        ] {
            let error = wrong.parse::<Origins>().unwrap_err();
            assert!(error.contains("is no origin"), "{wrong}: {error}");
        }
        assert!(vec!["https://app.example"; ORIGINS_MAX + 1].join(",").parse::<Origins>().is_err());
    }
}
