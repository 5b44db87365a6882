//! Secrets among the settings: each from the environment or from a file, never shown.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use zeroize::Zeroizing;

/// A text that nobody but its user may see. Overwritten when it is dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// The text itself, without white space around it.
    pub fn expose(&self) -> &str {
        self.0.trim()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

/// Any text will do, so that no error can quote it.
impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Why a secret can't be had. Names the variables to set, and never shows what is in them.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Neither is set.
    #[error("{what} is not set: give {variable}, or {variable}_FILE with the path of a file that holds it")]
    Missing {
        /// What is missing.
        what: &'static str,
        /// The variable that may hold it.
        variable: &'static str,
    },
    /// Both are set, and may differ.
    #[error("{variable} and {variable}_FILE are both set: keep one of them")]
    Both {
        /// The variable that may hold it.
        variable: &'static str,
    },
    /// The file can't be read.
    #[error("{variable}_FILE: {} can't be read: {reason}", path.display())]
    Unreadable {
        /// The variable that may hold it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The file is empty.
    #[error("{variable}_FILE: {} is empty, it has to hold {what}", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// The variable that may hold it.
        variable: &'static str,
        /// The file.
        path: PathBuf,
    },
}

/// A pair of settings, of which at most one is given.
#[derive(Debug, Clone, Copy)]
pub struct SecretSource<'a> {
    /// What it is, such as "the address of PostgreSQL".
    pub what: &'static str,
    /// The environment variable for the text itself; the one for the file has `_FILE` added.
    pub variable: &'static str,
    /// The text.
    pub value: Option<&'a Secret>,
    /// The file.
    pub file: Option<&'a PathBuf>,
}

impl SecretSource<'_> {
    /// The variable that is given: the one for the file if there is a file.
    pub fn variable_given(self) -> String {
        if self.file.is_some() { format!("{}_FILE", self.variable) } else { self.variable.to_owned() }
    }

    /// The secret.
    pub fn required(self) -> Result<Secret, SecretError> {
        self.optional()?.ok_or(SecretError::Missing { what: self.what, variable: self.variable })
    }

    /// The secret, if either is given. A variable that is set to nothing counts as not set. A file may end with a newline.
    pub fn optional(self) -> Result<Option<Secret>, SecretError> {
        let Self { what, variable, .. } = self;
        let value = self.value.filter(|value| !value.expose().is_empty());
        match (value, self.file) {
            (None, None) => Ok(None),
            (Some(value), None) => Ok(Some(value.clone())),
            (Some(_), Some(_)) => Err(SecretError::Both { variable }),
            (None, Some(path)) => {
                let path = path.clone();
                let secret: Secret = match std::fs::read_to_string(&path) {
                    Ok(text) => text.into(),
                    Err(reason) => return Err(SecretError::Unreadable { variable, path, reason }),
                };
                if secret.expose().is_empty() {
                    return Err(SecretError::Empty { what, variable, path });
                }
                Ok(Some(secret))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const HUSHED: &str = "postgres://chat:hush@db/chat";

    fn source<'a>(value: Option<&'a Secret>, file: Option<&'a PathBuf>) -> SecretSource<'a> {
        SecretSource { what: "the address of PostgreSQL", variable: "CHAT_POSTGRES_URL", value, file }
    }

    fn file(text: &str) -> (tempfile::NamedTempFile, PathBuf) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let path = file.path().to_owned();
        (file, path)
    }

    #[test]
    fn a_secret_comes_from_the_environment_or_from_a_file_that_may_end_with_a_newline() {
        let (given, nothing) = (Secret::from(HUSHED.to_owned()), Secret::from(String::new()));
        let (_kept, path) = file(&format!("{HUSHED}\r\n"));
        for source in [source(Some(&given), None), source(None, Some(&path)), source(Some(&nothing), Some(&path))] {
            assert_eq!(source.required().unwrap().expose(), HUSHED);
        }
        assert!(source(None, None).optional().unwrap().is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_variables_to_set_and_without_the_secret() {
        let given = Secret::from(HUSHED.to_owned());
        let (_kept, full) = file(HUSHED);
        let (_kept, empty) = file(" \n");
        let absent = PathBuf::from("/nowhere/url");
        for (source, words) in [
            (source(None, None), "give CHAT_POSTGRES_URL, or CHAT_POSTGRES_URL_FILE"),
            (source(Some(&given), Some(&full)), "CHAT_POSTGRES_URL and CHAT_POSTGRES_URL_FILE are both set"),
            (source(None, Some(&absent)), "CHAT_POSTGRES_URL_FILE: /nowhere/url can't be read"),
            (source(None, Some(&empty)), "is empty, it has to hold the address of PostgreSQL"),
        ] {
            let error = source.required().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hush"), "{error}");
        }
        assert!(!format!("{given:?}").contains("hush"));
    }
}
