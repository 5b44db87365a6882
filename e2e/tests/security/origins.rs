//! Pages of other sites: their Origin keeps them out, of `WebSocket`s and of what REST answers.

use anyhow::Result;
use chat_e2e::{http, on_shared_fleet};

/// Origins that are not `http://127.0.0.1:PORT`, however much they look like it.
fn bad_origins(port: &str) -> Vec<String> {
    let own = format!("http://127.0.0.1:{port}");
    let made_of_it = [
        "{own}/",
        "{own}/v1",
        "{own}?",
        "{own}#",
        "{own}.",
        "{own}0",
        "{own}.evil.example",
        "{own}@evil.example",
        "{own}, {own}",
        "{own} https://evil.example",
        "\"{own}\"",
        "{own}\\",
        "{own}%00",
    ];
    let like_it = [
        "ws://127.0.0.1:{port}",
        "HTTP://127.0.0.1:{port}",
        "http:/127.0.0.1:{port}",
        "http:127.0.0.1:{port}",
        "//127.0.0.1:{port}",
        "127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:",
        "http://127.0.0.1:80",
        "http://127.0.0.1.:{port}",
        "http://127.1:{port}",
        "http://2130706433:{port}",
        "http://0x7f.0.0.1:{port}",
        "http://localhost:{port}",
        "http://[::1]:{port}",
        "http://[::ffff:127.0.0.1]:{port}",
        "http://me@127.0.0.1:{port}",
        "http://me:secret@127.0.0.1:{port}",
        "http://evil.example:{port}",
        "http://evil127.0.0.1:{port}",
        "http://127.0.0.1:{port}evil.example",
    ];
    let others = [
        "",
        "null",
        "*",
        "https://evil.example",
        "file://",
        "data:",
        "chrome-extension://abc",
        "https://xn--pp-gia.example",
    ];
    let made_of_it = made_of_it.iter().map(|text| text.replace("{own}", &own));
    let like_it = like_it.iter().map(|text| text.replace("{port}", port));
    made_of_it.chain(like_it).chain(others.iter().map(|&text| text.to_owned())).collect()
}

#[test]
fn r6_4_pages_of_other_origins_open_no_websocket() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let (authorization, as_page) =
            (format!("Bearer {}", person.token), format!("chat.v1.json, bearer.{}", person.token));
        let (address, own) = (fleet.gateway(0).address(), fleet.gateway(0).url());
        let shake = async |origins: &[&str]| {
            let mut headers = vec![("Sec-WebSocket-Protocol", as_page.as_str())];
            headers.extend(origins.iter().map(|origin| ("Origin", *origin)));
            anyhow::Ok(http::shake_hands(&address, &headers).await?.code())
        };
        assert_eq!(shake(&[&own]).await?, "101");
        assert_eq!(shake(&[]).await?, "101", "what is no browser sends none");
        let bad = bad_origins(address.rsplit(':').next().unwrap_or_default());
        assert!(bad.len() >= 30, "{}", bad.len());
        for origin in &bad {
            assert_eq!(shake(&[origin]).await?, "403 forbidden", "{origin}");
        }
        assert_eq!(shake(&[&own, "https://evil.example"]).await?, "403 forbidden", "one of two is not enough");
        let as_app = [
            ("Authorization", authorization.as_str()),
            ("Sec-WebSocket-Protocol", "chat.v1.json"),
            ("Origin", "https://evil.example"),
        ];
        assert_eq!(http::shake_hands(&address, &as_app).await?.code(), "101", "apps send any, and no page this header");
        Ok(())
    })
}

#[test]
fn r6_4_pages_of_other_origins_read_no_answer() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let own = fleet.gateway(0).url();
        let client = reqwest::Client::new();
        let port = fleet.gateway(0).address().rsplit(':').next().unwrap_or_default().to_owned();
        let allowed = async |origin: &str| {
            let url = format!("{own}/v1/unread");
            let asked = client.get(&url).bearer_auth(&person.token).header("Origin", origin).send().await?;
            let preflight = client
                .request(reqwest::Method::OPTIONS, &url)
                .header("Origin", origin)
                .header("Access-Control-Request-Method", "GET")
                .header("Access-Control-Request-Headers", "authorization")
                .send()
                .await?;
            let of = |answer: &reqwest::Response| {
                let header = answer.headers().get("access-control-allow-origin");
                header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            anyhow::Ok([of(&asked), of(&preflight)])
        };
        assert_eq!(allowed(&own).await?, [Some(own.clone()), Some(own.clone())]);
        for origin in bad_origins(&port) {
            assert_eq!(allowed(&origin).await?, [None, None], "{origin}");
        }
        Ok(())
    })
}
