//! What kaha-main-v3 answers, read with distrust: fields that are not known are passed over, and what can't be shown to
//! anybody is as good as not there. Pure.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chat_shared::{ids::UserId, outbound::is_loopback_url, wire::Map};
use reqwest::Url;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::record::{Profile, ProfileId, Verdict};
use crate::kaha::Unreadable;

/// Characters of a name. What is beyond isn't shown.
const NAME_CHARACTERS_MAX: usize = 200;
/// Bytes of a picture's address. A longer one isn't shown.
const AVATAR_URL_BYTES_MAX: usize = 2048;

#[derive(Deserialize)]
struct Body {
    users: Option<Vec<Value>>,
    businesses: Option<Vec<Value>>,
}

/// What one entry is worth.
enum Entry {
    Usable(Uuid, Profile),
    /// It is of this id, and has no name that could be shown.
    Nameless(Uuid),
    /// Nobody can say whose it is.
    Nobodys,
}

/// What a body says of the ids asked for. An id that isn't among them is one that it says nothing usable of; one that it
/// doesn't mention is nobody's, unless there are entries that may be its own. With `allow_loopback`, for development,
/// pictures may be on this machine.
pub(super) fn read(
    body: &[u8],
    asked: &[ProfileId],
    allow_loopback: bool,
) -> Result<HashMap<ProfileId, Verdict>, Unreadable> {
    // What serde_json says of an error may quote the body.
    let Map(body): Map<Body> = serde_json::from_slice(body).map_err(|_| Unreadable("no JSON of the right form"))?;
    let (users, businesses): (Vec<_>, Vec<_>) = asked.iter().partition(|id| matches!(id, ProfileId::User(_)));
    let mut verdicts = HashMap::with_capacity(asked.len());
    for (asked, entries) in [(users, body.users), (businesses, body.businesses)] {
        let entries = match entries {
            Some(entries) => entries,
            None if asked.is_empty() => continue,
            None => return Err(Unreadable("a list is missing")),
        };
        judge(&asked, &entries, allow_loopback, &mut verdicts);
    }
    if verdicts.is_empty() && !asked.is_empty() {
        return Err(Unreadable("no entry is usable"));
    }
    Ok(verdicts)
}

fn judge(asked: &[ProfileId], entries: &[Value], allow_loopback: bool, verdicts: &mut HashMap<ProfileId, Verdict>) {
    let (mut usable, mut nameless, mut has_nobodys) = (HashMap::new(), HashSet::new(), false);
    for entry in entries {
        match entry_of(entry, allow_loopback) {
            Entry::Usable(id, profile) => {
                usable.entry(id).or_insert(profile);
            }
            Entry::Nameless(id) => {
                nameless.insert(id);
            }
            Entry::Nobodys => has_nobodys = true,
        }
    }
    for id in asked {
        let uuid = id.as_uuid();
        match usable.remove(&uuid) {
            Some(profile) => {
                verdicts.insert(*id, Verdict::Known(Arc::new(profile)));
            }
            None if has_nobodys || nameless.contains(&uuid) => {}
            None => {
                verdicts.insert(*id, Verdict::Unknown);
            }
        }
    }
}

fn entry_of(entry: &Value, allow_loopback: bool) -> Entry {
    // Users and businesses have ids of the same form.
    let id = entry["id"].as_str().and_then(|id| id.parse::<UserId>().ok());
    let Some(id) = id.map(UserId::as_uuid) else { return Entry::Nobodys };
    let Some(name) = entry["name"].as_str().and_then(name_of) else { return Entry::Nameless(id) };
    let avatar_url = entry["avatar_url"].as_str().and_then(|url| avatar_url_of(url, allow_loopback));
    Entry::Usable(id, Profile { name, avatar_url })
}

/// The name without what can't be seen and what turns the text around it, and none if nothing is left.
fn name_of(name: &str) -> Option<Box<str>> {
    let is_shown = |character: &char| {
        let turns_text = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        let ends_line = matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}');
        !(character.is_control() || turns_text || ends_line)
    };
    let shown: String = name.chars().filter(is_shown).collect();
    let cut: String = shown.trim().chars().take(NAME_CHARACTERS_MAX).collect();
    let name = cut.trim_end();
    (!name.is_empty()).then(|| name.into())
}

/// The address of a picture that clients may be given.
fn avatar_url_of(text: &str, allow_loopback: bool) -> Option<Box<str>> {
    if text.len() > AVATAR_URL_BYTES_MAX {
        return None;
    }
    let url = Url::parse(text).ok()?;
    let is_allowed = url.scheme() == "https" || (allow_loopback && is_loopback_url(&url));
    let is_plain = url.username().is_empty() && url.password().is_none() && url.has_host();
    let url = String::from(url);
    (is_allowed && is_plain && url.len() <= AVATAR_URL_BYTES_MAX).then(|| url.into())
}

#[cfg(test)]
mod tests {
    use chat_shared::ids::BusinessId;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn known(name: &str, avatar_url: Option<&str>) -> Verdict {
        Verdict::Known(Arc::new(Profile { name: name.into(), avatar_url: avatar_url.map(Into::into) }))
    }

