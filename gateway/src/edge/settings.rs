//! What the edge lets in.

use clap::Args;

use super::{Origins, ProxyProtocol, TrustedProxies};

/// Bounds for those who connect, and where they may come from.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Edge")]
pub struct EdgeSettings {
    /// Origins that browsers may connect from, separated by commas, such as `https://app.example`.
    ///
    /// Compared exactly, for each WebSocket and for REST (CORS). Requests without an Origin, which no browser sends across sites,
    /// are not concerned. Without it no page of another site reaches this gateway.
    #[arg(long, env = "CHAT_ALLOWED_ORIGINS", default_value = "", value_name = "ORIGINS")]
    pub allowed_origins: Origins,
    /// Networks of the proxies before this gateway, separated by commas, such as `10.0.0.0/8`.
    ///
    /// Only from them are `X-Forwarded-For` and PROXY headers accepted. Without it every limit for an address counts the proxy
    /// as one client.
    #[arg(long, env = "CHAT_TRUSTED_PROXIES", default_value = "", value_name = "NETWORKS")]
    pub trusted_proxies: TrustedProxies,
    /// Whether connections to `CHAT_LISTEN` begin with a PROXY header, of version 1 or 2, that names the client's address.
    ///
    /// `required` behind a load balancer that passes TCP on and sends the header. Then a connection without one, or from a
    /// network that is not in `CHAT_TRUSTED_PROXIES`, is closed. With `off` a header is a bad request.
    #[arg(long, env = "CHAT_PROXY_PROTOCOL", value_enum, default_value_t = ProxyProtocol::Off, value_name = "MODE")]
    pub proxy_protocol: ProxyProtocol,
    /// Requests a second from one address, handshakes included; five times as many at once.
    ///
    /// Over it 429 with a Retry-After, before anything of the request is looked at. Many users may share an address. After a
    /// tenth as many tokens that are no good, none from there is looked at for five seconds.
    #[arg(long, env = "CHAT_REQUESTS_PER_ADDRESS_MAX", default_value = "200", value_name = "REQUESTS/S")]
    pub requests_per_address_max: std::num::NonZeroU32,
    /// Open connections from one address.
    ///
    /// One more is refused with 503. Many users may share an address; a proxy that isn't trusted counts as one.
    #[arg(long, env = "CHAT_CONNECTIONS_PER_ADDRESS_MAX", default_value = "1000", value_name = "CONNECTIONS")]
    pub connections_per_address_max: std::num::NonZeroU32,
    /// Open connections in all.
    ///
    /// One more is refused with 503. An idle one takes about 5 KB and one file descriptor, of which the process needs some more.
    #[arg(long, env = "CHAT_CONNECTIONS_MAX", default_value = "50000", value_name = "CONNECTIONS")]
    pub connections_max: std::num::NonZeroU32,
    /// WebSocket handshakes a second.
    ///
    /// One more gets 503 with a Retry-After; so a storm of reconnections comes in at a rate that this gateway can serve.
    #[arg(long, env = "CHAT_HANDSHAKES_PER_SECOND_MAX", default_value = "1000", value_name = "HANDSHAKES/S")]
    pub handshakes_per_second_max: std::num::NonZeroU32,
}
