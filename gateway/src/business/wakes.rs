//! Which businesses the router looks at soon, and the task that lets it. Wakes of one business become one pass.

use std::{collections::HashMap, time::Duration};

use chat_shared::{
    ids::{BusinessId, ConversationId},
    position::Seq,
};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::Businesses;
use crate::state::AppState;

/// Businesses that wait for the router, and customers of one that have written. One more is left to the sweep.
const WAITING_MAX: usize = 10_000;
/// Cases that one pass opens.
const OPENED_TOGETHER_MAX: usize = 64;
/// Businesses at a time.
const ROUTED_TOGETHER_MAX: usize = 3;
/// After a pass the next one waits for at least this long, and for a multiple of the time that the pass took: wakes that come
/// meanwhile share a pass, which costs little more for ten cases than for one, and a burst at one business leaves most of the
/// processor time and of PostgreSQL to all else.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);
const PAUSE_FACTOR: u32 = 3;

/// Customers who have written: their conversations, and of each its place in the order of arrival and the last message.
type Written = HashMap<ConversationId, (usize, Seq)>;

/// The businesses that wait for the router.
#[derive(Default)]
pub(super) struct Wakes {
    waiting: Mutex<HashMap<BusinessId, Written>>,
    rung: Notify,
}

impl Wakes {
    /// Lets a business be looked at, once for everything that comes before it is.
    pub fn add(&self, business_id: BusinessId, written: Option<(ConversationId, Seq)>) {
        let mut waiting = self.waiting.lock();
        let is_full = waiting.len() >= WAITING_MAX && !waiting.contains_key(&business_id);
        if !is_full {
            let all = waiting.entry(business_id).or_default();
            if let Some((conversation_id, seq)) = written
                && (all.len() < WAITING_MAX || all.contains_key(&conversation_id))
            {
                let place = all.len();
                let (_, last) = all.entry(conversation_id).or_insert((place, seq));
                *last = seq.max(*last);
            }
        }
        drop(waiting);
        self.rung.notify_one();
    }

    fn take(&self) -> HashMap<BusinessId, Written> {
        std::mem::take(&mut *self.waiting.lock())
    }
}

/// Lets the router look at each business that is woken, until the gateway drains.
pub async fn run(state: AppState) {
    let (wakes, draining) = (&state.businesses.wakes, state.tasks.draining());
    // Cancel safe: what is left is found by the sweep of another gateway.
    while draining.run_until_cancelled(wakes.rung.notified()).await.is_some() {
        let woken = wakes.take();
        let businesses = &state.businesses;
        let routing = stream::iter(woken)
            .map(|(business_id, written)| route(businesses.clone(), business_id, written))
            .buffer_unordered(ROUTED_TOGETHER_MAX)
            .collect::<()>();
        if draining.run_until_cancelled(routing).await.is_none() {
            return;
        }
    }
}

async fn route(businesses: Businesses, business_id: BusinessId, written: Written) {
    let written = in_order(written);
    let mut rest = written.chunks(OPENED_TOGETHER_MAX);
    loop {
        let (some, started) = (rest.next().unwrap_or_default(), Instant::now());
        let pass = businesses.route(business_id, some).await;
        // Also after the last pass, for the wakes that come meanwhile.
        sleep((started.elapsed() * PAUSE_FACTOR).clamp(PAUSE_MIN, PAUSE_MAX)).await;
        match pass {
            Ok(pass) if pass.has_more || rest.len() > 0 => {}
            Ok(_) => return,
            Err(refusal) => return tracing::debug!(%refusal, "a business is left to the sweep"),
        }
    }
}

/// The customers in the order in which they have written.
fn in_order(written: Written) -> Vec<(ConversationId, Seq)> {
    let mut written: Vec<_> = written.into_iter().map(|(id, (place, seq))| (place, (id, seq))).collect();
    written.sort_unstable_by_key(|(place, _)| *place);
    written.into_iter().map(|(_, written)| written).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wakes_of_one_business_become_one_and_the_last_message_of_a_customer_counts() {
        let (wakes, business_id, conversation_id) = (Wakes::default(), BusinessId::random(), ConversationId::random());
        for seq in [3, 9, 4] {
            wakes.add(business_id, Some((conversation_id, Seq(seq))));
        }
        wakes.add(business_id, None);
        let woken = wakes.take();
        assert_eq!((woken.len(), woken[&business_id][&conversation_id]), (1, (0, Seq(9))));
        assert!(wakes.take().is_empty());
    }

    #[test]
    fn customers_are_opened_in_the_order_in_which_they_have_written() {
        let (wakes, business_id) = (Wakes::default(), BusinessId::random());
        let customers: Vec<_> = std::iter::repeat_with(ConversationId::random).take(100).collect();
        for conversation_id in customers.iter().chain(&customers[..10]) {
            wakes.add(business_id, Some((*conversation_id, Seq(1))));
        }
        let written = in_order(wakes.take().remove(&business_id).unwrap());
        assert_eq!(written.into_iter().map(|(id, _)| id).collect::<Vec<_>>(), customers);
    }
}
