//! Devices that are registered for notifications.

use chat_shared::{
    ids::{DeviceId, UserId},
    limits,
    sealing::{MasterKey, MasterKeys},
    wire::{Device, DeviceList, ErrorCode, NotificationAddress, Platform, RegisterDevice},
};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    gateway::Gateway,
    place::{Place, master_key, users},
};

fn webhook(token: &str) -> RegisterDevice {
    let address = NotificationAddress::Webhook { token: token.to_owned() };
    RegisterDevice { address, app_id: "com.example.chat".to_owned(), locale: None }
}

async fn listed(place: &Place, user_id: UserId) -> Vec<DeviceId> {
    let list = place.devices().list(user_id).await.unwrap();
    list.devices.into_iter().map(|device| device.device_id).collect()
}

#[tokio::test]
async fn a_device_is_registered_shown_without_its_token_changed_and_removed_r5_3() {
    let (gateway, ana, device_id) = (Gateway::start().await, UserId::random(), DeviceId::random());
    let path = format!("/v1/devices/{}", device_id.as_uuid());
    let token = "c".repeat(64);
    let apns = json!({ "platform": "apns", "token": token, "app_id": "com.example.chat", "locale": "ne-NP" });
    let (status, body) = gateway.ask(ana, Method::PUT, &path, Some(apns)).await;
    assert_eq!(status, StatusCode::OK);
    let device: Device = serde_json::from_value(body.clone()).unwrap();
    assert_eq!(
        (device.device_id, device.platform, device.locale.as_deref()),
        (device_id, Platform::Apns, Some("ne-NP"))
    );
    let (_, list) = gateway.ask(ana, Method::GET, "/v1/devices", None).await;
    assert_eq!(serde_json::from_value::<DeviceList>(list.clone()).unwrap().devices, [device]);
    assert!(!format!("{body}{list}").contains(&token));

    let web_push = json!({
        "platform": "web_push", "app_id": "web",
        "endpoint": "http://127.0.0.1:9/send/1",
        "p256dh": "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        "auth": "BTBZMqHH6r4Tts7J_aSIgg",
    });
    let (status, _) = gateway.ask(ana, Method::PUT, &path, Some(web_push)).await;
    assert_eq!(status, StatusCode::OK);
    let list = gateway.place.devices().list(ana).await.unwrap().devices;
    assert_eq!((list.len(), list[0].platform, &list[0].locale), (1, Platform::WebPush, &None));
    for _ in 0..2 {
        let (status, body) = gateway.ask(ana, Method::DELETE, &path, None).await;
        assert_eq!((status, body), (StatusCode::NO_CONTENT, Value::Null));
    }
    assert!(listed(&gateway.place, ana).await.is_empty());
}

#[tokio::test]
async fn an_address_is_kept_sealed_and_opens_for_its_device_alone() {
    let (place, [ana, ben], device_id) = (Place::new().await, users(), DeviceId::random());
    place.devices().register(ana, device_id, webhook("a secret token".replace(' ', "-").as_str())).await.unwrap();
    let kept = sqlx::query_scalar!("select address from notification_devices").fetch_one(&place.pool).await.unwrap();
    assert!(!kept.windows(6).any(|part| part == b"secret"));
    let (master_key, address) = (master_key(), NotificationAddress::Webhook { token: "a-secret-token".to_owned() });
    let opened = master_key.addresses().open(ana, device_id, &kept).unwrap();
    assert_eq!(serde_json::from_slice::<NotificationAddress>(&opened).unwrap(), address);
    assert!(master_key.addresses().open(ben, device_id, &kept).is_err());
}

#[tokio::test]
async fn a_token_belongs_to_whoever_registered_it_last_r5_3() {
    let (place, [ana, ben]) = (Place::new().await, users());
    let [phone, tablet, other] = std::array::from_fn(|_| DeviceId::random());
    let devices = place.devices();
    devices.register(ana, phone, webhook("1")).await.unwrap();
    devices.register(ana, tablet, webhook("2")).await.unwrap();
    devices.register(ben, phone, webhook("1")).await.unwrap();
    assert_eq!((listed(&place, ana).await, listed(&place, ben).await), (vec![tablet], vec![phone]));
    devices.register(ana, other, webhook("2")).await.unwrap();
    assert_eq!(listed(&place, ana).await, [other], "a new installation on the same device");
    devices.register(ana, other, webhook("1")).await.unwrap();
    assert_eq!((listed(&place, ana).await, listed(&place, ben).await), (vec![other], vec![]));

    // However many at once, each ends in one place.
    let many: [UserId; 12] = users();
    let tokens = ["3", "4", "5"];
    let registering = many
        .iter()
        .zip(tokens.iter().cycle())
        .map(async |(user_id, token)| devices.register(*user_id, phone, webhook(token)).await);
    let outcomes = join_all(registering).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    let mut holders = 0;
    for user_id in many {
        holders += listed(&place, user_id).await.len();
    }
    assert_eq!(holders, tokens.len());
}

