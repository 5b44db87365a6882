//! What a notification says, in the language of its device.

/// Characters of a message that are shown.
const TEXT_CHARS_MAX: usize = 200;
/// Stands for what was cut.
const CUT: char = '…';

/// A heading in the languages that are known.
struct Heading {
    english: &'static str,
    nepali: &'static str,
    hindi: &'static str,
}

impl Heading {
    /// In the language of a locale such as `ne-NP`; English if that isn't known here.
    fn of(&self, locale: Option<&str>) -> &'static str {
        let language = locale.and_then(|locale| locale.split(['-', '_']).next()).unwrap_or_default();
        match language.to_ascii_lowercase().as_str() {
            "ne" => self.nepali,
            "hi" => self.hindi,
            _ => self.english,
        }
    }
}

/// A heading for a message.
pub fn title(locale: Option<&str>) -> &'static str {
    Heading { english: "New message", nepali: "नयाँ सन्देश", hindi: "नया संदेश" }.of(locale)
}

/// A heading for customers that wait.
pub fn waiting(locale: Option<&str>) -> &'static str {
    let (nepali, hindi) = ("ग्राहकहरू पर्खिरहेका छन्", "ग्राहक प्रतीक्षा कर रहे हैं");
    Heading { english: "Customers are waiting", nepali, hindi }.of(locale)
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
            assert_eq!(waiting(Some(locale)), "ग्राहकहरू पर्खिरहेका छन्");
        }
        for locale in [None, Some("en-GB"), Some(""), Some("-"), Some("nep"), Some("fr")] {
            assert_eq!(title(locale), "New message");
            assert_eq!(waiting(locale), "Customers are waiting");
        }
        assert_eq!(waiting(Some("hi-IN")), "ग्राहक प्रतीक्षा कर रहे हैं");
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
