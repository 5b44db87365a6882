//! The last gate before a log line leaves the process: whatever looks like a UUID is masked (R6.2),
//! also where a library put it there.

use std::io::{self, Write};

use uuid::Uuid;

use crate::mask::Masked;

/// Standard output, with UUIDs masked.
pub(super) struct ScrubbedStdout;

impl Write for ScrubbedStdout {
    /// The subscriber writes a whole line at once, so no UUID is split over two calls.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write_all(&scrub(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

/// The line with its UUIDs masked.
pub(crate) fn scrub(line: &[u8]) -> Vec<u8> {
    let mut scrubbed = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some(&first) = rest.first() {
        if let Some((uuid, length)) = leading_uuid(rest) {
            scrubbed.extend_from_slice(Masked(uuid).to_string().as_bytes());
            rest = &rest[length..];
        } else {
            scrubbed.push(first);
            rest = &rest[1..];
        }
    }
    scrubbed
}

/// A UUID at the very start of `text`, with or without hyphens, and its length.
fn leading_uuid(text: &[u8]) -> Option<(Uuid, usize)> {
    if !text.first()?.is_ascii_hexdigit() {
        return None;
    }
    [36, 32].into_iter().find_map(|length| {
        let candidate = text.get(..length)?;
        let is_plain = candidate.iter().all(|byte| byte.is_ascii_hexdigit() || *byte == b'-');
        is_plain.then(|| Uuid::try_parse_ascii(candidate).ok()).flatten().map(|uuid| (uuid, length))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_uuid_leaves_whole_r6_2() {
        let uuid = Uuid::new_v4();
        for form in [uuid.to_string(), uuid.simple().to_string(), uuid.to_string().to_uppercase()] {
            let line = format!("subject=chat.7.message.{form} x{form}y abc{form} {form}");
            let scrubbed = String::from_utf8(scrub(line.as_bytes())).unwrap();
            assert!(!scrubbed.contains(&form), "{scrubbed}");
            assert!(scrubbed.contains(&Masked(uuid).to_string()), "{scrubbed}");
        }
    }

    #[test]
    fn other_text_stays_as_it_is() {
        for line in ["", "a plain line, with 0x1234 and 2026-01-01T00:00:00Z — नमस्ते\n", "deadbeef-dead"]
        {
            assert_eq!(scrub(line.as_bytes()), line.as_bytes());
        }
    }
}