#[tokio::test]
async fn a_token_belongs_to_whoever_registered_it_last_also_while_the_master_key_is_exchanged_r1_5() {
    let (place, [ana, ben, cai]) = (Place::new().await, users());
    let [phone, other, tablet] = std::array::from_fn(|_| DeviceId::random());
    let new = || MasterKey::parse("AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=").unwrap();
    let both = |current, old| place.devices_with(MasterKeys::new(current, Some(old)).unwrap());
    place.devices().register(ana, phone, webhook("1")).await.unwrap();
    // Some gateways have the new key already, others know it and still seal with the old one.
    both(new(), master_key()).register(ben, other, webhook("1")).await.unwrap();
    assert_eq!((listed(&place, ana).await, listed(&place, ben).await), (vec![], vec![other]));
    both(master_key(), new()).register(cai, tablet, webhook("1")).await.unwrap();
    assert_eq!((listed(&place, ben).await, listed(&place, cai).await), (vec![], vec![tablet]));
}

#[tokio::test]
async fn of_too_many_devices_the_one_registered_first_goes() {
    let (place, ana) = (Place::new().await, UserId::random());
    let all: Vec<_> = (0..=limits::NOTIFICATION_DEVICES_MAX).map(|_| DeviceId::random()).collect();
    let (last, before) = all.split_last().unwrap();
    for (number, device_id) in before.iter().enumerate() {
        place.devices().register(ana, *device_id, webhook(&number.to_string())).await.unwrap();
        sqlx::query!(
            "update notification_devices set registered_at = registered_at - interval '1 hour' where user_id = $1",
            ana.as_uuid()
        )
        .execute(&place.pool)
        .await
        .unwrap();
    }
    assert_eq!(listed(&place, ana).await, before);
    place.devices().register(ana, before[0], webhook("0")).await.unwrap();
    place.devices().register(ana, *last, webhook("new")).await.unwrap();
    let left: Vec<_> = before[2..].iter().chain([&before[0], last]).copied().collect();
    let mut found = listed(&place, ana).await;
    assert_eq!(found.len(), limits::NOTIFICATION_DEVICES_MAX);
    found.truncate(left.len() - 2);
    assert_eq!(found, left[..left.len() - 2], "the second was the oldest, since the first had come again");
}

#[tokio::test]
async fn broken_registrations_are_refused_and_keep_nothing() {
    let (gateway, ana) = (Gateway::start().await, UserId::random());
    let path = format!("/v1/devices/{}", DeviceId::random().as_uuid());
    let put = |path: &str, body: Value| gateway.request(ana, Method::PUT, path).json(&body);
    for body in [
        json!({}),
        json!({ "platform": "pager", "token": "1", "app_id": "a" }),
        json!({ "platform": "fcm", "token": "short", "app_id": "a" }),
        json!({ "platform": "fcm", "app_id": "a" }),
        json!({ "platform": "apns", "token": "not hexadecimal", "app_id": "a" }),
        json!({ "platform": "webhook", "token": "1" }),
        json!({ "platform": "webhook", "token": "1", "app_id": "a b" }),
        json!({ "platform": "webhook", "token": "1", "app_id": "a", "locale": "en_US" }),
        json!({ "platform": "web_push", "endpoint": "https://10.0.0.1/", "p256dh": "", "auth": "", "app_id": "a" }),
    ] {
        assert_eq!(gateway.refused(put(&path, body.clone())).await, (400, ErrorCode::Invalid), "{body}");
    }
    let nameless = put("/v1/devices/phone", json!({ "platform": "webhook", "token": "1", "app_id": "a" }));
    assert_eq!(gateway.refused(nameless).await, (400, ErrorCode::Invalid));
    assert!(listed(&gateway.place, ana).await.is_empty());
}
