//! Writes numbers and quantities for people: three digits that matter, and the unit that fits.

/// A number with about three digits, and commas between thousands.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        return grouped(&format!("{value:.0}"));
    }
    // Tens of thousandths are kept, since processor time of one message may be that little.
    let digits = [(10.0, 1), (1.0, 2), (0.1, 3)].into_iter().find(|(from, _)| size >= *from).map_or(4, |(_, at)| at);
    let text = format!("{value:.digits$}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The same, or a dash where there is none.
pub(super) fn number_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), number)
}

/// A whole number with commas between thousands.
pub(super) fn count(value: u64) -> String {
    grouped(&value.to_string())
}

/// A time in the unit that fits.
pub(super) fn milliseconds(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{} s", number(value / 1000.0)),
        value if value >= 0.1 || value <= 0.0 => format!("{} ms", number(value)),
        value => format!("{} µs", number(value * 1000.0)),
    }
}

/// A time in the unit that fits.
pub(super) fn microseconds(value: f64) -> String {
    milliseconds(value / 1000.0)
}

/// Bytes in the unit that fits.
pub(super) fn bytes(value: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut rest = value as f64;
    for unit in ["bytes", "KiB", "MiB"] {
        if rest < 1024.0 {
            return format!("{} {unit}", number(rest));
        }
        rest /= 1024.0;
    }
    format!("{} GiB", number(rest))
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_matter() {
        for (value, text) in [
            (0.0, "0"),
            (0.012_34, "0.0123"),
            (0.25, "0.25"),
            (1.0, "1"),
            (9.876, "9.88"),
            (59.26, "59.3"),
            (100.4, "100"),
            (12_345.6, "12,346"),
            (-1_234_567.0, "-1,234,567"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn quantities_have_the_unit_that_fits() {
        assert_eq!(milliseconds(0.0), "0 ms");
        assert_eq!(milliseconds(0.042), "42 µs");
        assert_eq!(milliseconds(640.0), "640 ms");
        assert_eq!(milliseconds(60_000.0), "60 s");
        assert_eq!(microseconds(1234.0), "1.23 ms");
        assert_eq!(bytes(5_530), "5.4 KiB");
        assert_eq!(bytes(3 << 30), "3 GiB");
    }
}
