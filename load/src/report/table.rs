//! The report as plain text for a terminal.

use std::{
    collections::BTreeSet,
    fmt::{self, Write},
};

use super::{
    model::{Report, Run},
    number,
    rows::{self, Section},
};

/// Runs beside each other; more go into another table below.
const COLUMNS_MAX: usize = 5;

/// The whole report, ready to print.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string doesn't fail.
    _ = write_report(&mut out, report);
    out
}

fn write_report(out: &mut String, report: &Report) -> fmt::Result {
    let machine = &report.machine;
    writeln!(
        out,
        "\n  {} on {} processors ({}), {}, {}",
        report.scenario,
        machine.processors,
        machine.processor,
        number::bytes(machine.memory_bytes),
        machine.kernel
    )?;
    let versions: Vec<String> = report.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    writeln!(out, "  {}", versions.join(", "))?;
    // As many columns in each table.
    let columns = report.runs.len().div_ceil(report.runs.len().div_ceil(COLUMNS_MAX).max(1)).max(1);
    for runs in report.runs.chunks(columns) {
        write_runs(out, runs)?;
    }
    writeln!(out)?;
    for Section { title, note, .. } in rows::sections(&report.runs) {
        writeln!(out, "  {title}: {note}")?;
    }
    write_meanings(out, &report.runs)?;
    write_floors(out, report)?;
    write_comparisons(out, report)?;
    write_aims(out, report)?;
    if report.is_valid {
        writeln!(out, "\n  VALID: nothing was lost, the load kept its schedule, every process lived.")?;
    } else {
        writeln!(out, "\n  NOT VALID: do not quote these figures.")?;
    }
    for problem in &report.problems {
        writeln!(out, "  - {problem}")?;
    }
    writeln!(out, "\n  Again by: {}", report.command)
}

fn write_runs(out: &mut String, runs: &[Run]) -> fmt::Result {
    let sections = rows::sections(runs);
    let header: Vec<String> = runs.iter().map(rows::column).collect();
    let mut lines = vec![line("", header)];
    for Section { title, rows, .. } in &sections {
        lines.push(line(title, Vec::new()));
        for row in rows {
            let mark = if row.is_wrong { " !" } else { "" };
            let cells = row.cells.iter().map(|cell| cell.clone().unwrap_or_else(|| "–".to_owned()));
            lines.push(line(&format!("  {}{mark}", row.name), cells.collect()));
        }
    }
    let figures = figure_lines(runs);
    if !figures.is_empty() {
        lines.push(line("Figures of this scenario", Vec::new()));
        lines.extend(figures);
    }
    writeln!(out)?;
    write_aligned(out, &lines)
}

/// What only the scenario measures: a row for each figure.
fn figure_lines(runs: &[Run]) -> Vec<Line> {
    let value = |run: &Run, name: &str| {
        let figure = run.figures.get(name)?;
        Some(format!("{} {}", number::number(figure.value), figure.unit).trim_end().to_owned())
    };
    let row = |name: &String| {
        let cells = runs.iter().map(|run| value(run, name).unwrap_or_else(|| "–".to_owned()));
        line(&format!("  {name}"), cells.collect())
    };
    figure_names(runs).into_iter().map(row).collect()
}

fn write_meanings(out: &mut String, runs: &[Run]) -> fmt::Result {
    for name in figure_names(runs) {
        // Some names say it all.
        let figure = runs.iter().find_map(|run| run.figures.get(name)).filter(|figure| !figure.meaning.is_empty());
        if let Some(figure) = figure {
            writeln!(out, "  {name}: {}", figure.meaning)?;
        }
    }
    Ok(())
}

fn figure_names(runs: &[Run]) -> BTreeSet<&String> {
    runs.iter().flat_map(|run| run.figures.keys()).collect()
}

fn write_floors(out: &mut String, report: &Report) -> fmt::Result {
    let Some(floors) = &report.floors else { return Ok(()) };
    writeln!(out, "\n  What the parts do by themselves on this machine, with nothing else running")?;
    let lines: Vec<_> =
        rows::floors(floors).into_iter().map(|fact| line(&format!("    {}", fact.name), vec![fact.value])).collect();
    write_aligned(out, &lines)
}

