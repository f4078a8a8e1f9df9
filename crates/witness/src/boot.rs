//! Names the current boot of this machine: times of `CLOCK_MONOTONIC` of two boots cannot be compared.

use std::sync::LazyLock;

/// The kernel's name for this boot; empty if it gives none.
pub(crate) static BOOT_ID: LazyLock<String> =
    LazyLock::new(|| procfs::sys::kernel::random::boot_id().unwrap_or_default());
