//! What a notification says, in the language of its device.

/// Characters of a message that are shown.
const TEXT_CHARS_MAX: usize = 200;
/// Stands for what was cut.
const CUT: char = '…';

/// A heading for a message in a locale such as `ne-NP`; English if its language isn't known here.
pub fn title(locale: Option<&str>) -> &'static str {
    let language = locale.and_then(|locale| locale.split(['-', '_']).next()).unwrap_or_default();
    match language.to_ascii_lowercase().as_str() {
        "ne" => "नयाँ सन्देश",
        "hi" => "नया संदेश",
        _ => "New message",
    }
}

/// As much of a message as a notification shows.
pub fn excerpt(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        None => text.to_owned(),
        Some(_) => text.chars().take(TEXT_CHARS_MAX - 1).chain([CUT]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_heading_is_in_the_devices_language() {
        for locale in ["ne", "ne-NP", "NE_np", "ne-Deva-NP"] {
            assert_eq!(title(Some(locale)), "नयाँ सन्देश");
        }
        for locale in [None, Some("en-GB"), Some(""), Some("-"), Some("nep"), Some("fr")] {
            assert_eq!(title(locale), "New message");
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(excerpt("  hello\n"), "hello");
        let short = "न".repeat(TEXT_CHARS_MAX);
        assert_eq!(excerpt(&short), short);
        let cut = excerpt(&"😀".repeat(TEXT_CHARS_MAX + 1));
        assert_eq!((cut.chars().count(), cut.ends_with("😀…")), (TEXT_CHARS_MAX, true));
    }
}
