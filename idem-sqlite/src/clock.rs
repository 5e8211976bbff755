//! The two clocks of a record.
//!
//! Owns which clock tells what. Leases go by the boot clock, which nobody can step and which counts while the machine sleeps. It
//! starts anew at each boot, so it comes with the boot id. Expiry goes by the time of day, which survives a reboot.
//!
//! | event | leases | expiry |
//! |---|---|---|
//! | the time of day is stepped | as before | sooner or later by the step |
//! | the machine reboots | all have lapsed | as before |
//!
//! Only Linux has a boot clock that can be read here. Elsewhere, leases go by the time of day too, so that stepping it forward ends
//! leases early.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use idem_core::columns::millis;
use idem_core::{BackendError, BackendErrorKind};

/// In the place of a boot id where there is no boot clock.
const NO_BOOT: &str = "none";

/// The clocks of this machine since its boot.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    boot: String,
}

/// A point in time, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    boot: Duration,
    day: Duration,
}

impl Clock {
    pub(crate) fn read() -> Result<Self, BackendError> {
        boot_id().map(|boot| Self { boot })
    }

    /// Identifies the boot that the lease clock counts from.
    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    /// Whether leases go by a boot clock here, and not by the time of day.
    pub(crate) fn is_of_boot(&self) -> bool {
        self.boot != NO_BOOT
    }

    pub(crate) fn now() -> Moment {
        // Before 1970, everything counts as expiring at the beginning of 1970.
        let day = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment {
            boot: since_boot(day),
            day,
        }
    }
}

impl Moment {
    pub(crate) fn boot_ns(self) -> i64 {
        nanos(self.boot)
    }

    /// The last whole millisecond, for comparing.
    pub(crate) fn day_ms(self) -> i64 {
        millis(self.day)
    }

    /// When a lease lapses that starts now.
    pub(crate) fn lapses_ns(self, lease: Duration) -> i64 {
        nanos(self.boot.saturating_add(lease))
    }

    /// When a record expires that is kept for `time` from now on. Never early: a part of a millisecond counts as a whole one.
    pub(crate) fn expires_ms(self, time: Duration) -> i64 {
        let later = self.day.saturating_add(time);
        millis(later.saturating_add(Duration::from_nanos(999_999)))
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(target_os = "linux")]
fn since_boot(_day: Duration) -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither part is negative.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

#[cfg(target_os = "linux")]
fn boot_id() -> Result<String, BackendError> {
    // Without it, a lease of another boot could not be told from one of this boot.
    let read = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    read.map(|id| id.trim().to_owned()).map_err(|error| {
        let context = "reading the boot id from /proc, by which leases from before a reboot are told";
        BackendError::new(BackendErrorKind::Config, context)
            .with_source(error)
            .not_written()
    })
}

#[cfg(not(target_os = "linux"))]
fn since_boot(day: Duration) -> Duration {
    day
}

#[cfg(not(target_os = "linux"))]
fn boot_id() -> Result<String, BackendError> {
    Ok(NO_BOOT.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lapses_or_expires_early() {
        let moment = Moment {
            boot: Duration::from_nanos(1_500_001),
            day: Duration::from_nanos(7_500_001),
        };
        assert_eq!(moment.boot_ns(), 1_500_001);
        assert_eq!(moment.lapses_ns(Duration::from_millis(1)), 2_500_001);
        assert_eq!((moment.day_ms(), moment.expires_ms(Duration::from_millis(1))), (7, 9));
    }

    #[test]
    fn the_boot_clock_goes_on_and_the_boot_stays_the_same() {
        let (first, second) = (Clock::read().expect("a boot id"), Clock::read().expect("a boot id"));
        assert_eq!(first.boot(), second.boot());
        let (earlier, later) = (Clock::now(), Clock::now());
        assert!(earlier.boot_ns() <= later.boot_ns());
    }
}