    #[test]
    fn users_and_businesses_are_found_and_fields_that_are_not_known_passed_over_r10_1_r10_3() {
        let (user, gone, business) = (UserId::random(), UserId::random(), BusinessId::random());
        let asked = [ProfileId::User(user), ProfileId::User(gone), ProfileId::Business(business)];
        let body = json!({
            "users": [
                { "id": Uuid::new_v4(), "name": "Nobody asked" },
                { "id": user.as_uuid(), "name": " Asha Rai ", "avatar_url": "https://example.com/a.jpg", "age": 7 },
                { "id": user.as_uuid(), "name": "A repeat" },
            ],
            "businesses": [{ "id": business.as_uuid(), "name": "Tea House", "avatar_url": null, "tags": [{}] }],
            "page": { "next": null },
        });
        let verdicts = read(body.to_string().as_bytes(), &asked, false).unwrap();
        assert_eq!(verdicts.get(&asked[0]), Some(&known("Asha Rai", Some("https://example.com/a.jpg"))));
        assert_eq!(verdicts.get(&asked[1]), Some(&Verdict::Unknown));
        assert_eq!(verdicts.get(&asked[2]), Some(&known("Tea House", None)));
        assert_eq!(verdicts.len(), 3, "nothing of those whom nobody asked for");
    }

    #[test]
    fn whoever_has_a_damaged_entry_is_not_taken_to_be_gone_r3_5() {
        let [sound, nameless, gone] = [(); 3].map(|()| ProfileId::User(UserId::random()));
        let asked = [sound, nameless, gone];
        let entries = |other: Value| {
            let sound = json!({ "id": sound.as_uuid(), "name": "Asha" });
            let nameless = json!({ "id": nameless.as_uuid(), "name": " \u{7}" });
            json!({ "users": [sound, nameless, other], "businesses": [] }).to_string()
        };
        let verdicts = read(entries(json!({ "id": Uuid::new_v4(), "name": "B" })).as_bytes(), &asked, false).unwrap();
        assert_eq!(verdicts.get(&nameless), None);
        assert_eq!(verdicts.get(&gone), Some(&Verdict::Unknown));
        let misspelt = gone.as_uuid().simple().to_string();
        for nobodys in [
            json!(7),
            json!(null),
            json!({ "name": "B" }),
            json!({ "id": "somebody", "name": "B" }),
            json!({ "id": misspelt, "name": "B" }),
        ] {
            let verdicts = read(entries(nobodys).as_bytes(), &asked, false).unwrap();
            assert_eq!(verdicts.keys().collect::<Vec<_>>(), [&sound], "the rest may be anybody's");
        }
    }

    #[test]
    fn an_answer_without_the_lists_asked_for_is_none_r3_5() {
        let (user, business) = (ProfileId::User(UserId::random()), ProfileId::Business(BusinessId::random()));
        for wrong in [
            "",
            "null",
            "[]",
            "{}",
            "[[],[]]",
            "{\"users\":{}}",
            "{\"users\":[]",
            "{\"users\":[7]}",
            "{\"businesses\":[]}",
        ] {
            assert!(read(wrong.as_bytes(), &[user], false).is_err(), "{wrong}");
        }
        assert!(read(b"{\"users\":[]}", &[user], false).is_ok());
        assert!(read(b"{\"users\":[]}", &[user, business], false).is_err());
    }

    #[test]
    fn names_are_what_can_be_shown() {
        let name = |text: &str| name_of(text).map(String::from);
        assert_eq!(name("  Asha\u{0}\tRai\n"), Some("AshaRai".to_owned()));
        assert_eq!(name("\u{202e}gnp.exe\u{2066}"), Some("gnp.exe".to_owned()));
        let joined = "क्‍ष 👩‍👩‍👧";
        assert_eq!(name(joined), Some(joined.to_owned()), "joiners belong to the script");
        assert_eq!(name(&"ä".repeat(300)), Some("ä".repeat(200)));
        assert_eq!((name(""), name(" \u{feff}\u{200e}\n ").map(|name| name.chars().count())), (None, Some(1)));
    }

    #[test]
    fn pictures_are_where_everybody_may_fetch_them() {
        let url = |text: &str| avatar_url_of(text, false).is_some();
        assert!(url("https://example.com/a.jpg?size=2#x"));
        for wrong in [
            "http://example.com/a.jpg",
            "/a.jpg",
            "javascript:alert(1)",
            "data:image/png;base64,AAAA",
            "https://user:password@example.com/a.jpg",
            "https://",
            "",
        ] {
            assert!(!url(wrong), "{wrong}");
        }
        assert!(!url(&format!("https://example.com/{}", "a".repeat(2048))));
        assert!(!url(&format!("https://example.com/{}", "ä".repeat(600))), "it grows when it is written out");
        assert!(avatar_url_of("http://127.0.0.1:9/a.jpg", true).is_some());
        assert!(avatar_url_of("http://example.com/a.jpg", true).is_none());
    }

    proptest! {
        #[test]
        fn whatever_comes_nobody_but_those_asked_for_is_answered_r3_5(
            body in prop_oneof![
                any::<Vec<u8>>(),
                "\\{\"users\":\\[(\\{\"id\":[^,]{0,9},\"name\":[^,]{0,9}\\},?){0,3}\\],\"businesses\":\\[\\]\\}"
                    .prop_map(String::into_bytes),
            ],
        ) {
            let asked = [ProfileId::User(UserId::random())];
            if let Ok(verdicts) = read(&body, &asked, false) {
                prop_assert!(verdicts.keys().all(|id| asked.contains(id)));
            }
        }

        #[test]
        fn a_name_is_never_empty_nor_long_nor_has_control_characters(text in any::<String>()) {
            if let Some(name) = name_of(&text) {
                prop_assert!(!name.trim().is_empty() && name.chars().count() <= NAME_CHARACTERS_MAX);
                prop_assert!(!name.chars().any(char::is_control));
            }
        }
    }
}
