//! Each provider against its stand-in, which verifies what the real one verifies.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use chat_dev::push_services::{APP_IDS, Behaviour, PushPorts, PushServices, Received};
use chat_shared::{
    clock::{Clock, Timestamp},
    ids::BusinessId,
    wire::{NotificationAddress, Platform},
};
use clap::Parser;
use futures_util::future::join_all;

use super::{
    Notification, ProviderSettings, Providers, Recipient, Verdict,
    notification::tests::{largest, of_badge, of_message, of_waiting},
};

const APP_ID: &str = APP_IDS[0];

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    providers: ProviderSettings,
}

/// The settings as variables of the environment would give them.
fn settings(variables: &[(String, String)]) -> ProviderSettings {
    let options = variables.iter().map(|(name, value)| {
        let option = format!("--{}", name.strip_prefix("CHAT_").unwrap().to_lowercase().replace('_', "-"));
        if value == "true" { option } else { format!("{option}={value}") }
    });
    CommandLine::parse_from(std::iter::once("test".to_owned()).chain(options)).providers
}

/// The stand-ins, and the providers that send to them.
struct Place {
    services: PushServices,
    providers: Providers,
    directory: tempfile::TempDir,
}

impl Place {
    async fn start() -> Self {
        Self::with(&Clock::System).await
    }

    async fn with(clock: &Clock) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let services = PushServices::start(directory.path(), PushPorts::default()).await.unwrap();
        let providers = Providers::open(&settings(&services.settings()), clock).unwrap();
        Self { services, providers, directory }
    }

    /// A new device of a platform.
    fn device(&self, platform: Platform) -> NotificationAddress {
        let token = format!("{0}{0}", uuid::Uuid::new_v4().simple());
        match platform {
            Platform::Fcm => NotificationAddress::Fcm { token },
            Platform::Apns => NotificationAddress::Apns { token },
            Platform::WebPush => {
                let subscription = self.services.subscribe().unwrap();
                NotificationAddress::WebPush {
                    endpoint: subscription.endpoint,
                    p256dh: subscription.p256dh,
                    auth: subscription.auth,
                }
            }
            Platform::Webhook => NotificationAddress::Webhook { token },
        }
    }

    async fn send(&self, address: &NotificationAddress, notification: &Notification) -> Verdict {
        self.providers.send(Recipient { address, app_id: APP_ID }, notification).await
    }

    async fn send_to_new(&self, platform: Platform) -> Verdict {
        self.send(&self.device(platform), &of_message("Asha", "New message")).await
    }

    fn only_received(&self, platform: Platform) -> Received {
        let [received] = self.services.received(platform).try_into().expect("one notification");
        received
    }

    fn assert_nothing_refused(&self) {
        for platform in Platform::ALL {
            assert_eq!(self.services.refused(platform).iter().map(|refused| &refused.reason).next(), None);
        }
    }
}

fn token(address: &NotificationAddress) -> &str {
    match address {
        NotificationAddress::Fcm { token }
        | NotificationAddress::Apns { token }
        | NotificationAddress::Webhook { token } => token,
        NotificationAddress::WebPush { endpoint, .. } => endpoint,
    }
}

#[tokio::test]
async fn a_message_arrives_as_every_provider_wants_it() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        let (address, notification) = (place.device(platform), of_message("Asha", "नमस्ते"));
        assert_eq!(place.send(&address, &notification).await, Verdict::Sent, "{platform:?}");
        let received = place.only_received(platform);
        assert_eq!(received.token, token(&address));
        let collapse_key = (platform != Platform::Fcm).then_some(&*notification.collapse_key);
        assert_eq!(received.collapse_key.as_deref(), collapse_key, "{platform:?}");
        assert!(received.is_alert);
        assert_eq!((received.title.as_deref(), received.body.as_deref()), (Some("Asha"), Some("नमस्ते")));
        assert_eq!((received.badge, received.seq), (Some(3), Some(7)));
        assert!(received.message_id.is_some() && received.conversation_id.is_some());
        if platform != Platform::Webhook {
            assert!(received.is_urgent, "{platform:?}");
            let ttl = received.ttl.unwrap().as_secs();
            assert!((3000..=3600).contains(&ttl), "{platform:?}: {ttl} s");
        }
    }
    place.assert_nothing_refused();
}

