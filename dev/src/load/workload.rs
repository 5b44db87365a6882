//! One load, and how it is shared out among client processes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use chat_load::plan::{Absence, Crowd, Manners, Phase, Plan, Seat, Sends, TargetKind, Writers};

/// Client processes, at the least.
const PROCESSES_MIN: usize = 2;
/// Connections that one process holds, below what it may have open.
const SEATS_PER_PROCESS_MAX: usize = 15_000;
/// Source addresses of a process: each has 28,000 ports, and one that was used stays taken for a minute.
const SOURCES_PER_PROCESS: u8 = 4;
/// Connections that all processes together open at the same time.
const OPENING_MAX: usize = 64;

/// What is done with one set of servers, from beginning to end.
#[derive(Debug, Clone)]
pub struct Workload {
    /// For the report.
    pub name: String,
    /// Who does what.
    pub crowds: Vec<CrowdLoad>,
    /// Times that are counted by themselves.
    pub phases: Vec<Phase>,
    /// Index of the phase whose cost is counted.
    pub costed: usize,
    /// How long the last answers and shows are waited for.
    pub drain: Duration,
}

/// Clients that do the same.
#[derive(Debug, Clone, Default)]
pub struct CrowdLoad {
    /// Those of one conversation stand one after the other.
    pub seats: Vec<Seat>,
    /// How many seats share a conversation.
    pub conversation_size: usize,
    /// What they write together.
    pub sends: Option<Sends>,
    /// How they lose their connections.
    pub absence: Option<Absence>,
    /// What they do besides.
    pub manners: Manners,
}

impl Workload {
    /// Everybody writes to everybody in their conversation, at one pace: warm-up, then what is measured.
    pub fn steady(name: String, seats: Vec<Seat>, conversation_size: usize, per_second: f64, pace: Pace) -> Self {
        let until_us = micros(pace.warm_up + pace.length);
        let sends = Sends { per_second, from_us: 0, until_us, writers: Writers::All };
        let crowd = CrowdLoad { seats, conversation_size, sends: Some(sends), ..CrowdLoad::default() };
        let phase = Phase { name: "measured".to_owned(), from_us: micros(pace.warm_up), until_us };
        Self { name, crowds: vec![crowd], phases: vec![phase], costed: 0, drain: pace.drain }
    }

    /// All clients.
    pub fn connections(&self) -> usize {
        self.crowds.iter().map(|crowd| crowd.seats.len()).sum()
    }

    /// The phase whose cost is counted.
    pub fn costed(&self) -> &Phase {
        &self.phases[self.costed]
    }

    /// What each process does.
    pub fn plans(&self, target: TargetKind, addresses: &[SocketAddr], run: u64) -> Vec<Plan> {
        let processes = PROCESSES_MIN.max(self.connections().div_ceil(SEATS_PER_PROCESS_MAX));
        let mut first_seat = 0;
        (0..processes)
            .map(|process| {
                let crowds: Vec<Crowd> = self.crowds.iter().map(|crowd| crowd.part(process, processes)).collect();
                let seats: usize = crowds.iter().map(|crowd| crowd.seats.len()).sum();
                let plan = Plan {
                    target,
                    addresses: addresses.to_vec(),
                    sources: sources(process),
                    run,
                    first_seat,
                    crowds,
                    phases: self.phases.clone(),
                    drain_us: micros(self.drain),
                    opening_max: OPENING_MAX.div_ceil(processes),
                };
                first_seat += u32::try_from(seats).unwrap_or(u32::MAX);
                plan
            })
            .collect()
    }
}

/// How long a steady load goes on.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Not measured, so that caches and pools are as they stay.
    pub warm_up: Duration,
    /// Measured.
    pub length: Duration,
    /// How long the last answers and shows are waited for.
    pub drain: Duration,
}

impl CrowdLoad {
    /// The share of one process: whole conversations, and of the sends as many as it has of those.
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    fn part(&self, process: usize, processes: usize) -> Crowd {
        let size = self.conversation_size;
        let conversations = self.seats.len() / size;
        let bound = |process: usize| conversations * process / processes;
        let (first, end) = (bound(process), bound(process + 1));
        let sends = self.sends.map(|sends| {
            let share = (end - first) as f64 / conversations.max(1) as f64;
            // The processes take turns instead of sending at the same moments.
            let offset = process as f64 * 1e6 / sends.per_second;
            Sends { per_second: sends.per_second * share, from_us: sends.from_us + offset as u64, ..sends }
        });
        Crowd {
            seats: self.seats[first * size..end * size].to_vec(),
            conversation_size: size,
            sends: sends.filter(|sends| sends.per_second > 0.0),
            absence: self.absence,
            manners: self.manners,
        }
    }
}

/// Loopback addresses of a client process, all different from those of the servers.
fn sources(process: usize) -> Vec<IpAddr> {
    let process = u8::try_from(process % 60).unwrap_or_default();
    (0..SOURCES_PER_PROCESS)
        .map(|number| Ipv4Addr::new(127, 0, 0, 2 + process * SOURCES_PER_PROCESS + number).into())
        .collect()
}

/// A part of the time of a load that is measured by itself.
pub fn phase(name: &str, from: Duration, until: Duration) -> Phase {
    Phase { name: name.to_owned(), from_us: micros(from), until_us: micros(until) }
}

/// As plans count.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use uuid::Uuid;

    use super::*;

    fn seats(count: usize) -> Vec<Seat> {
        let seat = |number: usize| Seat {
            user: number.to_string(),
            secret: String::new(),
            device: Uuid::nil(),
            conversation: (number / 2).to_string(),
            address: number % 2,
        };
        (0..count).map(seat).collect()
    }

    fn steady(conversations: usize) -> Workload {
        let second = Duration::from_secs(1);
        let pace = Pace { warm_up: second, length: second, drain: second };
        Workload::steady("test".into(), seats(conversations * 2), 2, 1000.0, pace)
    }

    #[test]
    fn processes_share_whole_conversations_and_the_rate() {
        let plans = steady(5).plans(TargetKind::Chat, &[], 1);
        assert_eq!(plans.len(), 2);
        assert_eq!(plans[1].first_seat, 4);
        let users: Vec<&str> =
            plans.iter().flat_map(|plan| &plan.crowds[0].seats).map(|seat| seat.user.as_str()).collect();
        assert_eq!(users, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
        let rates: Vec<f64> = plans.iter().map(|plan| plan.crowds[0].sends.unwrap().per_second).collect();
        assert!((rates[0] - 400.0).abs() < 1e-9 && (rates[1] - 600.0).abs() < 1e-9, "{rates:?}");
        let sources: HashSet<IpAddr> = plans.iter().flat_map(|plan| plan.sources.clone()).collect();
        assert_eq!(sources.len(), 8);
    }

    #[test]
    fn many_connections_need_more_processes() {
        let plans = steady(20_000).plans(TargetKind::Chat, &[], 1);
        assert_eq!(plans.len(), 3);
        assert!(plans.iter().all(|plan| plan.crowds[0].seats.len() <= SEATS_PER_PROCESS_MAX));
    }

    #[test]
    fn a_process_without_conversations_sends_nothing() {
        let plans = steady(1).plans(TargetKind::Chat, &[], 1);
        let sends: Vec<bool> = plans.iter().map(|plan| plan.crowds[0].sends.is_some()).collect();
        assert_eq!(sends, [false, true]);
    }
}
