//! Where tokens come from, and the one in use.

use std::{fmt, pin::Pin, sync::Arc};

use tokio::{sync::Mutex, time::timeout};

use crate::{error::TokenError, limits::TOKEN_WAIT_MAX};

type TokenFuture = Pin<Box<dyn Future<Output = Result<String, TokenError>> + Send>>;

/// Where tokens come from.
#[derive(Clone)]
pub struct TokenSource(Kind);

#[derive(Clone)]
enum Kind {
    Fixed(Arc<str>),
    Callback(Arc<dyn Fn() -> TokenFuture + Send + Sync>),
}

impl TokenSource {
    /// One token. When a gateway no longer takes it, the client stops.
    pub fn fixed(token: impl Into<String>) -> Self {
        Self(Kind::Fixed(Arc::from(token.into())))
    }

    /// A function that gives a fresh token. It is called for the first connection, shortly before a
    /// token expires, and when a gateway refuses the one in use.
    pub fn callback<F, R>(fresh_token: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Result<String, TokenError>> + Send + 'static,
    {
        Self(Kind::Callback(Arc::new(move || Box::pin(fresh_token()))))
    }

    /// Whether a new token can be had.
    pub(crate) const fn is_renewable(&self) -> bool {
        matches!(self.0, Kind::Callback(_))
    }

    async fn fresh(&self) -> Result<String, TokenError> {
        match &self.0 {
            Kind::Fixed(token) => Ok(token.to_string()),
            Kind::Callback(fresh_token) => timeout(TOKEN_WAIT_MAX, fresh_token())
                .await
                .unwrap_or_else(|_| Err(TokenError("the token callback took too long".into()))),
        }
    }
}

impl From<&str> for TokenSource {
    fn from(token: &str) -> Self {
        Self::fixed(token)
    }
}

impl From<String> for TokenSource {
    fn from(token: String) -> Self {
        Self::fixed(token)
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_renewable() { "TokenSource::callback" } else { "TokenSource::fixed" })
    }
}

/// The token in use, shared by the connection and REST.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: TokenSource,
    // Held while the callback runs, so that many who need a token at once ask for it once.
    current: Mutex<Option<Arc<str>>>,
}

impl Tokens {
    pub(crate) fn new(source: TokenSource) -> Self {
        Self { source, current: Mutex::new(None) }
    }

    pub(crate) const fn is_renewable(&self) -> bool {
        self.source.is_renewable()
    }

    /// The token in use; asks for one if there is none.
    pub(crate) async fn current(&self) -> Result<Arc<str>, TokenError> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(token) => Ok(Arc::clone(token)),
            None => Ok(Arc::clone(current.insert(Arc::from(self.source.fresh().await?)))),
        }
    }

    /// A token other than `stale`: the one in use if somebody has renewed it meanwhile, else a fresh one.
    pub(crate) async fn renewed(&self, stale: &str) -> Result<Arc<str>, TokenError> {
        let mut current = self.current.lock().await;
        match &*current {
            Some(token) if **token != *stale => Ok(Arc::clone(token)),
            _ => Ok(Arc::clone(current.insert(Arc::from(self.source.fresh().await?)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_refused_token_is_renewed_once_for_all_who_had_it() {
        let calls = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&calls);
        let tokens = Tokens::new(TokenSource::callback(move || {
            let number = counter.fetch_add(1, Ordering::Relaxed);
            async move { Ok(format!("token {number}")) }
        }));
        let first = tokens.current().await.unwrap();
        assert_eq!(tokens.renewed(&first).await.unwrap(), tokens.renewed(&first).await.unwrap());
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_token_source_does_not_show_its_token() {
        assert!(!format!("{:?}", TokenSource::fixed("secret")).contains("secret"));
    }
}