#[tokio::test]
async fn customers_that_wait_are_told_of_as_every_provider_wants_it_r7_2() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        let business_id = BusinessId::random();
        let (address, notification) = (place.device(platform), of_waiting(business_id));
        assert_eq!(place.send(&address, &notification).await, Verdict::Sent, "{platform:?}");
        let received = place.only_received(platform);
        let collapse_key = (platform != Platform::Fcm).then_some(&*notification.collapse_key);
        assert_eq!(received.collapse_key.as_deref(), collapse_key, "{platform:?}");
        assert_eq!((received.is_alert, received.title.as_deref()), (true, Some("Customers are waiting")));
        assert_eq!(received.body.as_deref(), Some(""));
        assert_eq!(received.business_id, Some(business_id.as_uuid().to_string()));
        assert_eq!((received.waiting, received.badge), (Some(3), None), "{platform:?}");
        assert_eq!((received.message_id, received.conversation_id, received.seq), (None, None, None));
        assert!(received.is_urgent || platform == Platform::Webhook, "{platform:?}");
    }
    place.assert_nothing_refused();
}

#[tokio::test]
async fn messages_of_five_conversations_reach_a_phone_that_was_off() {
    let place = Place::start().await;
    let address = place.device(Platform::Fcm);
    place.services.disconnect(token(&address));
    let titles = ["Asha", "Ben", "Chandra", "Dipa", "Elina"];
    for (number, title) in titles.into_iter().enumerate() {
        let collapse_key = format!("conversation-{number}");
        let notification = Notification { collapse_key, ..of_message(title, "Hi") };
        assert_eq!(place.send(&address, &notification).await, Verdict::Sent);
    }
    let received = place.services.reconnect(token(&address));
    assert_eq!(received.iter().filter_map(|received| received.title.as_deref()).collect::<Vec<_>>(), titles);
    assert!(received.iter().all(|received| received.is_alert && received.is_urgent));
}

#[tokio::test]
async fn a_badge_changes_silently_where_that_can_be_r5_2() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        assert_eq!(place.send(&place.device(platform), &of_badge(5)).await, Verdict::Sent, "{platform:?}");
        if platform == Platform::WebPush {
            assert!(place.services.received(platform).is_empty(), "a browser would have to show something");
            continue;
        }
        let received = place.only_received(platform);
        assert_eq!((received.badge, received.is_alert, received.is_urgent), (Some(5), false, false), "{platform:?}");
    }
    place.assert_nothing_refused();
}

#[tokio::test]
async fn the_largest_notification_is_taken() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        assert_eq!(place.send(&place.device(platform), &largest()).await, Verdict::Sent, "{platform:?}");
    }
    place.assert_nothing_refused();
}

#[tokio::test]
async fn many_at_once_share_one_token() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        let verdicts = join_all((0..10).map(|_| place.send_to_new(platform))).await;
        assert_eq!(verdicts, vec![Verdict::Sent; 10], "{platform:?}");
    }
    place.assert_nothing_refused();
}