fn write_comparisons(out: &mut String, report: &Report) -> fmt::Result {
    if report.comparisons.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n  Beside others, in the same call")?;
    let mut lines = vec![line("", ["this backend", "the other", "ours / theirs"].map(str::to_owned).to_vec())];
    for comparison in &report.comparisons {
        let cells = [Some(comparison.ours), Some(comparison.theirs), comparison.ratio].map(number::number_or_dash);
        lines.push(line(&format!("    {}, against {}", comparison.what, comparison.peer), cells.to_vec()));
    }
    write_aligned(out, &lines)
}

fn write_aims(out: &mut String, report: &Report) -> fmt::Result {
    if report.aims.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n  Aims")?;
    let mut lines = vec![line("", ["aim", "measured", ""].map(str::to_owned).to_vec())];
    for aim in &report.aims {
        let verdict = if aim.is_met { "met" } else { "NOT MET" };
        lines.push(line(&format!("    {}", aim.what), vec![aim.aim.clone(), aim.measured.clone(), verdict.to_owned()]));
    }
    write_aligned(out, &lines)
}

/// The name of a line and its cells.
type Line = (String, Vec<String>);

fn line(name: &str, cells: Vec<String>) -> Line {
    (name.to_owned(), cells)
}

/// Names to the left, cells to the right of their columns.
fn write_aligned(out: &mut String, lines: &[Line]) -> fmt::Result {
    let width = |text: &String| text.chars().count();
    let name_width = lines.iter().map(|(name, _)| width(name)).max().unwrap_or(0);
    let columns = lines.iter().map(|(_, cells)| cells.len()).max().unwrap_or(0);
    let column_width = |column| lines.iter().filter_map(|(_, cells)| cells.get(column)).map(width).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(column_width).collect();
    for (name, cells) in lines {
        let mut text = format!("  {name:<name_width$}");
        for (cell, width) in cells.iter().zip(&widths) {
            write!(text, "   {cell:>width$}")?;
        }
        writeln!(out, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Aim, Comparison, Figure, Floors, Latency, Proof};

    fn run(name: &str) -> Run {
        Run {
            target: "chat".to_owned(),
            name: name.to_owned(),
            accept: Latency { p50_ms: 1.5, count: 9, ..Latency::default() },
            proof: Some(Proof { accepted: 12_000, ..Proof::default() }),
            figures: [("caught up".to_owned(), Figure { value: 7.0, unit: "s".to_owned(), ..Figure::default() })]
                .into(),
            ..Run::default()
        }
    }

    #[test]
    fn columns_stand_below_each_other_whatever_they_hold() {
        let report = Report { runs: vec![run("200/s"), run("µ")], ..Report::default() };
        let text = text(&report);
        let ends = |name: &str| {
            let line = text.lines().find(|line| line.contains(name)).unwrap();
            line.chars().count()
        };
        assert_eq!(ends("half (p50)"), ends("accepted  "));
        assert_eq!(ends("half (p50)"), ends("chat 200/s"));
    }

    #[test]
    fn many_runs_are_shared_out_over_tables() {
        let report = Report { runs: (0..6).map(|step| run(&format!("step {step}"))).collect(), ..Report::default() };
        let text = text(&report);
        let headers: Vec<_> = text.lines().filter(|line| line.matches("chat step").count() == 3).collect();
        assert_eq!(headers.len(), 2, "{text}");
    }

    #[test]
    fn the_verdict_and_whatever_speaks_against_it_are_said() {
        let report = Report {
            floors: Some(Floors::default()),
            aims: vec![Aim { what: "an aim".to_owned(), ..Aim::default() }],
            comparisons: vec![Comparison { peer: "socket.io".to_owned(), ..Comparison::default() }],
            problems: vec!["one was lost".to_owned()],
            ..Report::default()
        };
        let text = text(&report);
        for part in ["NOT VALID", "- one was lost", "NOT MET", "against socket.io", "fsync"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(super::text(&Report { is_valid: true, ..Report::default() }).contains("  VALID"));
    }
}
