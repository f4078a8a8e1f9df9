//! The clock that all processes of a machine and the kernel's trace share.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`: one clock for every process of a machine, and for the kernel's trace.
pub fn monotonic_now() -> Duration {
    // The clock counts from the start of the machine: its seconds are not negative, its nanoseconds under a second.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// A time in nanoseconds; a `u64` holds 584 years of them.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
