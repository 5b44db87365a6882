//! What a registration may hold. Pure.
//!
//! Refusals never repeat what was given: it is as good as a password.

use aws_lc_rs::agreement::{ECDH_P256, ParsedPublicKey, UnparsedPublicKey};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use chat_shared::{
    outbound::check_url,
    wire::{NotificationAddress, RegisterDevice},
};

use crate::refusal::Refusal;

/// Bytes of a registration token of FCM.
const FCM_TOKEN_BYTES: std::ops::RangeInclusive<usize> = 20..=4096;
/// Digits of a device token of APNs.
const APNS_TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=200;
/// Bytes of what a webhook's sender knows a device by.
const WEBHOOK_TOKEN_BYTES: std::ops::RangeInclusive<usize> = 1..=1024;
/// Bytes of an uncompressed point of the curve P-256, and the first of them.
const POINT_BYTES: usize = 65;
const UNCOMPRESSED: u8 = 4;
/// Bytes of a subscription's secret.
const AUTH_BYTES: usize = 16;
/// Bytes of an app's id.
const APP_ID_BYTES: std::ops::RangeInclusive<usize> = 1..=255;
/// Bytes of a language tag.
const LOCALE_BYTES_MAX: usize = 35;

/// Browsers give keys without padding; some libraries add it.
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Refuses what no provider would take.
pub(super) fn registration(registration: &RegisterDevice, allows_loopback: bool) -> Result<(), Refusal> {
    address(&registration.address, allows_loopback)?;
    let is_app_id = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let app_id = &registration.app_id;
    if !APP_ID_BYTES.contains(&app_id.len()) || !app_id.bytes().all(is_app_id) {
        return Err(Refusal::invalid("`app_id` is 1 to 255 letters, digits, dots, hyphens and underscores"));
    }
    if registration.locale.as_deref().is_some_and(|locale| !is_locale(locale)) {
        return Err(Refusal::invalid("`locale` is a language tag such as `en` or `ne-NP`"));
    }
    Ok(())
}

fn address(address: &NotificationAddress, allows_loopback: bool) -> Result<(), Refusal> {
    let is_printable = |byte: u8| byte.is_ascii_graphic();
    match address {
        NotificationAddress::Fcm { token } => expect(
            FCM_TOKEN_BYTES.contains(&token.len()) && token.bytes().all(is_printable),
            || "`token` of FCM is 20 to 4096 printable characters of ASCII",
        ),
        NotificationAddress::Apns { token } => expect(
            APNS_TOKEN_BYTES.contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_hexdigit()),
            || "`token` of APNs is 32 to 200 hexadecimal digits",
        ),
        NotificationAddress::Webhook { token } => expect(
            WEBHOOK_TOKEN_BYTES.contains(&token.len()) && token.bytes().all(is_printable),
            || "`token` of a webhook is 1 to 1024 printable characters of ASCII",
        ),
        NotificationAddress::WebPush { endpoint, p256dh, auth } => {
            check_url(endpoint, allows_loopback)
                .map_err(|problem| Refusal::invalid(format!("`endpoint` is refused: {problem}")))?;
            expect(
                decode(p256dh).is_some_and(|key| is_point(&key)),
                || "`p256dh` is a public key of the curve P-256: 65 bytes, uncompressed, in base64url",
            )?;
            expect(decode(auth).is_some_and(|secret| secret.len() == AUTH_BYTES), || "`auth` is 16 bytes in base64url")
        }
    }
}

fn expect(is_met: bool, otherwise: impl FnOnce() -> &'static str) -> Result<(), Refusal> {
    if is_met { Ok(()) } else { Err(Refusal::invalid(otherwise())) }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    BASE64_URL.decode(text).ok()
}

fn is_point(bytes: &[u8]) -> bool {
    bytes.len() == POINT_BYTES
        && bytes.first() == Some(&UNCOMPRESSED)
        && ParsedPublicKey::try_from(&UnparsedPublicKey::new(&ECDH_P256, bytes)).is_ok()
}

