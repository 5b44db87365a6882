//! Extractors whose refusals are those of this interface: the parts of a request, read into their types.

use std::{fmt::Display, str::FromStr};

use axum::{
    extract::{
        FromRequest, FromRequestParts, Request,
        path::ErrorKind,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
};
use chat_shared::{
    limits,
    wire::{Map, without_values},
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

use crate::refusal::Refusal;

/// A JSON body: an object, never a list of its fields.
pub struct Body<T>(pub T);

/// What stands in the path.
pub struct InPath<T>(pub T);

/// What stands after the `?`.
pub struct InQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(Map(body))) => Ok(Self(body)),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(Refusal::body_too_large()),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                Err(Refusal::invalid("the body must be JSON; say so with `Content-Type: application/json`"))
            }
            Err(rejection) => Err(Refusal::invalid(without_values(&rejection.body_text()))),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for InPath<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(error @ PathRejection::MissingPathParams(_)) => Err(Refusal::internal(&error)),
            Err(PathRejection::FailedToDeserializePathParams(failed)) => {
                Err(Refusal::invalid(match failed.into_kind() {
                    ErrorKind::DeserializeError { key, message, .. } => format!("`{key}` in the path: {message}"),
                    other => without_values(&other.to_string()),
                }))
            }
            Err(rejection) => Err(Refusal::invalid(without_values(&rejection.body_text()))),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for InQuery<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let query: Result<_, QueryRejection> = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|rejection| Refusal::invalid(without_values(&rejection.body_text())))
    }
}

/// Rows of a page: a number from 1; what is over the bound means the bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageLimit(pub usize);

impl Default for PageLimit {
    fn default() -> Self {
        Self(limits::PAGE_ROWS_DEFAULT)
    }
}

impl<'de> Deserialize<'de> for PageLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let problem = || serde::de::Error::custom("`limit` is a whole number from 1");
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(problem());
        }
        // Digits that don't fit in a usize are over the bound too.
        match text.parse::<usize>().unwrap_or(usize::MAX) {
            0 => Err(problem()),
            rows => Ok(Self(rows.min(limits::PAGE_ROWS_MAX))),
        }
    }
}

/// Ids, separated by commas.
pub struct Ids<T>(pub Vec<T>);

impl<T> Default for Ids<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for Ids<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let ids = text.split(',').map(|id| id.parse().map_err(serde::de::Error::custom));
        ids.collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::ids::UserId;
    use serde::de::{IntoDeserializer, value::Error};

    use super::*;
    use crate::distinct::distinct;

    #[test]
    fn ids_are_separated_by_commas_and_nothing_else() {
        let [one, two] = [UserId::random(), UserId::random()];
        let read = |text: String| Ids::<UserId>::deserialize(IntoDeserializer::<Error>::into_deserializer(text)).ok();
        let [first, second] = [one.as_uuid(), two.as_uuid()];
        assert_eq!(read(format!("{first},{second}")).map(|ids| ids.0), Some(vec![one, two]));
        assert_eq!(read(format!("{first},{second},{first}")).map(|ids| distinct(ids.0)), Some(vec![one, two]));
        for wrong in [String::new(), ",".to_owned(), format!("{first},"), format!("{first};{second}"), "me".to_owned()]
        {
            assert!(read(wrong.clone()).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn absurd_page_sizes_are_bounded_or_refused() {
        let read = |text: &str| PageLimit::deserialize(IntoDeserializer::<Error>::into_deserializer(text)).ok();
        let max = Some(PageLimit(limits::PAGE_ROWS_MAX));
        assert_eq!(read("1"), Some(PageLimit(1)));
        assert_eq!(read("100"), max);
        assert_eq!(read("101"), max);
        assert_eq!(read("99999999999999999999999999999"), max);
        for wrong in ["", "0", "-1", "+1", "1.5", "1e3", "ten", " 1", "\0", "١"] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
