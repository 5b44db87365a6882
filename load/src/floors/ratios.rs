//! How a run compares to the floors of its machine.

use std::collections::BTreeMap;

use crate::report::{Aim, Figure, Floors, Run};

/// Accepting a message is to take at most so many times its floor.
const ACCEPT_MAX: f64 = 3.0;

/// The ratios that a run with messages has; none for what it didn't measure.
pub fn figures(floors: &Floors, run: &Run) -> BTreeMap<String, Figure> {
    let accept_us = Some(run.accept.p50_ms * 1000.0).filter(|_| run.accept.count > 0);
    let per_second = Some(run.accepted_per_second).filter(|rate| *rate > 0.0);
    let frames_per_second = per_second.map(|accepted| accepted + run.delivered_per_second);
    let ratios = [
        (
            "accepting / its floor",
            "×",
            ratio(accept_us, accept_floor_us(floors)),
            "The time until half of the messages were accepted, by two loopback round trips and one fsync: client to \
             gateway, gateway to log, log to disk. Less is impossible on this machine; the rest is what the software \
             adds, and waiting in line.",
        ),
        (
            "accepting / a bare append",
            "×",
            ratio(accept_us, floors.log_appends_one_at_a_time_us.p50),
            "The time until half of the messages were accepted, by that of an append to the same log server with \
             nothing around it.",
        ),
        (
            "accepted / bare appends",
            "%",
            ratio(per_second, floors.log_appends_per_second).map(percent),
            "Messages accepted a second, of the appends that the log server takes a second with nothing around them.",
        ),
        (
            "accepted / bare inserts",
            "%",
            ratio(per_second, floors.inserts_per_second).map(percent),
            "Messages accepted a second, of the rows that PostgreSQL takes a second in batches over one connection.",
        ),
        (
            "accepted and shown / bare echoes",
            "%",
            ratio(frames_per_second, floors.websocket_echoes_per_second).map(percent),
            "Messages accepted and shown a second, of the frames that a bare WebSocket server echoes a second with one \
             thread.",
        ),
    ];
    ratios
        .into_iter()
        .filter_map(|(name, unit, value, meaning)| {
            let figure = Figure { value: value?, unit: unit.to_owned(), meaning: meaning.to_owned() };
            Some((name.to_owned(), figure))
        })
        .collect()
}

/// Whether accepting a message takes little more than it must. Says something only of a run whose rate leaves the
/// machine room; none for a run without messages.
pub fn accept_aim(floors: &Floors, run: &Run) -> Option<Aim> {
    let accept_us = Some(run.accept.p50_ms * 1000.0).filter(|_| run.accept.count > 0);
    let value = ratio(accept_us, accept_floor_us(floors))?;
    Some(Aim {
        what: format!("accept p50 against two loopback round trips and one fsync, {} {}", run.target, run.name),
        aim: format!("≤ {ACCEPT_MAX} ×"),
        measured: format!("{value:.2} ×"),
        is_met: value <= ACCEPT_MAX,
    })
}

/// The least that accepting a message can take.
fn accept_floor_us(floors: &Floors) -> f64 {
    2.0 * floors.loopback_us.p50 + floors.fsync_us.p50
}

/// None if either is missing.
fn ratio(value: Option<f64>, floor: f64) -> Option<f64> {
    value.filter(|_| floor > 0.0).map(|value| value / floor)
}

fn percent(share: f64) -> f64 {
    share * 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Latency, Spread};

    fn spread(p50: f64) -> Spread {
        Spread { p50, p99: p50, count: 1 }
    }

    fn floors() -> Floors {
        Floors {
            fsync_us: spread(200.0),
            loopback_us: spread(50.0),
            log_appends_per_second: 20_000.0,
            log_appends_one_at_a_time_us: spread(400.0),
            inserts_per_second: 50_000.0,
            websocket_echo_us: spread(60.0),
            websocket_echoes_per_second: 100_000.0,
        }
    }

    fn run(accept_p50_ms: f64) -> Run {
        Run {
            accept: Latency { p50_ms: accept_p50_ms, count: 10, ..Latency::default() },
            accepted_per_second: 5000.0,
            delivered_per_second: 5000.0,
            ..Run::default()
        }
    }

    #[test]
    fn a_run_is_compared_to_each_floor() {
        let figures = figures(&floors(), &run(0.6));
        let values: Vec<(&str, f64, &str)> =
            figures.iter().map(|(name, figure)| (name.as_str(), figure.value.round(), figure.unit.as_str())).collect();
        assert_eq!(
            values,
            [
                ("accepted / bare appends", 25.0, "%"),
                ("accepted / bare inserts", 10.0, "%"),
                ("accepted and shown / bare echoes", 10.0, "%"),
                ("accepting / a bare append", 2.0, "×"),
                ("accepting / its floor", 2.0, "×"),
            ]
        );
    }

    #[test]
    fn accepting_is_to_take_three_times_its_floor_at_most() {
        let good = accept_aim(&floors(), &run(0.9)).unwrap();
        assert!(good.is_met && good.measured == "3.00 ×", "{good:?}");
        assert!(!accept_aim(&floors(), &run(0.95)).unwrap().is_met);
    }

    #[test]
    fn what_was_not_measured_is_not_compared() {
        assert!(figures(&floors(), &Run::default()).is_empty());
        assert!(figures(&Floors::default(), &run(1.0)).is_empty());
        assert_eq!(accept_aim(&floors(), &Run::default()), None);
        assert_eq!(accept_aim(&Floors::default(), &run(1.0)), None);
    }
}
