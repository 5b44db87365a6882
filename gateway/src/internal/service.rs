//! The asking service, as an extractor of requests: checks the token, its scope, and the service's rate.

use std::{marker::PhantomData, num::NonZeroU32, sync::Arc, time::Duration};

use axum::{extract::FromRequestParts, http::request::Parts};
use chat_shared::lifecycle::Tasks;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

use super::Internal;
use crate::{
    auth::{TokenError, bearer},
    refusal::Refusal,
};

/// Requests of one service a second, over a longer time. Over it `rate_limited`.
const REQUESTS_PER_SECOND_MAX: NonZeroU32 = NonZeroU32::new(200).unwrap();
/// Requests of one service at once.
const REQUESTS_BURST_MAX: NonZeroU32 = NonZeroU32::new(1000).unwrap();
/// How often services that have been quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// What a token may let its bearer do.
pub trait Scope {
    /// As it stands in the token.
    const NAME: &'static str;
}

/// A service that may do `S`.
pub struct Allowed<S>(PhantomData<S>);

impl<S: Scope> FromRequestParts<Internal> for Allowed<S> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, internal: &Internal) -> Result<Self, Refusal> {
        let nobody =
            || Refusal::unauthenticated("no service may call: this gateway has no keys to check its token with");
        let services = internal.services.as_ref().ok_or_else(nobody)?;
        let token = bearer(&parts.headers).ok_or(TokenError::Missing)?;
        let service = services.verify(token).await?;
        internal.rates.check(&service.name)?;
        if !service.may(S::NAME) {
            return Err(Refusal::forbidden(format!("the token lacks the scope {}", S::NAME)));
        }
        Ok(Self(PhantomData))
    }
}

/// How much each service may ask, on this gateway.
#[derive(Clone)]
pub struct ServiceRates {
    services: Arc<DefaultKeyedRateLimiter<Arc<str>>>,
    clock: DefaultClock,
}

impl ServiceRates {
    /// Nobody has asked anything yet.
    pub fn start(tasks: &Tasks) -> Self {
        let quota = Quota::per_second(REQUESTS_PER_SECOND_MAX).allow_burst(REQUESTS_BURST_MAX);
        let services = Arc::new(RateLimiter::keyed(quota));
        let (tidied, draining) = (Arc::clone(&services), tasks.draining().clone());
        tasks.best_effort("service_rates", async move {
            while draining.run_until_cancelled(tokio::time::sleep(TIDY_INTERVAL)).await.is_some() {
                tidied.retain_recent();
                tidied.shrink_to_fit();
            }
        });
        Self { services, clock: DefaultClock::default() }
    }

    fn check(&self, name: &Arc<str>) -> Result<(), Refusal> {
        let checked = self.services.check_key(name);
        checked.map_err(|until| Refusal::rate_limited(until.wait_time_from(self.clock.now())))
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::wire::ErrorCode;

    use super::*;

    #[tokio::test]
    async fn a_service_that_asks_too_much_is_told_to_wait_and_others_are_not_concerned_r6_3() {
        let rates = ServiceRates::start(&Tasks::default());
        let [busy, quiet] = ["busy", "quiet"].map(Arc::from);
        let refusal = (0..100_000).find_map(|_| rates.check(&busy).err()).expect("there is a limit");
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!(refusal.retry_after.is_some());
        assert_eq!(rates.check(&quiet), Ok(()));
    }
}