#[tokio::test]
async fn a_device_that_is_dead_is_gone_and_one_that_never_was_is_refused() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        let address = place.device(platform);
        place.services.kill_token(token(&address));
        let verdict = place.send(&address, &of_message("Asha", "Hi")).await;
        let Verdict::Gone { since } = verdict else { panic!("{platform:?}: {verdict:?}") };
        assert_eq!(since.is_some(), platform == Platform::Apns, "only Apple says since when");
        assert_eq!(place.send_to_new(platform).await, Verdict::Sent, "{platform:?}");
    }
    let NotificationAddress::WebPush { endpoint, p256dh, auth } = place.device(Platform::WebPush) else { panic!() };
    let unknown =
        NotificationAddress::WebPush { endpoint: format!("{endpoint}0"), p256dh: p256dh.clone(), auth: auth.clone() };
    assert_eq!(place.send(&unknown, &of_message("Asha", "Hi")).await, Verdict::Gone { since: None });
    for address in [
        NotificationAddress::Fcm { token: "no token at all".to_owned() },
        NotificationAddress::Apns { token: "../../3/device/00".to_owned() },
        NotificationAddress::Apns { token: "00".to_owned() },
        NotificationAddress::WebPush { endpoint: endpoint.clone(), p256dh: auth.clone(), auth },
        NotificationAddress::WebPush { endpoint, p256dh, auth: String::new() },
    ] {
        let verdict = place.send(&address, &of_message("Asha", "Hi")).await;
        assert!(matches!(verdict, Verdict::Refused(_)), "{address:?}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_foreign_app_is_refused_and_no_device_removed() {
    let place = Place::start().await;
    assert_eq!(place.send_to_new(Platform::Apns).await, Verdict::Sent);
    let address = place.device(Platform::Apns);
    let to = Recipient { address: &address, app_id: "com.example.other" };
    let verdict = place.providers.send(to, &of_message("Asha", "Hi")).await;
    assert_eq!(verdict, Verdict::Refused("APNs answered 400 TopicDisallowed".to_owned()));
    let to = Recipient { address: &address, app_id: "com.example\r\nx: y" };
    assert!(matches!(place.providers.send(to, &of_message("Asha", "Hi")).await, Verdict::Refused(_)));
}

#[tokio::test]
async fn a_device_of_other_credentials_waits_until_ours_are_proven_and_is_then_refused() {
    let place = Place::start().await;
    for (platform, answer) in [
        (Platform::Fcm, "FCM answered 403 SENDER_ID_MISMATCH"),
        (Platform::Apns, "APNs answered 400 BadDeviceToken"),
        (Platform::WebPush, "a push service answered 403"),
    ] {
        let (address, notification) = (place.device(platform), of_message("Asha", "Hi"));
        place.services.disown(token(&address));
        assert_eq!(place.send(&address, &notification).await, Verdict::Later(None), "{platform:?}");
        assert_eq!(place.send_to_new(platform).await, Verdict::Sent, "{platform:?}");
        assert_eq!(place.send(&address, &notification).await, Verdict::Refused(answer.to_owned()));
    }
}

#[tokio::test]
async fn a_webhook_that_refuses_the_signature_is_tried_again_and_takes_either_of_two() {
    let place = Place::start().await;
    let other_secret = place.directory.path().join("other.secret");
    std::fs::write(&other_secret, "another secret of 32 characters.").unwrap();
    let mut settings = settings(&place.services.settings());
    let own_secret = std::mem::replace(&mut settings.webhook_secret_file, vec![other_secret.clone()]);
    let address = place.device(Platform::Webhook);
    let to = Recipient { address: &address, app_id: APP_ID };
    let providers = Providers::open(&settings, &Clock::System).unwrap();
    assert_eq!(providers.send(to, &of_message("Asha", "Hi")).await, Verdict::Later(None));
    settings.webhook_secret_file = [vec![other_secret], own_secret].concat();
    let providers = Providers::open(&settings, &Clock::System).unwrap();
    assert_eq!(providers.send(to, &of_message("Asha", "Hi")).await, Verdict::Sent, "it knows one of the two secrets");
}

#[tokio::test]
async fn what_a_provider_refuses_for_now_is_sent_later() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        let retry_after = Some(Duration::from_secs(17));
        for status in [429, 500, 503] {
            place.services.behave(platform, Behaviour::Failing { status, retry_after });
            assert_eq!(place.send_to_new(platform).await, Verdict::Later(retry_after), "{platform:?} {status}");
        }
        place.services.behave(platform, Behaviour::Normal);
        assert_eq!(place.send_to_new(platform).await, Verdict::Sent, "{platform:?}");
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_unknown() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        place.services.behave(platform, Behaviour::SilentAfterTaking);
        assert_eq!(place.send_to_new(platform).await, Verdict::Unknown, "{platform:?}");
        place.services.behave(platform, Behaviour::Normal);
        assert_eq!(place.services.received(platform).len(), 1, "{platform:?}: it was sent once");
        assert_eq!(place.send_to_new(platform).await, Verdict::Sent, "{platform:?}");
    }
}

