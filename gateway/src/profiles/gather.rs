//! Gathers what concurrent requests miss into few calls. An id is asked for once at a time: whoever wants it meanwhile
//! waits for the same answer.
//!
//! **Invariant:** whoever is told something is told what was asked for after the last change that this gateway or Redis
//! knew of by then.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use chat_shared::{
    clock::{Clock, Timestamp},
    limits,
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    kaha::Kaha,
    record::{ProfileId, Verdict},
    remembered::{Before, Remembered},
    stored::{Generation, Stored},
    telemetry,
};

/// How long misses gather.
const GATHER: Duration = Duration::from_millis(2);
/// Calls at a time. The others gather on, so that the next ones are fuller.
const CALLS_MAX: usize = 8;
/// Ids that are asked for or wait for it. Over it an id is not asked for now.
const FLIGHTS_MAX: usize = 20_000;
/// Requests that wait for one id. Over it a request is not told.
const JOINERS_MAX: usize = 10_000;
/// Times that an id is asked for again because it changed while it was fetched.
const OVERTAKEN_MAX: u32 = 4;

/// What an id came to; none if nothing usable could be learnt.
pub(super) type Arrival = (ProfileId, Option<Verdict>);

/// Answers as they arrive. It ends when there are no more to come.
pub(super) type Arrivals = mpsc::Receiver<Arrival>;

/// An id, and the generation that Redis had of it; none if Redis didn't say, and then it isn't kept there.
pub(super) type Wanted = (ProfileId, Option<Generation>);

/// The ids that are being asked for.
#[derive(Default)]
pub(super) struct Gatherer {
    flights: Mutex<Flights>,
    rung: Notify,
}

#[derive(Default)]
struct Flights {
    by_id: HashMap<ProfileId, Flight>,
    waiting: VecDeque<ProfileId>,
}

struct Flight {
    generation: Option<Generation>,
    is_under_way: bool,
    /// It changed since the call began.
    is_overtaken: bool,
    times_overtaken: u32,
    joiners: Vec<mpsc::Sender<Arrival>>,
}

/// What the calls work with.
pub(super) struct Sources {
    pub kaha: Kaha,
    pub stored: Stored,
    pub remembered: Remembered,
    pub clock: Clock,
}

/// What a call asks for, with the moment before it.
type Asked = (ProfileId, Option<Generation>, Before);

impl Gatherer {
    /// Asks for ids soon; the answers arrive in any order. What has been remembered since it was looked for arrives at once.
    pub fn ask(&self, wanted: &[Wanted], remembered: &Remembered) -> Arrivals {
        let (joiner, arrivals) = mpsc::channel(wanted.len().max(1));
        let mut flights = self.flights.lock();
        for (id, generation) in wanted {
            // What has landed is remembered before its flight is gone, under the same lock.
            if let Some(verdict) = remembered.get(*id) {
                // There is room for each id once.
                let _told = joiner.try_send((*id, Some(verdict)));
            } else {
                flights.join(*id, *generation, &joiner);
            }
        }
        let is_ringing = !flights.waiting.is_empty();
        drop(flights);
        if is_ringing {
            self.rung.notify_one();
        }
        arrivals
    }

    /// Takes note that profiles have changed: what is being fetched of them is not to be believed.
    pub fn overtake(&self, ids: &[ProfileId]) {
        let mut flights = self.flights.lock();
        for id in ids {
            if let Some(flight) = flights.by_id.get_mut(id) {
                flight.is_overtaken |= flight.is_under_way;
            }
        }
    }

    /// As `overtake`, of all of them.
    pub fn overtake_all(&self) {
        for flight in self.flights.lock().by_id.values_mut() {
            flight.is_overtaken |= flight.is_under_way;
        }
    }

    /// Calls kaha-main-v3 for whoever asks, until `stopping`.
    pub async fn run(self: Arc<Self>, sources: Arc<Sources>, stopping: CancellationToken) {
        let mut calls = FuturesUnordered::new();
        loop {
            // Cancel safe: a ring is kept until somebody hears it, and a call that isn't done is polled again.
            tokio::select! {
                () = stopping.cancelled() => return,
                Some(()) = calls.next() => {}
                () = self.rung.notified(), if calls.len() < CALLS_MAX => tokio::time::sleep(GATHER).await,
            }
            while calls.len() < CALLS_MAX
                && let Some(batch) = self.take(&sources.remembered)
            {
                calls.push(self.call(&sources, batch));
            }
        }
    }

