//! Draws line plots as SVG: two axes, some lines, a legend. Knows nothing of loads.
//!
//! Colours come from the page's style, so that a plot follows its light and dark looks.

use maud::{Markup, html};

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 22.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Intervals between the marks of a linear axis, at the most.
const STEPS_MAX: f64 = 5.0;
/// Decades of a logarithmic axis up to which it gets marks between them.
const DECADES_WITH_STEPS: f64 = 2.5;
/// Colours of the page's style.
const COLOURS: usize = 12;
/// Where the percentile axis ends.
const PERCENTILE_MAX: f64 = 99.99;

/// How values are spread along an axis.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Scale {
    /// From zero, evenly.
    Linear,
    /// Every power of ten gets as much room. Only for values above zero.
    Log,
    /// Every nine gets as much room: 90, 99, 99.9, 99.99.
    Percentile,
}

/// One side of a plot.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    label: String,
    scale: Scale,
    low: f64,
    high: f64,
    mark: fn(f64) -> String,
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub name: String,
    /// Which of the style's colours; beyond the last they begin again, dashed.
    pub colour: usize,
    /// In the order of the first value.
    pub points: Vec<(f64, f64)>,
    /// Draws each point, for lines of a few.
    pub has_dots: bool,
}

impl Axis {
    /// An axis on which all `values` have room.
    pub fn over(label: &str, scale: Scale, values: impl Iterator<Item = f64>, mark: fn(f64) -> String) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite() && (scale != Scale::Log || *value > 0.0))
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = match scale {
            Scale::Percentile => (0.0, PERCENTILE_MAX),
            _ if low > high => (1.0, 10.0),
            Scale::Linear => (0.0, if high > 0.0 { high } else { 1.0 }),
            Scale::Log => rounded_outwards(low, high),
        };
        let mut axis = Self { label: label.to_owned(), scale, low, high, mark };
        if scale == Scale::Linear {
            axis.high = (high / axis.step()).ceil() * axis.step();
        }
        axis
    }

    /// Where `value` is, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let at = |value: f64| match self.scale {
            Scale::Linear => value,
            Scale::Log => value.max(f64::MIN_POSITIVE).log10(),
            Scale::Percentile => -(1.0 - value / 100.0).log10(),
        };
        let value = value.clamp(self.low, self.high);
        (at(value) - at(self.low)) / (at(self.high) - at(self.low))
    }

    /// A round interval between marks.
    fn step(&self) -> f64 {
        let least = (self.high - self.low) / STEPS_MAX;
        let power = 10_f64.powf(least.log10().floor());
        [1.0, 2.0, 2.5, 5.0].into_iter().map(|digit| digit * power).find(|step| *step >= least).unwrap_or(10.0 * power)
    }

    fn marks(&self) -> Vec<f64> {
        let is_inside = |value: &f64| *value >= self.low * 0.999 && *value <= self.high * 1.001;
        match self.scale {
            Scale::Linear => {
                let step = self.step();
                (0..=10_u8).map(|index| self.low + f64::from(index) * step).filter(is_inside).collect()
            }
            Scale::Log => {
                let digits: &[f64] =
                    if (self.high / self.low).log10() <= DECADES_WITH_STEPS { &[1.0, 2.0, 5.0] } else { &[1.0] };
                let marks = (-6..=9).flat_map(|power| digits.iter().map(move |digit| digit * 10_f64.powi(power)));
                marks.filter(is_inside).collect()
            }
            Scale::Percentile => vec![0.0, 50.0, 90.0, 99.0, 99.9, PERCENTILE_MAX],
        }
    }
}

/// The next 1, 2 or 5 times a power of ten below and above.
fn rounded_outwards(low: f64, high: f64) -> (f64, f64) {
    let power = |value: f64| 10_f64.powf(value.log10().floor());
    let below = |value: f64| {
        [5.0, 2.0, 1.0].into_iter().map(|digit| digit * power(value)).find(|candidate| *candidate <= value * 1.001)
    };
    let above = |value: f64| {
        [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|digit| digit * power(value))
            .find(|candidate| *candidate >= value * 0.999)
    };
    let (low, high) = (below(low).unwrap_or(low), above(high).unwrap_or(high));
    if high > low { (low, high) } else { (low, low * 10.0) }
}

/// The plot with its legend. `title` says what it shows, `note` how to read it.
pub(super) fn lines(title: &str, note: &str, x: &Axis, y: &Axis, lines: &[Line]) -> Markup {
    html! {
        figure {
            figcaption { b { (title) } @if !note.is_empty() { " " span.note { (note) } } }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" aria-label=(title) {
                (grid(x, y))
                @for line in lines { (drawn(line, x, y)) }
            }
            (legend(lines.iter().map(|line| (line.name.as_str(), line.colour))))
        }
    }
}

