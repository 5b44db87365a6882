//! The PROXY protocol over real sockets: whom a connection counts for, and which connections are closed.

use std::net::{IpAddr, SocketAddr};

use axum::{Router, extract::Path, routing::get};
use chat_shared::{ids::UserId, wire::ErrorCode};
use metrics_exporter_prometheus::PrometheusBuilder;
use proxy_header::{ProxiedAddress, ProxyHeader, Tlv};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{
    edge::{ONE, PATIENT, Raw, SHORT, Stand, TWO, handshake, limited, request},
    gateway::{Gateway, token},
    internal,
    place::until,
};
use crate::edge::{Client, EdgeSettings, ProxyProtocol, Waits};

/// Whose connections the load balancer's are: 127.0.0.9.
const BALANCER: u8 = 9;
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

fn behind_balancer(limit: impl FnOnce(&mut EdgeSettings)) -> EdgeSettings {
    limited(|settings| {
        settings.trusted_proxies = "127.0.0.9, 10.0.0.0/8".parse().unwrap();
        settings.proxy_protocol = ProxyProtocol::Required;
        limit(settings);
    })
}

fn proxied(client: &str) -> ProxiedAddress {
    let client: IpAddr = client.parse().unwrap();
    let to = if client.is_ipv4() { "192.0.2.1:443" } else { "[2001:db8::1]:443" };
    ProxiedAddress::stream(SocketAddr::new(client, 52_953), to.parse().unwrap())
}

