//! Decides which replica is read from. Pure.
//!
//! The primary's place in its log is sampled again and again. What a replica has replayed says which of the samples it has
//! reached, and so from when on it may lack something. No statement writes a heartbeat, and an idle primary makes no replica
//! seem behind.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use chat_shared::position::Lsn;

/// How often the primary is sampled, and each replica is asked.
pub const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// Samples that are kept: those of more than a minute.
const SAMPLES_MAX: usize = 256;

/// Where the primary's log was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the primary was asked: all that was committed before has a place up to `lsn`.
    pub at: Instant,
    /// What it answered.
    pub lsn: Lsn,
}

/// What a replica answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// When the answer was there.
    pub at: Instant,
    /// Up to where it has replayed the primary's log.
    pub lsn: Lsn,
}

/// The last samples, in their order.
#[derive(Debug, Default)]
pub struct Samples(VecDeque<Sample>);

impl Samples {
    /// Adds one that was just taken.
    pub fn push(&mut self, sample: Sample) {
        if self.0.back().is_some_and(|last| last.lsn > sample.lsn) {
            // Another primary, or an older copy: places of before mean nothing in its log.
            self.0.clear();
        }
        if self.0.len() == SAMPLES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The moment before which nothing was committed that the replica lacks. None if that is longer ago than samples are
    /// kept, or if the replica is ahead of the primary and so follows another one.
    pub fn fresh_at(&self, replayed: Replayed) -> Option<Instant> {
        let mut since = self.0.iter().rev().take_while(|sample| sample.at >= replayed.at);
        if since.any(|sample| sample.lsn < replayed.lsn) {
            return None;
        }
        self.0.iter().rev().find(|sample| sample.lsn <= replayed.lsn).map(|sample| sample.at)
    }
}

/// What is known of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// It did not answer, follows no primary, or failed a moment ago.
    Away,
    /// It answers. With the moment of [`Samples::fresh_at`].
    There(Option<Instant>),
}

/// Why none is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoReplica {
    /// All that answer are too far behind.
    Behind,
    /// None answers.
    Away,
}

