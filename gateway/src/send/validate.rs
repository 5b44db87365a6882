//! What a message's text has to be. Pure.

use chat_shared::limits;

use crate::refusal::Refusal;

/// Refuses an empty text, one over the bound, and one with a NUL.
pub fn text(text: &str) -> Result<(), Refusal> {
    if text.len() > limits::TEXT_BYTES_MAX {
        let message =
            format!("`text` has {} bytes in UTF-8; at most {} are allowed", text.len(), limits::TEXT_BYTES_MAX);
        return Err(Refusal::too_large(message));
    }
    if text.trim().is_empty() {
        return Err(Refusal::invalid("`text` is empty"));
    }
    if text.contains('\0') {
        return Err(Refusal::invalid("`text` contains a NUL character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    #[test]
    fn texts_out_of_bounds_are_refused_with_their_reason() {
        let code = |candidate: &str| text(candidate).map_err(|refusal| refusal.code);
        assert_eq!(code("hello"), Ok(()));
        assert_eq!(code(&"न".repeat(limits::TEXT_BYTES_MAX / 3)), Ok(()));
        assert_eq!(code(&"न".repeat(limits::TEXT_BYTES_MAX / 3 + 1)), Err(ErrorCode::TooLarge));
        for empty in ["", " ", "\n\t\u{2003}"] {
            assert_eq!(code(empty), Err(ErrorCode::Invalid));
        }
        assert_eq!(code("a\0b"), Err(ErrorCode::Invalid));
    }
}