fn v1(client: &str) -> Vec<u8> {
    let mut bytes = [0; 200];
    let length = ProxyHeader::with_address(proxied(client)).encode_to_slice_v1(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

/// With a field of so many bytes.
fn v2(client: &str, field_bytes: usize) -> Vec<u8> {
    let field = Tlv::Custom(0xe0, vec![0; field_bytes].into());
    let mut bytes = vec![0; 100 + field_bytes];
    let header = ProxyHeader::with_tlvs(Some(proxied(client)), [field]);
    let length = header.encode_to_slice_v2(&mut bytes).unwrap();
    bytes[..length].to_vec()
}

/// A stand whose `/is/{address}` says whether that is the client's.
async fn stand(settings: EdgeSettings, waits: Waits) -> Stand {
    let is = async |client: Client, Path(address): Path<IpAddr>| (client.address == address.into()).to_string();
    Stand::before(Router::new().route("/is/{address}", get(is)), settings, waits).await
}

/// A connection from the balancer that begins with a header.
async fn open(to: SocketAddr, header: &[u8]) -> Raw {
    let mut raw = Raw::connect(to, BALANCER).await;
    raw.0.write_all(header).await.unwrap();
    raw
}

#[tokio::test]
async fn a_header_of_either_version_names_the_client_of_all_requests_of_a_connection() {
    let stand = stand(behind_balancer(|_| ()), PATIENT).await;
    let balancer = "127.0.0.9";
    for (header, forwarded, client) in [
        (v1("198.51.100.7"), "", "198.51.100.7"),
        (v1("2001:db8::7"), "", "2001:db8::7"),
        (v2("198.51.100.7", 0), "", "198.51.100.7"),
        (v2("2001:db8::7", 0), "", "2001:db8::7"),
        (v2("198.51.100.7", 4000), "", "198.51.100.7"),
        (v1("::ffff:198.51.100.7"), "", "198.51.100.7"),
        // The balancer itself, or a client that it does not know.
        (LOCAL.to_vec(), "", balancer),
        (UNKNOWN.to_vec(), "", balancer),
        // A client's own `X-Forwarded-For`, and that of a proxy in front of the balancer.
        (v1("198.51.100.7"), "X-Forwarded-For: 203.0.113.1\r\n", "198.51.100.7"),
        (LOCAL.to_vec(), "X-Forwarded-For: 203.0.113.1\r\n", balancer),
        (UNKNOWN.to_vec(), "X-Forwarded-For: 203.0.113.1\r\n", balancer),
        (v2("10.1.1.1", 0), "X-Forwarded-For: 203.0.113.2, 203.0.113.1\r\n", "203.0.113.1"),
    ] {
        let asked = request(&format!("/is/{client}"), forwarded);
        let mut whole = open(stand.address, &[&header[..], asked.as_bytes()].concat()).await;
        assert_eq!(whole.answer().await.body, "true", "{client} {forwarded}");
        whole.say(&asked).await;
        assert_eq!(whole.answer().await.body, "true", "{client} {forwarded}");
        let mut pieces = open(stand.address, b"").await;
        pieces.0.set_nodelay(true).unwrap();
        for piece in header.chunks(header.len().div_ceil(60)) {
            pieces.0.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        pieces.say(&asked).await;
        assert_eq!(pieces.answer().await.body, "true", "{client} {forwarded}");
    }
}

#[tokio::test]
async fn a_connection_without_an_acceptable_header_is_closed_unanswered_and_counted() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let counted = |reason: &str| {
        let line = format!("chat_gateway_edge_refused_total{{reason=\"{reason}\"}} ");
        let found = recorder.handle().render().lines().find_map(|text| text.strip_prefix(&line)?.parse().ok());
        found.unwrap_or(0)
    };
    let stand = stand(behind_balancer(|_| ()), PATIENT).await;
    let asked = request("/", "");
    let mut untrusted = Raw::connect(stand.address, 1).await;
    // It may be closed before all is written.
    let _closed = untrusted.0.write_all(&[&v1("198.51.100.7")[..], asked.as_bytes()].concat()).await;
    untrusted.until_closed().await;
    assert_eq!((counted("proxy_untrusted"), counted("proxy_header")), (1, 0));
    let [too_large, cut_off] = [v2("198.51.100.7", 5000), v1("198.51.100.7")[..20].to_vec()];
    let wrong =
        [asked.as_bytes(), b"PROXY TCP4 198.51.100.7 nowhere 1 2\r\n", &too_large, b"\x16\x03\x01\x02", &cut_off];
    for (number, bytes) in (1..).zip(wrong) {
        let mut raw = Raw::connect(stand.address, BALANCER).await;
        let _closed = raw.0.write_all(bytes).await;
        let _closed = raw.0.shutdown().await;
        raw.until_closed().await;
        assert_eq!(counted("proxy_header"), number, "{}", bytes.escape_ascii());
    }
    // A check of the balancer that only connects.
    drop(open(stand.address, b"").await);
    until("giving the places back", async || stand.edge.door.admission.open() == 0).await;
    assert_eq!((counted("proxy_untrusted"), counted("proxy_header"), counted("proxy_late")), (1, 5, 0));
    let impatient = self::stand(behind_balancer(|_| ()), Waits { head_max: SHORT, ..PATIENT }).await;
    open(impatient.address, b"").await.until_closed().await;
    open(impatient.address, &v2("198.51.100.7", 100)[..60]).await.until_closed().await;
    assert_eq!(counted("proxy_late"), 2);
    // The head of the request has no time of its own.
    open(impatient.address, &v1("198.51.100.7")).await.until_closed().await;
    until("giving the places back", async || impatient.edge.door.admission.open() == 0).await;
}

#[tokio::test]
async fn until_its_header_has_come_a_connection_counts_among_all_and_for_no_address() {
    let settings = behind_balancer(|settings| {
        settings.connections_per_address_max = ONE;
        settings.connections_max = TWO.saturating_add(1);
    });
    let stand = stand(settings, PATIENT).await;
    let mut waiting =
        [open(stand.address, b"").await, open(stand.address, b"PROXY ").await, open(stand.address, b"").await];
    until("counting", async || stand.edge.door.admission.open() == 3).await;
    let mut more = open(stand.address, &v1("198.51.100.7")).await;
    assert_eq!(more.answer().await.refusal(), (503, ErrorCode::Unavailable));
    let clients = [v1("198.51.100.7"), b"UNKNOWN\r\n".to_vec(), v1("198.51.100.8")];
    for (raw, header) in waiting.iter_mut().zip(clients) {
        raw.0.write_all(&header).await.unwrap();
        raw.say(&request("/", "")).await;
        assert_eq!(raw.answer().await.status(), 200);
    }
    let [silent, ..] = waiting;
    stand.tasks.draining().cancel();
    silent.until_closed().await;
}

#[tokio::test]
async fn two_clients_of_one_balancer_are_counted_apart() {
    let settings = behind_balancer(|settings| settings.connections_per_address_max = TWO);
    let few = stand(settings, PATIENT).await;
    let connect = async |client: &str| {
        let mut raw = open(few.address, &v2(client, 0)).await;
        raw.say(&request("/", "")).await;
        (raw.answer().await, raw)
    };
    let (first, second) = (connect("198.51.100.7").await, connect("198.51.100.7").await);
    assert_eq!((first.0.status(), second.0.status()), (200, 200));
    assert_eq!(connect("198.51.100.7").await.0.refusal(), (503, ErrorCode::Unavailable));
    assert_eq!(connect("198.51.100.8").await.0.status(), 200, "another client has places of its own");
    drop(first);
    until("having room again", async || connect("198.51.100.7").await.0.status() == 200).await;

    let slow = stand(behind_balancer(|settings| settings.requests_per_address_max = ONE), PATIENT).await;
    let ask = async |client: &str| {
        let mut raw = open(slow.address, &v1(client)).await;
        raw.say(&request("/", "")).await;
        raw.answer().await.status()
    };
    until("refusing who asks too much", async || ask("2001:db8::7").await == 429).await;
    assert_eq!(ask("2001:db8:0:1::7").await, 200, "another client has a rate of its own");
}

#[tokio::test]
async fn where_it_is_off_a_header_is_a_bad_request_from_any_network() {
    let stand = stand(behind_balancer(|settings| settings.proxy_protocol = ProxyProtocol::Off), PATIENT).await;
    for header in [v1("198.51.100.7"), v2("198.51.100.7", 0), LOCAL.to_vec()] {
        for host in [1, BALANCER] {
            let mut raw = Raw::connect(stand.address, host).await;
            raw.0.write_all(&[&header[..], request("/", "").as_bytes()].concat()).await.unwrap();
            assert_eq!(raw.answer().await.status(), 400, "{}", header.escape_ascii());
        }
    }
}

#[tokio::test]
async fn sockets_and_rest_of_a_gateway_behind_a_balancer_count_for_their_client() {
    let gateway =
        Gateway::behind(behind_balancer(|settings| settings.connections_per_address_max = ONE), PATIENT).await;
    let user = token(UserId::random(), &json!({}));
    let rest = request("/v1/conversations", &format!("Authorization: Bearer {user}\r\n"));
    let socket = async |client: &str| {
        let mut raw = open(gateway.address, &v2(client, 0)).await;
        raw.say(&handshake("")).await;
        (raw.answer().await.status(), raw)
    };
    let ask = async |client: &str| {
        let mut raw = open(gateway.address, &v1(client)).await;
        raw.say(&rest).await;
        raw.answer().await.status()
    };
    let first = socket("198.51.100.7").await;
    assert_eq!(first.0, 101);
    assert_eq!((socket("198.51.100.7").await.0, ask("198.51.100.7").await), (503, 503));
    assert_eq!((ask("198.51.100.8").await, socket("198.51.100.9").await.0), (200, 101));
    drop(first);
    until("having room again", async || ask("198.51.100.7").await == 200).await;
}

#[tokio::test]
async fn the_port_of_other_services_has_a_setting_of_its_own() {
    let gateway = Gateway::start().await;
    let (proxies, required) = ("127.0.0.9".parse().unwrap(), ProxyProtocol::Required);
    let address = internal::serve_behind(&gateway, None, None, proxies, required).await;
    let asked = request("/.well-known/jwks.json", "");
    let mut named = open(address, &v2("10.1.1.1", 0)).await;
    named.say(&asked).await;
    assert_eq!(named.answer().await.status(), 200);
    open(address, asked.as_bytes()).await.until_closed().await;
    let mut clients = Raw::connect(gateway.address, BALANCER).await;
    clients.say(&request("/v1/unread", "")).await;
    assert_eq!(clients.answer().await.status(), 401, "the clients' port takes none");
}
