//! What the tables say, for the terminal and the page alike: sections of rows, with a column for each run.

use std::collections::BTreeSet;

use super::{
    model::{Floors, Latency, ProcessCost, Proof, Run},
    number,
};

/// Rows that belong together.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Section {
    pub title: &'static str,
    /// What the rows mean, for a stranger.
    pub note: &'static str,
    pub rows: Vec<Row>,
}

/// One quantity over all runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// The quantity, with its unit unless the cells have it.
    pub name: String,
    /// A cell for each run; none where the run says nothing of it.
    pub cells: Vec<Option<String>>,
    /// What must be zero and is not.
    pub is_wrong: bool,
}

/// A quantity that has no runs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fact {
    pub name: &'static str,
    pub value: String,
}

/// Everything about `runs`; what no run speaks of is left out.
pub(super) fn sections(runs: &[Run]) -> Vec<Section> {
    let all = [throughput(runs), accept(runs), deliver(runs), proof(runs), errors(runs)];
    let all = all.into_iter().chain([processor_time(runs), memory(runs), servers(runs)]);
    all.filter(|section| !section.rows.is_empty()).collect()
}

/// What a column is called.
pub(super) fn column(run: &Run) -> String {
    format!("{} {}", run.target, run.name)
}

/// The floors, one by one.
pub(super) fn floors(floors: &Floors) -> Vec<Fact> {
    let fact = |name, value| Fact { name, value };
    let spread = |spread: &super::Spread| {
        format!("p50 {}, p99 {}", number::microseconds(spread.p50), number::microseconds(spread.p99))
    };
    let rate = |rate| format!("{} /s", number::number(rate));
    vec![
        fact("a small write made durable (fsync)", spread(&floors.fsync_us)),
        fact("100 bytes over loopback TCP and back", spread(&floors.loopback_us)),
        fact("bare append to the log, one at a time", spread(&floors.log_appends_one_at_a_time_us)),
        fact("bare appends to the log, many in flight", rate(floors.log_appends_per_second)),
        fact("bare inserts in PostgreSQL, 500 rows a commit", rate(floors.inserts_per_second)),
        fact("bare WebSocket echo, one at a time", spread(&floors.websocket_echo_us)),
        fact("bare WebSocket echoes, many in flight", rate(floors.websocket_echoes_per_second)),
    ]
}

fn throughput(runs: &[Run]) -> Section {
    let is_sending = |run: &Run| run.offered_per_second > 0.0 || run.delivered_per_second > 0.0;
    let row = |name, of: fn(&Run) -> f64| row(name, runs, |run| is_sending(run).then(|| number::number(of(run))));
    Section {
        title: "Throughput, messages a second",
        note: "Over the whole run. The schedule does not wait for answers: what a slow backend does \
               not take in time shows as latency.",
        rows: [
            row("due by the schedule", |run| run.offered_per_second),
            row("accepted", |run| run.accepted_per_second),
            row("shown to others", |run| run.delivered_per_second),
        ]
        .into_iter()
        .filter(Row::says_something)
        .collect(),
    }
}

fn accept(runs: &[Run]) -> Section {
    Section {
        title: "Time until accepted",
        note: "From the moment a message was due to its sender's being told that it is kept.",
        rows: latency(runs, |run| &run.accept),
    }
}

fn deliver(runs: &[Run]) -> Section {
    Section {
        title: "Time until shown",
        note: "From the moment a message was due until another participant's client had it.",
        rows: latency(runs, |run| &run.deliver),
    }
}

