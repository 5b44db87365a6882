//! Bodies and queries that are nearly right, and lists where maps belong.

use axum::{
    body::Body as Bytes,
    extract::{FromRequest, FromRequestParts, Request},
};
use chat_shared::{
    limits,
    position::Seq,
    wire::{
        AddParticipants, CreateConversation, ErrorCode, MarkReadBody, Mute, NotificationAddress, RegisterDevice,
        SendMessageBody,
    },
};
use futures_util::FutureExt;
use proptest::{collection::vec, option, prelude::*};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    extract::{Body, InQuery},
    messages::HistoryQuery,
};
use crate::{
    refusal::Refusal,
    tests::mutation::{id, mutated, numbers, texts},
};

/// What a body says; nothing that it waits for is ever missing.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let request = Request::post("/").header("content-type", "application/json").body(Bytes::from(body.to_vec()));
    let Body(value) = Body::from_request(request.unwrap(), &()).now_or_never().expect("the body is there")?;
    Ok(value)
}

fn is_invalid<T: DeserializeOwned>(body: &Value) -> bool {
    matches!(read::<T>(body.to_string().as_bytes()), Err(Refusal { code: ErrorCode::Invalid, .. }))
}

/// One of each body that a client sends.
fn bodies() -> impl Strategy<Value = Vec<Value>> {
    let value = |value: Result<Value, serde_json::Error>| value.unwrap();
    let address = (texts(), texts(), texts(), 0..4).prop_map(|(token, p256dh, auth, platform)| match platform {
        0 => NotificationAddress::Fcm { token },
        1 => NotificationAddress::Apns { token },
        2 => NotificationAddress::Webhook { token },
        _ => NotificationAddress::WebPush { endpoint: token, p256dh, auth },
    });
    let device = (address, texts(), option::of(texts())).prop_map(|(address, app_id, locale)| RegisterDevice {
        address,
        app_id,
        locale,
    });
    (id(), vec(id(), 0..4), id(), texts(), any::<bool>(), device).prop_map(
        move |(user_id, user_ids, message_id, text, is_repeat, device)| {
            vec![
                value(serde_json::to_value(CreateConversation::Direct { user_id })),
                value(serde_json::to_value(CreateConversation::Group { user_ids: user_ids.clone() })),
                value(serde_json::to_value(AddParticipants { user_ids })),
                value(serde_json::to_value(SendMessageBody { message_id, text, is_repeat, seen_seq: Some(Seq(1)) })),
                value(serde_json::to_value(MarkReadBody { message_id, seq: Some(Seq(1)) })),
                value(serde_json::to_value(Mute::ForGood)),
                value(serde_json::to_value(device)),
            ]
        },
    )
}

proptest! {
    #[test]
    fn a_list_of_a_bodys_fields_is_no_body(bodies in bodies()) {
        for body in bodies {
            let values: Vec<Value> = body.as_object().unwrap().values().cloned().collect();
            let tagged = Value::from(vec![values.first().cloned().unwrap_or_default(), body]);
            for list in [Value::from(values), tagged] {
                prop_assert!(is_invalid::<CreateConversation>(&list), "{list}");
                prop_assert!(is_invalid::<AddParticipants>(&list), "{list}");
                prop_assert!(is_invalid::<SendMessageBody>(&list), "{list}");
                prop_assert!(is_invalid::<MarkReadBody>(&list), "{list}");
                prop_assert!(is_invalid::<Mute>(&list), "{list}");
                prop_assert!(is_invalid::<RegisterDevice>(&list), "{list}");
            }
        }
    }

    #[test]
    fn a_changed_body_is_read_or_invalid(
        body in mutated((bodies(), any::<prop::sample::Index>()).prop_map(|(bodies, which)| which.get(&bodies).to_string().into_bytes()))
    ) {
        let refusals = [
            read::<CreateConversation>(&body).err(),
            read::<AddParticipants>(&body).err(),
            read::<SendMessageBody>(&body).err(),
            read::<MarkReadBody>(&body).err(),
            read::<Mute>(&body).err(),
            read::<RegisterDevice>(&body).err(),
        ];
        for refusal in refusals.into_iter().flatten() {
            prop_assert_eq!(refusal.code, ErrorCode::Invalid);
        }
    }

    #[test]
    fn a_query_of_history_is_a_bounded_page_or_invalid(
        names in vec(prop_oneof![Just("before"), Just("after"), Just("limit"), Just("colour")], 0..4),
        values in vec(prop_oneof![numbers().prop_map(|number| number.to_string()), "[0-9]{0,30}", "[-+0-9.e%]{0,8}", texts()], 4)
    ) {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(names.iter().zip(&values));
        let request = Request::get(format!("/?{}", query.finish())).body(()).unwrap();
        let mut parts = request.into_parts().0;
        let read = InQuery::<HistoryQuery>::from_request_parts(&mut parts, &()).now_or_never().expect("it is all there");
        match read.and_then(|InQuery(query)| Ok((query.place()?, query.limit.0))) {
            Ok((_, limit)) => prop_assert!((1..=limits::PAGE_ROWS_MAX).contains(&limit)),
            Err(refusal) => prop_assert_eq!(refusal.code, ErrorCode::Invalid),
        }
    }
}

#[test]
fn a_body_that_says_nothing_mutes_nothing() {
    for nothing in [serde_json::json!([]), serde_json::json!({}), serde_json::json!({ "until": null, "colour": [] })] {
        assert!(is_invalid::<Mute>(&nothing), "{nothing}");
    }
    assert!(read::<Mute>(b" {\"for_good\":true,\"until\":null,\"colour\":[]} ").is_ok());
}
