//! The report as one self-contained page: no script, nothing from the network.

use std::collections::BTreeSet;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    charts::{self, Palette},
    model::{Report, Run},
    number, rows,
};

const STYLE: &str = include_str!("page.css");
/// Runs whose plots over time are unfolded; the others take a click.
const UNFOLDED_MAX: usize = 3;

/// The page.
pub fn page(report: &Report) -> String {
    let palette = Palette::of(report);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Load: " (report.scenario) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (head(report))
                (verdict(report))
                (aims(report))
                (comparisons(report))
                (charts::latencies(&report.runs))
                (charts::processor_bars(&report.runs, &palette))
                (figures(&report.runs))
                (runs(&report.runs))
                (floors(report))
                (over_time(&report.runs, &palette))
                (settings(report))
            }
        }
    };
    page.into_string()
}

fn head(report: &Report) -> Markup {
    let machine = &report.machine;
    html! {
        header {
            h1 { "Load: " (report.scenario) }
            p {
                (machine.processors) " processors (" (machine.processor) "), "
                (number::bytes(machine.memory_bytes)) " of memory, " (machine.kernel)
            }
            p.note { "Again by " code { (report.command) } }
        }
    }
}

fn verdict(report: &Report) -> Markup {
    html! {
        div.verdict.good[report.is_valid].bad[!report.is_valid] {
            @if report.is_valid {
                b { "Valid." } " Nothing was lost, the load kept its schedule, and every process lived."
            } @else {
                b { "Not valid." } " Do not quote these figures."
            }
            @if !report.problems.is_empty() {
                ul { @for problem in &report.problems { li { (problem) } } }
            }
        }
    }
}

fn aims(report: &Report) -> Markup {
    if report.aims.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Aims" }
            div.scroll { table {
                thead { tr { th { "what" } th { "aim" } th { "measured" } th {} } }
                tbody {
                    @for aim in &report.aims {
                        tr {
                            td { (aim.what) }
                            td.value { (aim.aim) }
                            td.value { (aim.measured) }
                            td { @if aim.is_met { span.good-word { "met" } } @else { span.bad-word { "not met" } } }
                        }
                    }
                }
            } }
        }
    }
}

fn comparisons(report: &Report) -> Markup {
    if report.comparisons.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Beside others" }
            p.note { "Measured in the same call, on the same machine, with the same load and the same checks." }
            div.scroll { table {
                thead { tr { th { "what" } th { "against" } th { "this backend" } th { "the other" } th { "ours / theirs" } } }
                tbody {
                    @for comparison in &report.comparisons {
                        tr {
                            td { (comparison.what) }
                            td { (comparison.peer) }
                            td.value { (number::number(comparison.ours)) }
                            td.value { (number::number(comparison.theirs)) }
                            td.value { b { (number::number_or_dash(comparison.ratio)) } }
                        }
                    }
                }
            } }
        }
    }
}

/// What only the scenario measures.
fn figures(runs: &[Run]) -> Markup {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.figures.keys()).collect();
    if names.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Figures of this scenario" }
            div.scroll { table {
                thead { tr { th {} @for run in runs { th { (rows::column(run)) } } th { "what it means" } } }
                tbody {
                    @for name in names {
                        tr {
                            td { (name) }
                            @for run in runs {
                                td.value {
                                    @match run.figures.get(name) {
                                        Some(figure) => { (number::number(figure.value)) " " (figure.unit) }
                                        None => { "–" }
                                    }
                                }
                            }
                            td.note { (runs.iter().find_map(|run| run.figures.get(name)).map_or("", |figure| &figure.meaning)) }
                        }
                    }
                }
            } }
        }
    }
}

fn runs(runs: &[Run]) -> Markup {
    html! {
        section {
            h2 { "Every run" }
            div.scroll { table.runs {
                thead { tr { th {} @for run in runs { th { (rows::column(run)) } } } }
                @for section in rows::sections(runs) {
                    tbody {
                        tr.title { th colspan=(runs.len() + 1) { (section.title) span.note { " " (section.note) } } }
                        @for row in &section.rows {
                            tr.wrong[row.is_wrong] {
                                td { (row.name) }
                                @for cell in &row.cells { td.value { (cell.as_deref().unwrap_or("–")) } }
                            }
                        }
                    }
                }
            } }
        }
    }
}

fn floors(report: &Report) -> Markup {
    let Some(floors) = &report.floors else { return html! {} };
    html! {
        section {
            h2 { "Floors" }
            p.note {
                "What the parts do by themselves on this machine, with nothing else running. What is built on them can \
                 only be slower; how much slower is what the software adds."
            }
            div.scroll { table {
                tbody { @for fact in rows::floors(floors) { tr { td { (fact.name) } td.value { (fact.value) } } } }
            } }
        }
    }
}

fn over_time(runs: &[Run], palette: &Palette) -> Markup {
    let timed = || runs.iter().filter(|run| !run.timeline.is_empty());
    html! {
        @if timed().next().is_some() {
            section {
                h2 { "Over time" }
                @for (index, run) in timed().enumerate() {
                    details open[index < UNFOLDED_MAX] {
                        summary { (rows::column(run)) }
                        (charts::over_time(run, palette))
                    }
                }
            }
        }
    }
}

fn settings(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Versions and settings" }
            div.scroll { table {
                tbody {
                    @for (name, version) in &report.versions { tr { td { (name) } td.value { (version) } } }
                    @for (name, value) in &report.settings { tr { td { (name) } td.value { (value) } } }
                }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Aim, Figure, Floors, Latency, Proof, Second};

    fn run() -> Run {
        let points = vec![(0.0, 1.0), (50.0, 2.0), (99.0, 10.0), (100.0, 40.0)];
        let latency = Latency { p50_ms: 2.0, p99_ms: 10.0, count: 10, percentiles: points, ..Latency::default() };
        Run {
            target: "chat".to_owned(),
            name: "<200/s>".to_owned(),
            accept: latency.clone(),
            deliver: latency,
            proof: Some(Proof { lost: 1, ..Proof::default() }),
            timeline: vec![Second { at: 1.0, cpu: [("gateway-1".to_owned(), 0.4)].into(), ..Second::default() }],
            figures: [("caught up".to_owned(), Figure { value: 7.0, ..Figure::default() })].into(),
            ..Run::default()
        }
    }

    #[test]
    fn the_page_holds_everything_and_asks_for_nothing() {
        let report = Report {
            scenario: "dm".to_owned(),
            runs: vec![run()],
            floors: Some(Floors::default()),
            aims: vec![Aim { what: "an aim".to_owned(), ..Aim::default() }],
            problems: vec!["one <was> lost".to_owned()],
            ..Report::default()
        };
        let page = page(&report);
        for part in ["Not valid.", "one &lt;was&gt; lost", "not met", "caught up", "gateway-1", "chat &lt;200/s&gt;"] {
            assert!(page.contains(part), "{part}");
        }
        for absent in ["<script", "http://", "https://", "<was>"] {
            assert!(!page.contains(absent), "{absent}");
        }
    }

    #[test]
    fn an_empty_report_makes_a_page_too() {
        assert!(page(&Report::default()).contains("Not valid."));
    }
}
