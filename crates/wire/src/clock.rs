use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`: one clock for every process of a machine, and for the kernel's trace.
pub fn monotonic_now() -> Duration {
    // It counts from the start of the machine: never negative, and its nanoseconds are under a second.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

/// A time in nanoseconds; they are enough for 584 years.
pub fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
