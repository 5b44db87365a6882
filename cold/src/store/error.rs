//! What goes wrong with a store, and what of it an operator can mend.

use std::{error::Error, io};

use object_store::client::HttpError;

/// What an answer to a request says before its status, in the words of the client.
const STATUS: &str = "status code: ";
/// Characters of a reason, at the most.
const REASON_CHARS_MAX: usize = 160;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no object of that name.
    #[error("the object store has no such object")]
    Missing,
    /// The store answers, and will not do it until its rights or the settings are changed. Says why, without names.
    #[error(
        "the object store refuses this ({0}): check CHAT_COLD_STORE_URL, CHAT_COLD_STORE_REGION, the key and its rights \
         to the bucket"
    )]
    Refused(String),
    /// The store does not answer, or answers that it can't now. Says why, without names.
    #[error("the object store is out of reach ({0}): is it running, and is CHAT_COLD_STORE_ENDPOINT right?")]
    Unavailable(String),
}

/// Why an object was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// An object has that name, perhaps by an earlier attempt of the same call.
    #[error("the object store has an object of this name")]
    Exists,
    /// Whether it was written is not known.
    #[error("the object store did not say whether it wrote an object ({0})")]
    Unknown(String),
    /// It was not written, and will not be until its rights or the settings are changed.
    #[error("{}", StoreError::Refused(.0.clone()))]
    Refused(String),
}

impl From<object_store::Error> for StoreError {
    fn from(error: object_store::Error) -> Self {
        use object_store::Error as E;
        let reason = reason(&error);
        match error {
            // Without its bucket there is no object either, but a setting is wrong.
            E::NotFound { .. } if reason.ends_with("NoSuchBucket") => Self::Refused(reason),
            E::NotFound { .. } => Self::Missing,
            E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::InvalidPath { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::UnknownConfigurationKey { .. } => Self::Refused(reason),
            error if is_refused(&error) => Self::Refused(reason),
            _ => Self::Unavailable(reason),
        }
    }
}

impl From<object_store::Error> for PutError {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. } => Self::Exists,
            error => match StoreError::from(error) {
                StoreError::Missing => Self::Refused("there is no such bucket".to_owned()),
                other => other.into(),
            },
        }
    }
}

impl From<StoreError> for PutError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(reason) => Self::Refused(reason),
            StoreError::Unavailable(reason) => Self::Unknown(reason),
            StoreError::Missing => Self::Unknown("no such object".to_owned()),
        }
    }
}

/// Whether a range may have been refused because the object ends before it.
pub(super) fn is_short(error: &object_store::Error) -> bool {
    let is_generic = matches!(error, object_store::Error::Generic { .. });
    let is_of_transport = causes(error).any(<dyn Error>::is::<HttpError>);
    is_generic && !is_of_transport && matches!(status(error), None | Some(416))
}

/// Whether an error without a kind of its own says that trying again is of no use.
fn is_refused(error: &object_store::Error) -> bool {
    let is_denied = |cause: &(dyn Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    match status(error) {
        Some(408 | 429) => false,
        Some(status) => (300..500).contains(&status),
        // A redirect without a place: the bucket is in another region.
        None => causes(error).any(|cause| is_denied(cause) || cause.to_string().contains("redirect without LOCATION")),
    }
}

/// The status of the answer, if there was one. The client's error says it only in words.
fn status(error: &object_store::Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once(STATUS)?;
    after.get(..3)?.parse().ok()
}

/// The status and code of the answer, or the last cause.
fn reason(error: &object_store::Error) -> String {
    let reason = status(error).map_or_else(
        || causes(error).last().map(ToString::to_string).unwrap_or_default(),
        |status| format!("{status} {}", code(&error.to_string())).trim_end().to_owned(),
    );
    reason.chars().filter(|letter| !letter.is_control()).take(REASON_CHARS_MAX).collect()
}

/// The code in the body of an answer of S3, such as `NoSuchBucket`.
fn code(text: &str) -> &str {
    let code = text.split_once("<Code>").and_then(|(_, after)| Some(after.split_once("</Code>")?.0));
    code.filter(|code| code.bytes().all(|byte| byte.is_ascii_alphanumeric())).unwrap_or_default()
}

/// The error and what caused it.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
