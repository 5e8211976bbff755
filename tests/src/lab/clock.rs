//! The clock that all processes of the lab share.
//!
//! It is not the time of day, which the lab steps for single processes. Where there is no boot clock, nothing steps the time of day.

use std::time::Duration;

/// The time since the machine has booted.
#[cfg(target_os = "linux")]
pub(super) fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither part is negative.
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// The time since the start of 1970.
#[cfg(not(target_os = "linux"))]
pub(super) fn now() -> Duration {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
