//! How long to wait before the next attempt.

use std::time::Duration;

/// The first wait, about.
const FIRST: Duration = Duration::from_millis(200);

/// The longest wait, about.
const LONGEST: Duration = Duration::from_secs(30);

/// Waits that double, so that a hub that is down is left alone, and that are
/// never the same for two clients, so that they do not all come back at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A session came about.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// How long to wait now: as long as the hub has asked for, at least. `random`
    /// is any number.
    pub(super) fn failed(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let longest = doubled.min(LONGEST);
        // From half of it on.
        let share = u32::try_from(random % 1024).unwrap_or(0);
        let wait = longest / 2 + longest / 2048 * share;
        asked.map_or(wait, |asked| asked + wait / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::default();
        let mut before = Duration::ZERO;
        for _ in 0..8 {
            let wait = backoff.failed(None, 0);
            assert!(wait == 2 * before || before.is_zero());
            before = wait;
        }
        for random in [0, 1023, u64::MAX] {
            let wait = backoff.failed(None, random);
            assert!((LONGEST / 2..=LONGEST).contains(&wait), "{wait:?}");
        }
        backoff.succeeded();
        assert_eq!(backoff.failed(None, 0), FIRST / 2);
        let asked = Duration::from_secs(100);
        assert!(backoff.failed(Some(asked), 5) >= asked);
    }
}