/// A language, then whatever subtags, as BCP 47 writes them.
fn is_locale(text: &str) -> bool {
    let mut subtags = text.split('-');
    let is_language = |tag: &str| (2..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphabetic());
    let is_subtag = |tag: &str| (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric());
    text.len() <= LOCALE_BYTES_MAX && subtags.next().is_some_and(is_language) && subtags.all(is_subtag)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 8291, appendix A.
    const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const ENDPOINT: &str = "https://push.example.com/send/abc";

    fn fcm(token: &str) -> NotificationAddress {
        NotificationAddress::Fcm { token: token.to_owned() }
    }

    fn apns(token: &str) -> NotificationAddress {
        NotificationAddress::Apns { token: token.to_owned() }
    }

    fn webhook(token: &str) -> NotificationAddress {
        NotificationAddress::Webhook { token: token.to_owned() }
    }

    fn web_push(endpoint: &str, p256dh: &str, auth: &str) -> NotificationAddress {
        let [endpoint, p256dh, auth] = [endpoint, p256dh, auth].map(str::to_owned);
        NotificationAddress::WebPush { endpoint, p256dh, auth }
    }

    #[test]
    fn what_platforms_give_is_taken() {
        for taken in [
            fcm(&"a:B-_9".repeat(30)),
            fcm(&"x".repeat(4096)),
            apns(&"0aF9".repeat(16)),
            apns(&"a".repeat(200)),
            webhook("7"),
            webhook(&"~".repeat(1024)),
            web_push(ENDPOINT, P256DH, AUTH),
            web_push(ENDPOINT, &format!("{P256DH}="), &format!("{AUTH}==")),
        ] {
            assert_eq!(address(&taken, false), Ok(()), "{taken:?}");
        }
    }

    #[test]
    fn broken_tokens_and_subscriptions_are_refused_without_repeating_them() {
        let off_the_curve = format!("{}x4", &P256DH[..P256DH.len() - 2]);
        let compressed = format!("A{}", &P256DH[1..]);
        for refused in [
            fcm(""),
            fcm("too short"),
            fcm(&"x".repeat(4097)),
            fcm(&"with a space ".repeat(4)),
            fcm(&"\0".repeat(40)),
            fcm(&"ñ".repeat(40)),
            apns(&"a".repeat(31)),
            apns(&"a".repeat(201)),
            apns(&"g".repeat(64)),
            webhook(""),
            webhook(&"x".repeat(1025)),
            webhook("a\nb"),
            web_push("", P256DH, AUTH),
            web_push("http://push.example.com/", P256DH, AUTH),
            web_push("https://10.0.0.1/", P256DH, AUTH),
            web_push("https://[::ffff:127.0.0.1]/", P256DH, AUTH),
            web_push("http://127.0.0.1:9000/", P256DH, AUTH),
            web_push(&format!("https://push.example.com/{}", "x".repeat(2048)), P256DH, AUTH),
            web_push(ENDPOINT, "", AUTH),
            web_push(ENDPOINT, "not base64!", AUTH),
            web_push(ENDPOINT, &P256DH[..80], AUTH),
            web_push(ENDPOINT, &off_the_curve, AUTH),
            web_push(ENDPOINT, &compressed, AUTH),
            web_push(ENDPOINT, P256DH, ""),
            web_push(ENDPOINT, P256DH, P256DH),
            web_push(ENDPOINT, P256DH, &AUTH[..20]),
        ] {
            let refusal = address(&refused, false).unwrap_err();
            assert_eq!(refusal.code, chat_shared::wire::ErrorCode::Invalid);
            assert!(!refusal.message.contains("example.com/send"), "{}", refusal.message);
        }
        assert_eq!(address(&web_push("http://127.0.0.1:9000/", P256DH, AUTH), true), Ok(()), "for development");
    }

    #[test]
    fn app_ids_and_locales_are_short_and_plain() {
        let register = |app_id: &str, locale: Option<&str>| {
            let (app_id, locale) = (app_id.to_owned(), locale.map(str::to_owned));
            registration(&RegisterDevice { address: webhook("7"), app_id, locale }, false)
        };
        for app_id in ["a", "com.example.chat", "Example_App-2", &"x".repeat(255)] {
            assert_eq!(register(app_id, None), Ok(()), "{app_id}");
        }
        for app_id in ["", "com example", "a/b", "a\r\nb", "ä", &"x".repeat(256)] {
            assert!(register(app_id, None).is_err(), "{app_id}");
        }
        for locale in ["en", "ne-NP", "zh-Hant-TW", "de-CH-1996", "es-419"] {
            assert_eq!(register("a", Some(locale)), Ok(()), "{locale}");
        }
        for locale in ["", "e", "1", "-", "en-", "-en", "en_US", "en-toolongsubtag", "en--US", &"ab-".repeat(20)] {
            assert!(register("a", Some(locale)).is_err(), "{locale}");
        }
    }
}