fn latency(runs: &[Run], of: fn(&Run) -> &Latency) -> Vec<Row> {
    type Part = (&'static str, fn(&Latency) -> f64);
    const PARTS: [Part; 5] = [
        ("half (p50)", |latency| latency.p50_ms),
        ("9 of 10 (p90)", |latency| latency.p90_ms),
        ("99 of 100 (p99)", |latency| latency.p99_ms),
        ("999 of 1,000 (p99.9)", |latency| latency.p999_ms),
        ("the longest", |latency| latency.max_ms),
    ];
    let cell = |run: &Run, part: fn(&Latency) -> f64| {
        let latency = of(run);
        (latency.count > 0).then(|| number::milliseconds(part(latency)))
    };
    let rows = PARTS.iter().map(|(name, part)| row(name, runs, |run| cell(run, *part)));
    rows.filter(Row::says_something).collect()
}

fn proof(runs: &[Run]) -> Section {
    type Part = (&'static str, fn(&Proof) -> u64, bool);
    const PARTS: [Part; 7] = [
        ("accepted", |proof| proof.accepted, false),
        ("of those in the database", |proof| proof.kept, false),
        ("had to be shown", |proof| proof.expected_shows, false),
        ("of those shown", |proof| proof.shown, false),
        ("lost", |proof| proof.lost, true),
        ("shown more than once", |proof| proof.repeated, false),
        ("sends without an answer", |proof| proof.unanswered, false),
    ];
    let rows = PARTS.iter().map(|(name, part, must_be_zero)| Row {
        is_wrong: *must_be_zero && runs.iter().filter_map(|run| run.proof.as_ref()).any(|proof| part(proof) > 0),
        ..row(name, runs, |run| run.proof.as_ref().map(|proof| number::count(part(proof))))
    });
    Section {
        title: "What became of the messages, counts",
        note: "Counted after the run, from outside: in the database, and by every client that had to be shown them.",
        rows: rows.filter(Row::says_something).collect(),
    }
}

fn errors(runs: &[Run]) -> Section {
    let kinds: BTreeSet<&String> = runs.iter().flat_map(|run| run.errors.keys()).collect();
    let cell = |run: &Run, kind: &String| Some(number::count(run.errors.get(kind).copied().unwrap_or(0)));
    Section {
        title: "Errors",
        note: "How often each went wrong.",
        rows: kinds.into_iter().map(|kind| row(kind, runs, |run| cell(run, kind))).collect(),
    }
}

fn processor_time(runs: &[Run]) -> Section {
    let mut rows = vec![row("all but the load generator", runs, |run| {
        let is_known = run.accepts() && run.processes.values().any(|process| !process.is_generator);
        is_known.then(|| number::number(run.cpu_seconds_per_1000))
    })];
    rows.extend(of_processes(runs, |run, process| run.accepts().then(|| number::number(process.cpu_seconds_per_1000))));
    rows.retain(Row::says_something);
    Section {
        title: "Processor time, seconds for 1,000 accepted messages",
        note: "Of one processor, in user code and in the kernel.",
        rows,
    }
}

fn memory(runs: &[Run]) -> Section {
    Section {
        title: "Memory",
        note: "The most that each process held; a server with several processes counts once.",
        rows: of_processes(runs, |_, process| {
            (process.memory_peak_bytes > 0).then(|| number::bytes(process.memory_peak_bytes))
        }),
    }
}

fn of_processes(runs: &[Run], cell: impl Fn(&Run, &ProcessCost) -> Option<String>) -> Vec<Row> {
    let names: BTreeSet<(bool, &String)> =
        runs.iter().flat_map(|run| &run.processes).map(|(name, process)| (process.is_generator, name)).collect();
    let rows = names.into_iter().map(|(is_generator, name)| {
        let shown = if is_generator { format!("{name} (makes the load)") } else { name.clone() };
        row(&shown, runs, |run| run.processes.get(name).and_then(|process| cell(run, process)))
    });
    rows.filter(Row::says_something).collect()
}

fn servers(runs: &[Run]) -> Section {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.counters.fsyncs_per_1000.keys()).collect();
    let mut rows: Vec<Row> = names
        .into_iter()
        .map(|name| {
            row(&format!("fsyncs of {name}"), runs, |run| {
                run.counters.fsyncs_per_1000.get(name).filter(|_| run.accepts()).copied().map(number::number)
            })
        })
        .collect();
    let of = |run: &Run, count: Option<f64>| count.filter(|_| run.accepts()).map(number::number);
    rows.push(row("SQL statements", runs, |run| of(run, run.counters.sql_statements_per_1000)));
    rows.push(row("Redis commands", runs, |run| of(run, run.counters.redis_calls_per_1000)));
    rows.retain(Row::says_something);
    Section { title: "Work of the servers for 1,000 accepted messages", note: "As they count it themselves.", rows }
}

fn row(name: &str, runs: &[Run], cell: impl Fn(&Run) -> Option<String>) -> Row {
    Row { name: name.to_owned(), cells: runs.iter().map(cell).collect(), is_wrong: false }
}

impl Row {
    fn says_something(&self) -> bool {
        self.cells.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Counters;

    #[test]
    fn what_no_run_speaks_of_is_left_out() {
        let bare = Run { offered_per_second: 200.0, ..Run::default() };
        let titles: Vec<_> = sections(&[bare]).iter().map(|section| section.title).collect();
        assert_eq!(titles, ["Throughput, messages a second"]);
    }

    #[test]
    fn every_row_has_a_cell_for_each_run_even_if_only_one_knows_the_process() {
        let cost = ProcessCost { cpu_seconds_per_1000: 0.2, ..ProcessCost::default() };
        let ours =
            Run { accepted_per_second: 1.0, processes: [("gateway-1".to_owned(), cost)].into(), ..Run::default() };
        let found = sections(&[ours, Run::default()]);
        let row = found.iter().flat_map(|section| &section.rows).find(|row| row.name == "gateway-1").unwrap();
        assert_eq!(row.cells, [Some("0.2".to_owned()), None]);
    }

    #[test]
    fn nothing_is_said_for_a_thousand_messages_where_there_was_none() {
        let processes = [("gateway-1".to_owned(), ProcessCost { cpu_seconds_per_1000: 9e9, ..ProcessCost::default() })];
        let counters = Counters { redis_calls_per_1000: Some(9e9), ..Counters::default() };
        assert_eq!(sections(&[Run { processes: processes.into(), counters, ..Run::default() }]), []);
    }

    #[test]
    fn a_loss_is_wrong_and_a_repeat_is_not() {
        let proof = Proof { lost: 1, repeated: 3, ..Proof::default() };
        let found = sections(&[Run { proof: Some(proof), ..Run::default() }]);
        let wrong = found.iter().flat_map(|section| &section.rows).filter(|row| row.is_wrong);
        assert_eq!(wrong.map(|row| row.name.as_str()).collect::<Vec<_>>(), ["lost"]);
    }
}
