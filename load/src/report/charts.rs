//! What is plotted of a report.

use std::collections::{BTreeMap, BTreeSet};

use maud::{Markup, html};

use super::{
    model::{Latency, Report, Run, Second},
    number,
    plot::{self, Axis, Line, Scale},
    rows,
};

const MEBIBYTE: f64 = 1024.0 * 1024.0;
/// Two rates are different if one is so many times the other.
const RATES_DIFFER: f64 = 1.1;
/// Percentiles beyond this are single messages.
const PERCENTILE_MAX: f64 = 99.99;

/// The same colour for a process everywhere on the page.
#[derive(Debug)]
pub(super) struct Palette(BTreeMap<String, usize>);

impl Palette {
    /// One colour for each process that any run knows.
    pub fn of(report: &Report) -> Self {
        let names: BTreeSet<&String> = report.runs.iter().flat_map(process_names).collect();
        Self(names.into_iter().cloned().zip(0..).collect())
    }

    fn colour(&self, process: &str) -> usize {
        self.0.get(process).copied().unwrap_or(0)
    }
}

/// The section of latencies of all runs, by percentile, and by rate where a target was given several.
pub(super) fn latencies(runs: &[Run]) -> Markup {
    if runs.iter().all(|run| run.accept.count == 0 && run.deliver.count == 0) {
        return html! {};
    }
    html! {
        section {
            h2 { "Latency" }
            p.note {
                "Counted from the moment a message was due, not from when it was written: a backend that falls behind \
                 does not slow the clock. Along the percentiles, each step to the right is ten times rarer."
            }
            div.plots {
                (percentiles("Time until accepted", runs, |run| &run.accept))
                (percentiles("Time until shown to others", runs, |run| &run.deliver))
                (by_rate(runs))
            }
        }
    }
}

