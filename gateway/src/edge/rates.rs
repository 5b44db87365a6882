//! How much may come from one address: requests, and tokens that are no good.

use std::{hash::BuildHasher, num::NonZeroU32, sync::Arc, time::Duration};

use chat_shared::lifecycle::Tasks;
use governor::{
    DefaultKeyedRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};
use moka::sync::Cache;

use super::address::ClientAddress;
use crate::refusal::Refusal;

/// How many times a second's requests may come at once.
const BURST_SECONDS: u32 = 5;
/// One in so many requests may have a token that is no good.
const FAILURES_SHARE: u32 = 10;
/// How long nobody at an address is asked who they are, after too many tokens from there were no good.
const FAILURES_PAUSE: Duration = Duration::from_secs(5);
/// Addresses that are told apart. So many limiters are the most that are kept, whoever comes; addresses that share one by
/// chance share its limit, and nobody can know which do.
const SLOTS: u64 = 1 << 18;
/// How often addresses that have been quiet are forgotten.
const TIDY_INTERVAL: Duration = Duration::from_mins(1);

/// An address, as far as it is told apart from others.
type Slot = u32;

/// The limits of all addresses.
pub struct AddressRates {
    slots: std::hash::RandomState,
    requests: Arc<DefaultKeyedRateLimiter<Slot>>,
    failures: Arc<DefaultKeyedRateLimiter<Slot>>,
    paused: Cache<Slot, ()>,
    clock: DefaultClock,
}

impl AddressRates {
    /// Limits of so many requests a second from each address.
    pub fn start(requests_per_second_max: NonZeroU32, tasks: &Tasks) -> Self {
        let failures_per_second_max = NonZeroU32::MIN.max(divided(requests_per_second_max));
        let [requests, failures] = [requests_per_second_max, failures_per_second_max].map(|per_second| {
            let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST_SECONDS - 1));
            Arc::new(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)))
        });
        let (tidied, draining) = ([Arc::clone(&requests), Arc::clone(&failures)], tasks.draining().clone());
        tasks.best_effort("address_rates", async move {
            while draining.run_until_cancelled(tokio::time::sleep(TIDY_INTERVAL)).await.is_some() {
                for limits in &tidied {
                    limits.retain_recent();
                    limits.shrink_to_fit();
                }
            }
        });
        let paused = Cache::builder().max_capacity(SLOTS).time_to_live(FAILURES_PAUSE).build();
        let slots = std::hash::RandomState::new();
        Self { slots, requests, failures, paused, clock: DefaultClock::default() }
    }

    fn slot(&self, address: ClientAddress) -> Slot {
        u32::try_from(self.slots.hash_one(address) % SLOTS).expect("there are fewer slots")
    }

    /// Counts a request.
    pub fn check(&self, address: ClientAddress) -> Result<(), Refusal> {
        let checked = self.requests.check_key(&self.slot(address));
        checked.map_err(|until| Refusal::rate_limited(until.wait_time_from(self.clock.now())))
    }

    /// Refuses to look at a token if too many from the address were no good.
    pub fn check_failures(&self, address: ClientAddress) -> Result<(), Refusal> {
        if self.paused.contains_key(&self.slot(address)) {
            return Err(Refusal::rate_limited(FAILURES_PAUSE));
        }
        Ok(())
    }

    /// Counts a token that was no good.
    pub fn note_failure(&self, address: ClientAddress) {
        let slot = self.slot(address);
        if self.failures.check_key(&slot).is_err() {
            self.paused.insert(slot, ());
        }
    }
}

fn divided(requests: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new(requests.get() / FAILURES_SHARE).unwrap_or(NonZeroU32::MIN)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use chat_shared::wire::ErrorCode;

    use super::*;

    const PER_SECOND: NonZeroU32 = NonZeroU32::new(200).unwrap();

    fn address(last: u8) -> ClientAddress {
        IpAddr::from([198, 51, 100, last]).into()
    }

    #[tokio::test]
    async fn who_asks_too_much_is_told_when_to_come_back_and_others_are_not_concerned() {
        let rates = AddressRates::start(PER_SECOND, &Tasks::default());
        let refusal = (0..10_000).find_map(|_| rates.check(address(1)).err()).expect("there is a limit");
        assert_eq!(refusal.code, ErrorCode::RateLimited);
        assert!(refusal.retry_after.is_some_and(|wait| wait <= Duration::from_secs(1)));
        assert_eq!(rates.check(address(2)), Ok(()));
    }

    #[tokio::test]
    async fn after_a_hundred_bad_tokens_no_more_are_looked_at_for_a_while_r6_4() {
        let rates = AddressRates::start(PER_SECOND, &Tasks::default());
        for _ in 0..100 {
            assert_eq!(rates.check_failures(address(1)), Ok(()));
            rates.note_failure(address(1));
        }
        assert_eq!(rates.check_failures(address(1)), Ok(()), "a hundred may be an accident");
        (0..100).for_each(|_| rates.note_failure(address(1)));
        let refusal = rates.check_failures(address(1)).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::RateLimited, Some(FAILURES_PAUSE)));
        assert_eq!((rates.check_failures(address(2)), rates.check(address(1))), (Ok(()), Ok(())));
    }
}