/// The index of a replica that may lack nothing but what was committed within `lag_max`. Of several it is each one's turn.
pub fn choose(known: &[Known], now: Instant, lag_max: Duration, turn: usize) -> Result<usize, NoReplica> {
    let is_fresh =
        |known: &Known| matches!(known, Known::There(Some(at)) if now.saturating_duration_since(*at) <= lag_max);
    let fresh: Vec<_> = known.iter().enumerate().filter(|(_, known)| is_fresh(known)).map(|(index, _)| index).collect();
    match fresh.get(turn % fresh.len().max(1)) {
        Some(index) => Ok(*index),
        None if known.iter().any(|known| *known != Known::Away) => Err(NoReplica::Behind),
        None => Err(NoReplica::Away),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const LAG_MAX: Duration = Duration::from_secs(5);
    const REPLICAS: usize = 3;

    /// What happens to the servers, 50 ms after what happened before.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The primary commits, and writes so many bytes.
        Commit(u8),
        Sample,
        /// A replica replays up to so many of the bytes that it lacks.
        Replay(usize, u8),
        /// A replica is asked how far it is.
        Ask(usize),
        /// A replica answers no more, or again.
        Vanish(usize),
        Return(usize),
        /// Nothing happens for so long.
        Wait(u16),
        /// Somebody reads who has to see all that was committed up to so many commits ago, or who has to see nothing.
        Read(Option<u8>),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let replica = 0..REPLICAS;
        let step = prop_oneof![
            4 => (1_u8..).prop_map(Step::Commit),
            4 => Just(Step::Sample),
            4 => (replica.clone(), any::<u8>()).prop_map(|(replica, bytes)| Step::Replay(replica, bytes)),
            4 => replica.clone().prop_map(Step::Ask),
            1 => replica.clone().prop_map(Step::Vanish),
            1 => replica.prop_map(Step::Return),
            1 => (0..4000_u16).prop_map(Step::Wait),
            4 => proptest::option::of(0..20_u8).prop_map(Step::Read),
        ];
        vec(step, 0..400)
    }

    #[derive(Default)]
    struct Server {
        replayed: u64,
        is_away: bool,
        answer: Option<Replayed>,
    }

    /// The servers as they are, and what a gateway knows of them.
    struct World {
        now: Instant,
        /// Moments of commits, and where the log was after each.
        commits: Vec<(Instant, u64)>,
        servers: [Server; REPLICAS],
        samples: Samples,
    }

    impl World {
        fn end(&self) -> u64 {
            self.commits.last().map_or(0, |(_, lsn)| *lsn)
        }

        fn known(&self) -> Vec<Known> {
            let fresh_at = |replayed| Known::There(self.samples.fresh_at(replayed));
            self.servers.iter().map(|server| server.answer.map_or(Known::Away, fresh_at)).collect()
        }

        fn step(&mut self, step: Step) {
            self.now += Duration::from_millis(50);
            match step {
                Step::Commit(bytes) => self.commits.push((self.now, self.end() + u64::from(bytes))),
                Step::Sample => self.samples.push(Sample { at: self.now, lsn: Lsn(self.end()) }),
                Step::Replay(index, bytes) => {
                    let replayed = self.servers[index].replayed + u64::from(bytes);
                    self.servers[index].replayed = replayed.min(self.end());
                }
                Step::Ask(index) => {
                    let (at, server) = (self.now, &mut self.servers[index]);
                    server.answer = (!server.is_away).then_some(Replayed { at, lsn: Lsn(server.replayed) });
                }
                Step::Vanish(index) => self.servers[index].is_away = true,
                Step::Return(index) => self.servers[index].is_away = false,
                Step::Wait(ms) => self.now += Duration::from_millis(ms.into()),
                Step::Read(_) => {}
            }
        }

        /// What is committed before that moment and lies after that place.
        fn lacks(&self, replayed: u64, before: Instant) -> bool {
            self.commits.iter().any(|(at, lsn)| *at < before && *lsn > replayed)
        }
    }

    proptest! {
        /// No read is older than the lag that is allowed, and none is from before what the reader has to see.
        #[test]
        fn r12_1_no_read_is_too_old(steps in steps(), turns in any::<u16>()) {
            let now = Instant::now();
            let mut world = World { now, commits: Vec::new(), servers: Default::default(), samples: Samples::default() };
            for step in steps {
                world.step(step);
                let Step::Read(since) = step else { continue };
                let known = world.known();
                let chosen = choose(&known, world.now, LAG_MAX, turns.into());
                if chosen.is_err() {
                    let is_answered = world.servers.iter().any(|server| server.answer.is_some());
                    prop_assert_eq!(chosen == Err(NoReplica::Behind), is_answered);
                }
                let lsn_min = since.map_or(0, |ago| {
                    let seen = world.commits.len().checked_sub(usize::from(ago) + 1);
                    seen.map_or(0, |seen| world.commits[seen].1)
                });
                // The server that is chosen is asked whether it has replayed that, else the primary is read from.
                let replayed = chosen.ok().map(|index| world.servers[index].replayed).filter(|lsn| *lsn >= lsn_min);
                let read = replayed.unwrap_or_else(|| world.end());
                prop_assert!(read >= lsn_min, "it lacks what the reader has to see");
                let lacks = world.now.checked_sub(LAG_MAX).is_some_and(|before| world.lacks(read, before));
                prop_assert!(!lacks, "it lacks what was committed 5 s ago");
                // One that answers and lacks nothing of a new sample is read from.
                let newest = world.samples.0.back().copied();
                let is_fresh = |server: &Server| match (server.answer, newest) {
                    (Some(answer), Some(newest)) => answer.lsn == newest.lsn && world.now - newest.at <= LAG_MAX,
                    _ => false,
                };
                prop_assert!(chosen.is_ok() || !world.servers.iter().any(is_fresh));
            }
        }
    }

    #[test]
    fn r12_1_a_replica_of_another_history_is_not_read_from() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut samples = Samples::default();
        samples.push(Sample { at: start, lsn: Lsn(900) });
        assert_eq!(
            samples.fresh_at(Replayed { at: start + second, lsn: Lsn(950) }),
            Some(start),
            "ahead of the sample"
        );
        // The primary comes back as an older copy, and the replica has what is gone.
        samples.push(Sample { at: start + second * 2, lsn: Lsn(100) });
        assert_eq!(samples.fresh_at(Replayed { at: start + second, lsn: Lsn(950) }), None);
        assert_eq!(samples.fresh_at(Replayed { at: start + second, lsn: Lsn(100) }), Some(start + second * 2));
        assert_eq!(samples.fresh_at(Replayed { at: start + second, lsn: Lsn(99) }), None);
    }

    #[test]
    fn each_fresh_replica_has_its_turn_and_an_idle_primary_makes_none_old() {
        let now = Instant::now();
        let fresh = Known::There(Some(now));
        let turns = (0..4).map(|turn| choose(&[fresh, Known::Away, fresh], now, LAG_MAX, turn));
        assert!(turns.eq([Ok(0), Ok(2), Ok(0), Ok(2)]));
        let mut samples = Samples::default();
        for second in 0..100 {
            samples.push(Sample { at: now + Duration::from_secs(second), lsn: Lsn(7) });
        }
        let asked_long_ago = Replayed { at: now, lsn: Lsn(7) };
        assert_eq!(samples.fresh_at(asked_long_ago), Some(now + Duration::from_secs(99)));
    }
}
