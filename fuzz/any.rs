//! Gives the fuzzer's bytes to the function that FUZZ_TARGET names. One program for all: each has to be linked with the
//! sanitizer.

#![no_main]

use std::env;
use std::sync::LazyLock;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    let crates = [
        rstlab_wire::fuzz::TARGETS,
        rstlab_witness::fuzz::TARGETS,
        rstlab_lab::fuzz::TARGETS,
    ];
    let mut all = crates.into_iter().flatten();
    let found = all.find(|(target, _)| *target == name);
    found.unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is not in fuzz/seeds")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
