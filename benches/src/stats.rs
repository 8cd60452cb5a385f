//! Medians and ratios.

use std::time::Duration;

/// What is said about the times of one scenario on one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The middle, or the mean of the two in the middle.
    pub(crate) median: Duration,
    /// The shortest.
    pub(crate) min: Duration,
    /// The longest.
    pub(crate) max: Duration,
}

impl Summary {
    /// Summarises `times`; nothing can be said about none.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2
        };
        Some(Self { median, min, max })
    }

    /// How many times longer the median is than that of `base`.
    pub(crate) fn ratio(&self, base: &Self) -> f64 {
        self.median.as_secs_f64() / base.median.as_secs_f64()
    }
}

/// Milliseconds, with the fraction.
pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: &[u64]) -> Vec<Duration> {
        ms.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Summary::of(&times(&[9, 1, 2])).unwrap();
        assert_eq!(odd.median, Duration::from_millis(2));
        let even = Summary::of(&times(&[4, 1, 2, 100])).unwrap();
        assert_eq!(even.median, Duration::from_millis(3));
        assert_eq!(even.max, Duration::from_millis(100));
        assert!((even.ratio(&odd) - 1.5).abs() < 1e-9);
        assert_eq!(Summary::of(&[]), None);
    }
}