    /// The ids of the next call.
    fn take(&self, remembered: &Remembered) -> Option<Vec<Asked>> {
        let mut flights = self.flights.lock();
        let count = flights.waiting.len().min(limits::KAHA_CALL_IDS_MAX);
        let ids: Vec<_> = flights.waiting.drain(..count).collect();
        if flights.waiting.is_empty() {
            flights.waiting.shrink_to(limits::KAHA_CALL_IDS_MAX);
        }
        let mut batch = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(flight) = flights.by_id.get_mut(&id) {
                flight.is_under_way = true;
                flight.is_overtaken = false;
                batch.push((id, flight.generation, remembered.before(id)));
            }
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn call(&self, sources: &Sources, batch: Vec<Asked>) {
        let ids: Vec<_> = batch.iter().map(|(id, ..)| *id).collect();
        let asked_at = sources.clock.now();
        let verdicts = sources.kaha.ask(&ids).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "profiles were not fetched");
            HashMap::new()
        });
        // Nobody is told before Redis has said whether it changed meanwhile.
        let newer = sources.keep(&batch, &verdicts, asked_at).await;
        let mut is_ringing = false;
        for (id, _, before) in batch {
            let (verdict, newer) = (verdicts.get(&id), newer.get(&id).copied());
            is_ringing |= self.settle(&sources.remembered, id, verdict, newer, before);
        }
        if is_ringing {
            self.rung.notify_one();
        }
    }

    /// Tells whoever wants an id what came of it; true if it changed meanwhile and is to be asked for again.
    fn settle(
        &self,
        remembered: &Remembered,
        id: ProfileId,
        verdict: Option<&Verdict>,
        newer: Option<Generation>,
        before: Before,
    ) -> bool {
        let mut flights = self.flights.lock();
        if flights.go_again(id, newer, verdict.is_some()) {
            return true;
        }
        let Some(flight) = flights.by_id.remove(&id) else { return false };
        // Under the lock, so that whoever forgets it comes after this or has been seen by it.
        if let Some(verdict) = verdict
            && !flight.is_overtaken
            && newer.is_none()
        {
            remembered.put(id, verdict.clone(), before);
        }
        drop(flights);
        for joiner in flight.joiners {
            // There is room for each id once; whoever is gone needs nothing.
            let _told = joiner.try_send((id, verdict.cloned()));
        }
        false
    }
}

impl Sources {
    /// Keeps what was fetched, and gives those that are in another generation by now than when they were asked for.
    async fn keep(
        &self,
        batch: &[Asked],
        verdicts: &HashMap<ProfileId, Verdict>,
        asked_at: Timestamp,
    ) -> HashMap<ProfileId, Generation> {
        let fetched = |(id, generation, _): &Asked| Some((*id, (*generation)?, verdicts.get(id)?.clone()));
        let fetched: Vec<_> = batch.iter().filter_map(fetched).collect();
        if fetched.is_empty() {
            return HashMap::new();
        }
        match self.stored.store(&fetched, asked_at).await {
            Ok(now) => {
                let generations = fetched.into_iter().zip(now);
                let newer = generations.filter(|((_, asked, _), now)| asked != now);
                newer.map(|((id, ..), now)| (id, now)).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "profiles were not kept");
                HashMap::new()
            }
        }
    }
}

impl Flights {
    fn join(&mut self, id: ProfileId, generation: Option<Generation>, joiner: &mpsc::Sender<Arrival>) {
        if let Some(flight) = self.by_id.get_mut(&id) {
            if generation > flight.generation {
                // It began before a change that the joiner knows of.
                flight.is_overtaken |= flight.is_under_way && flight.generation.is_some();
                flight.generation = generation;
            }
            if flight.joiners.len() < JOINERS_MAX {
                flight.joiners.push(joiner.clone());
            }
        } else if self.by_id.len() < FLIGHTS_MAX {
            let joiners = vec![joiner.clone()];
            let flight = Flight { generation, is_under_way: false, is_overtaken: false, times_overtaken: 0, joiners };
            self.by_id.insert(id, flight);
            self.waiting.push_back(id);
        }
    }

