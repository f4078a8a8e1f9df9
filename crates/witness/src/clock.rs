use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Now on `CLOCK_MONOTONIC`, the clock of [`ResetEvent::time`](crate::ResetEvent::time).
pub fn monotonic_now() -> Duration {
    // It counts from the start of the machine: never negative, and its nanoseconds are under a second.
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}