fn percentiles(title: &str, runs: &[Run], of: fn(&Run) -> &Latency) -> Markup {
    let lines: Vec<Line> = (0..)
        .zip(runs)
        .map(|(colour, run)| {
            let points = of(run).percentiles.iter().copied().filter(|(percentile, _)| *percentile <= PERCENTILE_MAX);
            Line { name: rows::column(run), colour, points: points.collect(), has_dots: false }
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    if lines.is_empty() {
        return html! {};
    }
    let percent = |value: f64| if value > 0.0 { format!("{value}") } else { "0".to_owned() };
    let x = Axis::over("percent of the messages took at most this long", Scale::Percentile, [].into_iter(), percent);
    let y = Axis::over("time", Scale::Log, values(&lines), number::milliseconds);
    plot::lines(title, "", &x, &y, &lines)
}

/// How latency grows with the rate, if a target was measured at more than one.
fn by_rate(runs: &[Run]) -> Markup {
    let mut targets: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    for run in runs.iter().filter(|run| run.deliver.count > 0) {
        targets.entry(&run.target).or_default().push((run.accepted_per_second, run.deliver.p99_ms));
    }
    let differ = |points: &Vec<(f64, f64)>| {
        let rates = || points.iter().map(|point| point.0);
        rates().fold(0.0, f64::max) > rates().fold(f64::INFINITY, f64::min) * RATES_DIFFER
    };
    if !targets.values().any(differ) {
        return html! {};
    }
    let lines: Vec<Line> = (0..)
        .zip(targets)
        .map(|(colour, (target, mut points))| {
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            Line { name: target.to_owned(), colour, points, has_dots: true }
        })
        .collect();
    let x = Axis::over("accepted messages per second", Scale::Linear, places(&lines), number::number);
    let y = Axis::over("99 of 100 shown within", Scale::Log, values(&lines), number::milliseconds);
    plot::lines("Latency by rate", "Further right and lower is better.", &x, &y, &lines)
}

/// A run second by second.
pub(super) fn over_time(run: &Run, palette: &Palette) -> Markup {
    let seconds = &run.timeline;
    let line = |name: &str, colour, of: &dyn Fn(&Second) -> f64| Line {
        name: name.to_owned(),
        colour,
        points: seconds.iter().map(|second| (second.at, of(second))).collect(),
        has_dots: false,
    };
    let of_processes = |of: &dyn Fn(&Second, &str) -> Option<f64>| -> Vec<Line> {
        let names: BTreeSet<&String> = process_names(run).collect();
        let lines = names.into_iter().map(|name| Line {
            name: name.clone(),
            colour: palette.colour(name),
            points: seconds.iter().filter_map(|second| Some((second.at, of(second, name)?))).collect(),
            has_dots: false,
        });
        lines.filter(|line| !line.points.is_empty()).collect()
    };
    #[expect(clippy::cast_precision_loss, reason = "a pixel is coarser")]
    let (throughput, cpu, memory) = (
        vec![
            line("accepted", 0, &|second| second.accepted as f64),
            line("shown to others", 1, &|second| second.delivered as f64),
        ],
        of_processes(&|second, name| second.cpu.get(name).copied()),
        of_processes(&|second, name| second.memory_bytes.get(name).map(|bytes| *bytes as f64 / MEBIBYTE)),
    );
    let latency = vec![
        line("until accepted", 0, &|second| second.accept_p99_ms),
        line("until shown", 1, &|second| second.deliver_p99_ms),
    ];
    html! {
        div.plots {
            (timed("Throughput", "messages in the second", &throughput, number::number))
            (timed("Latency, 99 of 100 within", "time", &latency, number::milliseconds))
            (timed("Processors in use, by process", "processors", &cpu, number::number))
            (timed("Memory by process", "MiB", &memory, number::number))
        }
    }
}

fn timed(title: &str, label: &str, lines: &[Line], mark: fn(f64) -> String) -> Markup {
    let x = Axis::over("seconds since the start", Scale::Linear, places(lines), number::number);
    let y = Axis::over(label, Scale::Linear, values(lines), mark);
    // A scenario that sends nothing has lines of zeros.
    if values(lines).all(|value| value <= 0.0) {
        html! {}
    } else {
        plot::lines(title, "", &x, &y, lines)
    }
}

/// The section of processor time for 1,000 messages: a bar for each run, a part for each process.
pub(super) fn processor_bars(runs: &[Run], palette: &Palette) -> Markup {
    let sum = |run: &Run| -> f64 {
        let processes = run.processes.values().filter(|_| run.accepts());
        processes.map(|process| process.cpu_seconds_per_1000).sum()
    };
    let widest = runs.iter().map(sum).fold(0.0, f64::max);
    if widest <= 0.0 {
        return html! {};
    }
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.processes.keys()).collect();
    html! {
        section {
            h2 { "Processor time for 1,000 accepted messages" }
            p.note { "In seconds of one processor. The number leaves out the load generator, drawn faint." }
            div.bars {
                @for run in runs.iter().filter(|run| sum(run) > 0.0) {
                    div.bar-name { (rows::column(run)) }
                    (bar(run, widest, palette))
                    div.bar-value { (number::number(run.cpu_seconds_per_1000)) " s" }
                }
                (plot::legend(names.into_iter().map(|name| (name.as_str(), palette.colour(name)))))
            }
        }
    }
}

fn bar(run: &Run, widest: f64, palette: &Palette) -> Markup {
    html! {
        div.bar {
            @for (name, process) in in_order(run) {
                @let percent = process.cpu_seconds_per_1000 / widest * 100.0;
                @let faint = if process.is_generator { " faint" } else { "" };
                div class={ (plot::class_of(palette.colour(name))) (faint) }
                    style={ "width:" (format!("{percent:.2}")) "%" }
                    title={ (name) ": " (number::number(process.cpu_seconds_per_1000)) " s" } {}
            }
        }
    }
}

/// The generator last, since it is not part of the sum.
fn in_order(run: &Run) -> impl Iterator<Item = (&String, &super::ProcessCost)> {
    let of = |is_generator| run.processes.iter().filter(move |(_, process)| process.is_generator == is_generator);
    of(false).chain(of(true))
}

fn process_names(run: &Run) -> impl Iterator<Item = &String> {
    let timed = run.timeline.iter().flat_map(|second| second.cpu.keys().chain(second.memory_bytes.keys()));
    run.processes.keys().chain(timed)
}

fn places(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).map(|point| point.0)
}

fn values(lines: &[Line]) -> impl Iterator<Item = f64> {
    lines.iter().flat_map(|line| &line.points).map(|point| point.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(accepted_per_second: f64) -> Run {
        let latency = Latency { p99_ms: 5.0, count: 9, ..Latency::default() };
        Run { target: "chat".to_owned(), accepted_per_second, deliver: latency, ..Run::default() }
    }

    #[test]
    fn latency_is_plotted_by_rate_only_where_rates_differ() {
        let plot = |runs: &[Run]| by_rate(runs).into_string();
        assert!(plot(&[run(500.0), run(1000.0)]).contains("Latency by rate"));
        assert_eq!(plot(&[run(500.0), run(501.0)]), "");
        assert_eq!(plot(&[]), "");
    }

    #[test]
    fn a_run_without_messages_has_no_plots_of_messages() {
        let second = Second { cpu: [("gateway-1".to_owned(), 0.5)].into(), ..Second::default() };
        let quiet = Run { timeline: vec![second], ..Run::default() };
        let page = over_time(&quiet, &Palette(BTreeMap::new())).into_string();
        assert!(page.contains("Processors in use") && !page.contains("Throughput") && !page.contains("Latency"));
    }
}