    /// Lets an id that was overtaken be asked for again, if it was not too often.
    fn go_again(&mut self, id: ProfileId, newer: Option<Generation>, is_answered: bool) -> bool {
        let Some(flight) = self.by_id.get_mut(&id) else { return false };
        let is_overtaken = flight.is_overtaken || newer.is_some();
        if !is_overtaken || !is_answered || flight.times_overtaken >= OVERTAKEN_MAX {
            return false;
        }
        metrics::counter!(telemetry::OVERTAKEN_TOTAL).increment(1);
        flight.times_overtaken += 1;
        flight.is_under_way = false;
        flight.is_overtaken = false;
        flight.generation = newer.or(flight.generation);
        self.waiting.push_back(id);
        true
    }
}

#[cfg(test)]
mod tests {
    use chat_shared::ids::UserId;

    use super::*;

    fn ids(count: usize) -> Vec<ProfileId> {
        std::iter::repeat_with(|| ProfileId::User(UserId::random())).take(count).collect()
    }

    fn wanted(ids: &[ProfileId]) -> Vec<Wanted> {
        ids.iter().map(|id| (*id, Some(Generation::default()))).collect()
    }

    #[test]
    fn an_id_is_asked_for_once_however_many_want_it_r11_4() {
        let (gatherer, remembered, ids) = (Gatherer::default(), Remembered::default(), ids(250));
        let (_first, _second) =
            (gatherer.ask(&wanted(&ids[..150]), &remembered), gatherer.ask(&wanted(&ids), &remembered));
        let batch = |gatherer: &Gatherer| gatherer.take(&remembered).map(|batch| batch.len());
        assert_eq!([batch(&gatherer), batch(&gatherer), batch(&gatherer)], [Some(200), Some(50), None]);
        let _joiner = gatherer.ask(&wanted(&ids[..10]), &remembered);
        assert_eq!(batch(&gatherer), None, "they are on their way");
    }

    #[test]
    fn what_changed_on_its_way_is_asked_for_again_a_few_times_r10_2() {
        let (gatherer, remembered, ids) = (Gatherer::default(), Remembered::default(), ids(1));
        let _arrivals = gatherer.ask(&wanted(&ids), &remembered);
        gatherer.overtake(&ids);
        for _ in 0..OVERTAKEN_MAX {
            assert_eq!(gatherer.take(&remembered).unwrap().len(), 1, "what changes before it goes is no matter");
            gatherer.overtake(&ids);
            assert!(gatherer.flights.lock().go_again(ids[0], None, true));
        }
        assert!(gatherer.take(&remembered).is_some());
        gatherer.overtake_all();
        assert!(!gatherer.flights.lock().go_again(ids[0], None, true), "enough");
    }

    #[test]
    fn what_landed_while_it_was_looked_for_is_not_asked_for_again_r11_4() {
        let (gatherer, remembered, ids) = (Gatherer::default(), Remembered::default(), ids(1));
        remembered.put(ids[0], Verdict::Unknown, remembered.before(ids[0]));
        let mut arrivals = gatherer.ask(&wanted(&ids), &remembered);
        assert_eq!(arrivals.try_recv(), Ok((ids[0], Some(Verdict::Unknown))));
        assert!(gatherer.take(&remembered).is_none());
    }

    #[test]
    fn there_is_an_end_to_what_is_asked_for_at_once() {
        let (gatherer, remembered, ids) = (Gatherer::default(), Remembered::default(), ids(FLIGHTS_MAX + 1));
        let mut arrivals = gatherer.ask(&wanted(&ids), &remembered);
        assert_eq!(gatherer.flights.lock().by_id.len(), FLIGHTS_MAX);
        drop(arrivals.try_recv());
        let mut none = gatherer.ask(&wanted(&ids[FLIGHTS_MAX..]), &remembered);
        assert_eq!(none.try_recv(), Err(mpsc::error::TryRecvError::Disconnected), "nothing will come");
    }
}
