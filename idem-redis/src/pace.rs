//! How often links are opened.
//!
//! Owns the time between two attempts (IDEM-22). It is short after a link that has served for a while. It doubles up to a
//! second while links fail again and again, or are refused as soon as they are open. Does not own what is opened.

use std::time::{Duration, Instant};

/// The pause after the first attempt in a row.
const FIRST: Duration = Duration::from_millis(50);

/// The longest pause.
const LAST: Duration = Duration::from_secs(1);

/// If an attempt follows the last one after this long, it is the first in a row again.
const CALM: Duration = Duration::from_secs(10);

/// When the next attempt is due.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    begun: Instant,
    /// The time from `begun` until the next attempt is due.
    step: Duration,
}

impl Pace {
    /// Begins an attempt, if one is due `now`.
    pub(crate) fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.due(now) <= now;
        if is_due {
            self.begin_at(now);
        }
        is_due
    }

    /// Begins an attempt as soon as one is due, and says when that is.
    pub(crate) fn begin_when_due(&mut self, now: Instant) -> Instant {
        let due = self.due(now);
        self.begin_at(due);
        due
    }

    fn due(&self, now: Instant) -> Instant {
        self.last.as_ref().map_or(now, |last| now.max(last.begun + last.step))
    }

    fn begin_at(&mut self, begun: Instant) {
        let step = match &self.last {
            Some(last) if begun.duration_since(last.begun) < CALM => (last.step * 2).min(LAST),
            _ => FIRST,
        };
        // A quarter more or less, so that many processes do not connect together.
        let step = step.mul_f64(rand::random_range(0.75..1.25)).max(FIRST);
        self.last = Some(Last { begun, step });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_a_row_come_down_to_one_a_second_and_the_first_after_a_calm_is_at_once() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let begun = (0..60_000)
            .filter(|after| pace.begin(start + Duration::from_millis(*after)))
            .count();
        assert!((50..=80).contains(&begun), "{begun} in a minute");
        assert!(pace.begin(start + Duration::from_secs(80)));
        assert!(!pace.begin(start + Duration::from_secs(80)), "one at a time");
        assert!(
            pace.begin(start + Duration::from_millis(80_100)),
            "the steps are short again"
        );
    }
}