#[tokio::test]
async fn a_provider_that_takes_too_long_is_given_up() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        place.services.behave(platform, Behaviour::Slow(Duration::from_mins(1)));
    }
    let verdicts = join_all(Platform::ALL.map(|platform| place.send_to_new(platform))).await;
    assert_eq!(verdicts, vec![Verdict::Unknown; 4]);
}

#[tokio::test]
async fn a_provider_that_is_down_is_left_alone_and_tried_again() {
    let place = Place::start().await;
    for platform in Platform::ALL {
        // A connection that is there is cut with what is on it; so none is.
        place.services.behave(platform, Behaviour::Down);
        for _ in 0..5 {
            assert_eq!(place.send_to_new(platform).await, Verdict::Later(None), "{platform:?}");
        }
        let Verdict::Later(Some(rest)) = place.send_to_new(platform).await else { panic!("{platform:?} is asked") };
        assert!(rest <= Duration::from_secs(1), "{rest:?}");
        place.services.behave(platform, Behaviour::Normal);
        chat_dev::wait::until("it is sent again", Duration::from_secs(30), || async {
            Ok((place.send_to_new(platform).await == Verdict::Sent).then_some(()))
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn more_at_once_than_a_provider_is_sent_wait() {
    let place = Place::start().await;
    place.services.behave(Platform::Webhook, Behaviour::Slow(Duration::from_millis(500)));
    let verdicts = join_all((0..40).map(|_| place.send_to_new(Platform::Webhook))).await;
    let held_back = Verdict::Later(Some(Duration::from_secs(1)));
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Sent).count(), 32);
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == held_back).count(), 8);
}

#[tokio::test]
async fn an_access_token_that_is_refused_is_changed_for_a_new_one() {
    let place = Place::start().await;
    assert_eq!(place.send_to_new(Platform::Fcm).await, Verdict::Sent);
    place.services.revoke_access_tokens();
    assert_eq!(place.send_to_new(Platform::Fcm).await, Verdict::Sent);
    assert_eq!(place.services.received(Platform::Fcm).len(), 2);
}

#[tokio::test]
async fn an_access_token_stays_when_other_credentials_are_refused() {
    let place = Place::start().await;
    assert_eq!(place.send_to_new(Platform::Fcm).await, Verdict::Sent);
    place.services.behave(Platform::Fcm, Behaviour::Failing { status: 401, retry_after: None });
    let refused = Verdict::Refused("FCM answered 401 THIRD_PARTY_AUTH_ERROR".to_owned());
    assert_eq!(place.send_to_new(Platform::Fcm).await, refused);
    place.services.behave(Platform::Fcm, Behaviour::Normal);
    assert_eq!(place.send_to_new(Platform::Fcm).await, Verdict::Sent);
    assert_eq!(place.services.access_tokens(), 1);
}

#[tokio::test]
async fn a_provider_token_that_is_too_old_is_changed_for_a_new_one() {
    const HOUR_MS: i64 = 60 * 60_000;
    let now = Clock::System.now();
    let clock = Clock::fixed(Timestamp(now.0 - HOUR_MS - 60_000));
    let Clock::Fixed(at) = &clock else { panic!("it stands") };
    let place = Place::with(&clock).await;
    assert_eq!(place.send_to_new(Platform::Apns).await, Verdict::Later(None), "Apple's clock is not ours");
    Arc::clone(at).store(now.0 - 20 * 60_000, Ordering::Relaxed);
    assert_eq!(place.send_to_new(Platform::Apns).await, Verdict::Sent);
}

#[tokio::test]
async fn what_is_late_is_not_sent() {
    let place = Place::start().await;
    let mut notification = of_message("Asha", "Hi");
    notification.expires_at = Clock::System.now();
    for platform in Platform::ALL.into_iter().filter(|platform| *platform != Platform::WebPush) {
        let verdict = place.send(&place.device(platform), &notification).await;
        assert_eq!(verdict, Verdict::Refused("it is too late".to_owned()), "{platform:?}");
    }
    assert!(place.services.received(Platform::Fcm).is_empty());
}

