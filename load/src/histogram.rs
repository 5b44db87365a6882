//! Waits in microseconds: counted, merged, sent from process to process.

use hdrhistogram::Histogram as Counts;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::report::model::Latency;

/// Three digits are kept of each value.
const DIGITS: u8 = 3;
/// Longer waits count as this one: ten minutes.
const MAX_US: u64 = 600_000_000;
/// Points of the plot's curve for each halving of what is left above.
const TICKS_PER_HALVING: u32 = 4;

/// Waits in microseconds.
#[derive(Debug, Clone)]
pub struct Histogram(Counts<u32>);

impl Default for Histogram {
    fn default() -> Self {
        Self(Counts::new_with_bounds(1, MAX_US, DIGITS).expect("the bounds are constants that hold"))
    }
}

impl Histogram {
    /// Counts one wait.
    pub fn record(&mut self, us: u64) {
        self.0.saturating_record(us);
    }

    /// Counts what another one has.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// At most this long took `percentile` of 100, in milliseconds; 0 if nothing was counted.
    pub fn percentile_ms(&self, percentile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { milliseconds(self.0.value_at_percentile(percentile)) }
    }

    /// The longest, in milliseconds.
    pub fn max_ms(&self) -> f64 {
        milliseconds(self.0.max())
    }

    /// For the report.
    pub fn latency(&self) -> Latency {
        let curve = self.0.iter_quantiles(TICKS_PER_HALVING);
        Latency {
            p50_ms: self.percentile_ms(50.0),
            p90_ms: self.percentile_ms(90.0),
            p99_ms: self.percentile_ms(99.0),
            p999_ms: self.percentile_ms(99.9),
            max_ms: self.max_ms(),
            count: self.count(),
            percentiles: curve
                .map(|point| (point.quantile() * 100.0, milliseconds(point.value_iterated_to())))
                .collect(),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "at most ten minutes in microseconds")]
fn milliseconds(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// As pairs of value and count.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter_recorded().map(|point| (point.value_iterated_to(), point.count_at_value())))
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut histogram = Self::default();
        for (us, count) in Vec::<(u64, u32)>::deserialize(deserializer)? {
            histogram.0.saturating_record_n(us, count);
        }
        Ok(histogram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        for value in values {
            histogram.record(value);
        }
        histogram
    }

    #[test]
    fn merging_is_as_counting_together() {
        let mut merged = of(1..=500);
        merged.add(&of(501..=1000));
        assert_eq!(merged.latency(), of(1..=1000).latency());
        assert_eq!(merged.count(), 1000);
    }

    #[test]
    fn it_travels_without_loss() {
        let before = of((0..2000).map(|step| step * step * 7));
        let text = serde_json::to_string(&before).unwrap();
        let after: Histogram = serde_json::from_str(&text).unwrap();
        assert_eq!(after.latency(), before.latency());
    }

    #[test]
    fn percentiles_are_in_milliseconds_and_nothing_is_zero() {
        let latency = of((1..=1000).map(|ms| ms * 1000)).latency();
        assert!((latency.p50_ms - 500.0).abs() < 1.0, "{latency:?}");
        assert!((latency.p99_ms - 990.0).abs() < 1.0, "{latency:?}");
        assert!((latency.max_ms - 1000.0).abs() < 1.0, "{latency:?}");
        assert!(latency.percentiles.is_sorted_by(|one, other| one.0 <= other.0 && one.1 <= other.1));
        let nothing = of([]).latency();
        assert!(nothing.p99_ms.abs() < f64::EPSILON && nothing.percentiles.iter().all(|point| point.1.is_finite()));
        assert_eq!(of([u64::MAX]).count(), 1);
    }
}
