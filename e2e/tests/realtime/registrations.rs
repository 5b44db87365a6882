//! Broken tokens, broken subscriptions, and addresses that lead where nothing may be sent.

use anyhow::Result;
use chat_e2e::{Api, on_shared_fleet};
use chat_shared::{ids::DeviceId, wire::DeviceList};
use serde_json::{Value, json};

/// A point of the curve, and 16 bytes.
const P256DH: &str = "BNcRdreALRFXTkOOUHK1EtK2wtaz5Ry4YfYCA_0QTpQtUbVlUls0VJXg7A8u-Ts1XbjhazAkj7I99e8QcYP7DkM";
const AUTH: &str = "tBHItJI5svbpez7KI4CCXg";

async fn register(api: &Api, device: &Value) -> Result<String> {
    Ok(api.put(&format!("devices/{}", DeviceId::random().as_uuid()), device).await?.code())
}

/// A registration with one field changed, or removed if it is null.
fn with(mut device: Value, field: &str, value: Value) -> Value {
    if value.is_null() {
        device.as_object_mut().map(|fields| fields.remove(field));
    } else {
        device[field] = value;
    }
    device
}

fn fcm() -> Value {
    json!({ "platform": "fcm", "token": "f".repeat(64), "app_id": "com.example.chat", "locale": "ne-NP" })
}

fn apns() -> Value {
    json!({ "platform": "apns", "token": "0a".repeat(32), "app_id": "com.example.chat" })
}

fn web_push() -> Value {
    let endpoint = "https://updates.push.services.mozilla.com/wpush/v2/gAAAAAB";
    json!({ "platform": "web_push", "endpoint": endpoint, "p256dh": P256DH, "auth": AUTH, "app_id": "chat.example.org" })
}

#[test]
fn broken_tokens_and_subscriptions_are_refused_when_they_are_registered() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let api = fleet.api(&person, 0);
        let webhook = json!({ "platform": "webhook", "token": "device-4711", "app_id": "com.example.chat" });
        for right in [fcm(), apns(), web_push(), webhook.clone()] {
            assert_eq!(register(&api, &right).await?, "200", "{right}");
        }
        let broken = [
            with(fcm(), "platform", json!("pager")),
            with(fcm(), "platform", Value::Null),
            with(fcm(), "token", Value::Null),
            with(fcm(), "token", json!("")),
            with(fcm(), "token", json!("with a space in between, and long enough")),
            with(fcm(), "token", json!("x".repeat(4097))),
            with(fcm(), "app_id", Value::Null),
            with(fcm(), "app_id", json!("")),
            with(fcm(), "app_id", json!("com/example")),
            with(fcm(), "app_id", json!("x".repeat(256))),
            with(fcm(), "locale", json!("not a language")),
            with(apns(), "token", json!("0a")),
            with(apns(), "token", json!("zz".repeat(32))),
            with(apns(), "token", json!("0a".repeat(101))),
            with(webhook.clone(), "token", json!("")),
            with(webhook, "token", json!("x".repeat(1025))),
            with(web_push(), "endpoint", Value::Null),
            with(web_push(), "p256dh", json!("AAAA")),
            with(web_push(), "p256dh", json!(P256DH.replace('B', "C"))),
            with(web_push(), "p256dh", json!("not base64!")),
            with(web_push(), "auth", json!("AAAA")),
            with(web_push(), "auth", Value::Null),
        ];
        for device in broken {
            assert_eq!(register(&api, &device).await?, "400 invalid", "{device}");
        }
        let list: DeviceList = api.get("devices").await?.ok()?;
        assert_eq!(list.devices.len(), 4, "what was refused is not kept");
        assert_eq!(api.put("devices/no-id", &fcm()).await?.code(), "400 invalid");
        let nobody = Api::new(fleet.gateway(0).url(), None);
        assert_eq!(register(&nobody, &fcm()).await?, "401 unauthenticated");
        Ok(())
    })
}

#[test]
fn addresses_into_private_networks_are_refused_when_they_are_registered() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let api = fleet.api(&person, 1);
        for endpoint in [
            "http://push.example.com/x",
            "ftp://push.example.com/x",
            "not a URL",
            "https://",
            "https://user:secret@push.example.com/x",
            "https://push.example.com:8443/x",
            "https://10.0.0.1/x",
            "https://172.16.4.4/x",
            "https://192.168.1.1/x",
            "https://169.254.169.254/latest/meta-data",
            "https://100.64.0.1/x",
            "https://0.0.0.0/x",
            "https://224.0.0.1/x",
            "https://0xa000001/x",
            "https://167772161/x",
            "https://[fe80::1]/x",
            "https://[fc00::1]/x",
            "https://[::ffff:10.0.0.1]/x",
            "https://[::ffff:a9fe:a9fe]/x",
            "https://[64:ff9b::10.0.0.1]/x",
            "https://[2002:0a00:0001::1]/x",
            "https://[::]/x",
        ] {
            let device = with(web_push(), "endpoint", json!(endpoint));
            assert_eq!(register(&api, &device).await?, "400 invalid", "{endpoint}");
        }
        let long = format!("https://push.example.com/{}", "x".repeat(2048));
        assert_eq!(register(&api, &with(web_push(), "endpoint", json!(long))).await?, "400 invalid");
        let list: DeviceList = api.get("devices").await?.ok()?;
        assert_eq!(list.devices, []);
        Ok(())
    })
}

#[test]
fn the_twenty_first_device_takes_the_place_of_the_first() -> Result<()> {
    on_shared_fleet(async |fleet| {
        let person = fleet.person()?;
        let api = fleet.api(&person, 0);
        let mut ids = Vec::new();
        for number in 0..21 {
            let device_id = DeviceId::random();
            let device = with(fcm(), "token", json!(format!("{number:0>40}-{}", device_id.as_uuid())));
            assert_eq!(api.put(&format!("devices/{}", device_id.as_uuid()), &device).await?.status, 200);
            ids.push(device_id);
        }
        let list: DeviceList = api.get("devices").await?.ok()?;
        assert_eq!(list.devices.iter().map(|device| device.device_id).collect::<Vec<_>>(), ids[1..]);
        Ok(())
    })
}
