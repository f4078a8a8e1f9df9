//! Which run of this machine this is: times of `CLOCK_MONOTONIC` compare within one alone.

use std::sync::LazyLock;

/// As the kernel names it; empty if it does not.
pub(crate) static BOOT_ID: LazyLock<String> =
    LazyLock::new(|| procfs::sys::kernel::random::boot_id().unwrap_or_default());