/// Names beside their colours.
pub(super) fn legend<'a>(entries: impl Iterator<Item = (&'a str, usize)>) -> Markup {
    html! {
        ul.legend {
            @for (name, colour) in entries {
                li { span class={ "swatch " (class_of(colour)) } {} (name) }
            }
        }
    }
}

/// The style's name for a colour.
pub(super) fn class_of(colour: usize) -> String {
    let dashed = if colour >= COLOURS { " dashed" } else { "" };
    format!("c{}{dashed}", colour % COLOURS)
}

fn grid(x: &Axis, y: &Axis) -> Markup {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let middle = f64::midpoint(TOP, bottom);
    html! {
        @for mark in y.marks() {
            @let at = down(y, mark);
            line.grid x1=(LEFT) x2=(right) y1=(short(at)) y2=(short(at)) {}
            text.mark x=(LEFT - 7.0) y=(short(at + 3.5)) text-anchor="end" { ((y.mark)(mark)) }
        }
        @for mark in x.marks() {
            @let at = across(x, mark);
            line.grid x1=(short(at)) x2=(short(at)) y1=(TOP) y2=(bottom) {}
            text.mark x=(short(at)) y=(bottom + 15.0) text-anchor="middle" { ((x.mark)(mark)) }
        }
        line.axis x1=(LEFT) x2=(right) y1=(bottom) y2=(bottom) {}
        text.label x=(f64::midpoint(LEFT, right)) y=(HEIGHT - 6.0) text-anchor="middle" { (x.label) }
        text.label x="11" y=(middle) text-anchor="middle" transform={ "rotate(-90 11 " (middle) ")" } { (y.label) }
    }
}

fn drawn(line: &Line, x: &Axis, y: &Axis) -> Markup {
    let points: Vec<(String, String)> =
        line.points.iter().map(|(at, value)| (short(across(x, *at)), short(down(y, *value)))).collect();
    let path: Vec<String> = points.iter().map(|(at, value)| format!("{at},{value}")).collect();
    html! {
        polyline class={ "line " (class_of(line.colour)) } points=(path.join(" ")) { title { (line.name) } }
        @if line.has_dots {
            @for ((at, value), point) in points.iter().zip(&line.points) {
                circle class={ "dot " (class_of(line.colour)) } cx=(at) cy=(value) r="3.5" {
                    title { (line.name) ": " ((x.mark)(point.0)) ", " ((y.mark)(point.1)) }
                }
            }
        }
    }
}

fn across(axis: &Axis, value: f64) -> f64 {
    LEFT + axis.place(value) * (WIDTH - LEFT - RIGHT)
}

fn down(axis: &Axis, value: f64) -> f64 {
    HEIGHT - BOTTOM - axis.place(value) * (HEIGHT - TOP - BOTTOM)
}

/// A coordinate, as exact as a screen.
fn short(value: f64) -> String {
    format!("{value:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, values: &[f64]) -> Axis {
        Axis::over("", scale, values.iter().copied(), |value| value.to_string())
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_ends_at_a_round_mark() {
        let axis = axis(Scale::Linear, &[3.0, 470.0]);
        assert_eq!(axis.marks(), [0.0, 100.0, 200.0, 300.0, 400.0, 500.0]);
        assert!((axis.place(250.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn a_logarithmic_axis_has_room_for_all_values_and_marks_powers() {
        let axis = axis(Scale::Log, &[1.3, 640.0]);
        assert_eq!(axis.marks(), [1.0, 10.0, 100.0, 1000.0]);
        assert!((axis.place(31.6) - 0.5).abs() < 0.01);
    }

    #[test]
    fn every_nine_gets_as_much_room() {
        let axis = axis(Scale::Percentile, &[]);
        assert!((axis.place(99.0) - 2.0 * axis.place(90.0)).abs() < 1e-9);
        assert!(axis.place(100.0) <= 1.0, "the longest of all is drawn at the edge");
    }

    #[test]
    fn nothing_to_draw_makes_an_empty_plot_and_no_panic() {
        for scale in [Scale::Linear, Scale::Log, Scale::Percentile] {
            for values in [&[][..], &[0.0][..], &[f64::NAN][..], &[7.0][..]] {
                let axis = axis(scale, values);
                assert!(axis.marks().len() >= 2, "{scale:?} {values:?}");
                assert!(axis.place(5.0).is_finite());
            }
        }
    }

    #[test]
    fn names_are_escaped() {
        let line = Line { name: "<b>".to_owned(), colour: 13, points: vec![(1.0, 1.0)], has_dots: true };
        let axis = axis(Scale::Linear, &[1.0]);
        let drawn = lines("t", "", &axis, &axis, &[line]).into_string();
        assert!(!drawn.contains("<b>:") && drawn.contains("&lt;b&gt;") && drawn.contains("c1 dashed"));
    }
}
