//! How long things took, by quantiles.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::figures::round;

/// In milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Latency {
    pub(super) fn of(microseconds: &Histogram<u64>) -> Self {
        let ms = |us: u64| round(us as f64 / 1_000.0);
        Self {
            p50: ms(microseconds.value_at_quantile(0.5)),
            p90: ms(microseconds.value_at_quantile(0.9)),
            p99: ms(microseconds.value_at_quantile(0.99)),
            max: ms(microseconds.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_in_milliseconds() {
        let mut histogram = Histogram::new_with_bounds(1, 600_000_000, 3).unwrap();
        for us in 1..=1_000 {
            histogram.record(us * 10).unwrap();
        }
        let latency = Latency::of(&histogram);
        assert!(
            (latency.p50 - 5.0).abs() < 0.02 && (latency.p99 - 9.9).abs() < 0.02,
            "{latency:?}"
        );
        assert!((latency.max - 10.0).abs() < 0.02, "{latency:?}");
    }
}