#[tokio::test]
async fn this_machine_is_out_of_reach_without_the_flag() {
    let place = Place::start().await;
    let variables: Vec<_> =
        place.services.settings().into_iter().filter(|(name, _)| name.starts_with("CHAT_WEB_PUSH")).collect();
    let providers = Providers::open(&settings(&variables), &Clock::System).unwrap();
    assert!(providers.supports(Platform::WebPush) && !providers.supports(Platform::Fcm));
    let NotificationAddress::WebPush { endpoint, p256dh, auth } = place.device(Platform::WebPush) else { panic!() };
    let https = endpoint.replace("http://", "https://");
    for endpoint in [&endpoint, &https, "https://localhost/push/1", "https://10.0.0.1/", "https://[::ffff:7f00:1]/"] {
        let (p256dh, auth) = (p256dh.clone(), auth.clone());
        let address = NotificationAddress::WebPush { endpoint: endpoint.to_owned(), p256dh, auth };
        let verdict = providers.send(Recipient { address: &address, app_id: APP_ID }, &of_message("Asha", "Hi")).await;
        assert_eq!(verdict, Verdict::Refused("a push service has no public address".to_owned()), "{endpoint}");
    }
    assert!(place.services.received(Platform::WebPush).is_empty());
    let address = place.device(Platform::Fcm);
    let verdict = providers.send(Recipient { address: &address, app_id: APP_ID }, &of_message("Asha", "Hi")).await;
    assert_eq!(verdict, Verdict::Refused("fcm is not set up".to_owned()));
}

#[tokio::test]
async fn settings_that_are_half_set_or_wrong_say_what_to_do() {
    let place = Place::start().await;
    let error = |change: &dyn Fn(&mut ProviderSettings)| {
        let mut settings = settings(&place.services.settings());
        change(&mut settings);
        let opened = Providers::open(&settings, &Clock::System);
        format!("{:#}", opened.err().expect("it is wrong"))
    };
    let (short, wrong) = (place.directory.path().join("short"), place.directory.path().join("wrong"));
    std::fs::write(&short, "  too short\n").unwrap();
    std::fs::write(&wrong, "{}").unwrap();
    for (shown, error) in [
        ("set all three", error(&|settings| settings.apns_team_id = None)),
        ("not a .p8 file", error(&|settings| settings.apns_key_file = Some(wrong.clone()))),
        ("set both", error(&|settings| settings.web_push_contact = None)),
        ("mailto:", error(&|settings| settings.web_push_contact = Some("me@example.com".to_owned()))),
        ("openssl genpkey", error(&|settings| settings.web_push_key_file = Some(wrong.clone()))),
        ("set both", error(&|settings| settings.webhook_url = None)),
        ("reading /nowhere", error(&|settings| settings.webhook_secret_file = vec!["/nowhere".into()])),
        ("head -c 32 /dev/urandom", error(&|settings| settings.webhook_secret_file = vec![short.clone()])),
        ("more than 2 files", error(&|settings| settings.webhook_secret_file = vec![short.clone(); 3])),
        ("not one of this machine", error(&|settings| settings.webhook_url = Some("https://10.0.0.1/".to_owned()))),
        ("key file of a service account", error(&|settings| settings.fcm_service_account_file = Some(wrong.clone()))),
        ("must begin with https://", error(&|settings| settings.fcm_url = "http://example.com".to_owned())),
        ("CHAT_ALLOW_LOOPBACK_ENDPOINTS", error(&|settings| settings.allow_loopback_endpoints = false)),
    ] {
        assert!(error.contains(shown), "{shown}: {error}");
    }
    assert!(Providers::open(&settings(&[]), &Clock::System).is_ok(), "nothing has to be set");
}

/// A private key of the curve P-256, in PEM.
pub(super) fn ec_key() -> String {
    use aws_lc_rs::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
    };
    let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(key.as_ref()))
}
