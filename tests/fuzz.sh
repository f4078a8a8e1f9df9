#!/usr/bin/env bash
# tests/fuzz.sh [SECONDS [TARGET...]]: fuzzes each target for so many seconds (60), beginning with its seeds in
# fuzz/seeds. New inputs stay in fuzz/corpus, and an input that fails in fuzz/artifacts. Without a nightly toolchain or
# cargo-fuzz, each target gets seeds with random changes for as long, and the exit code is 77.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    # As tests/run.sh builds them.
    FUZZ_SECONDS=$seconds cargo test --locked --workspace --features rstlab-tests/long --lib fuzz:: -- --nocapture
    echo 'libFuzzer needs a nightly toolchain and cargo-fuzz:' >&2
    echo '  rustup toolchain install nightly && cargo install cargo-fuzz' >&2
    exit 77
fi
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(ls fuzz/seeds)

# The versions that the programs are built with.
cp Cargo.lock fuzz/
cargo +nightly fuzz build any
mkdir -p fuzz/artifacts
for target in "${targets[@]}"; do
    mkdir -p "fuzz/corpus/$target"
    log=fuzz/artifacts/$target.log
    # One allocation of more than 64 MiB fails, and 512 MiB in all: no parser needs so much.
    if ! FUZZ_TARGET=$target cargo +nightly fuzz run any "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
        -max_total_time="$seconds" -timeout=10 -malloc_limit_mb=64 -rss_limit_mb=512 \
        -artifact_prefix="fuzz/artifacts/$target-" >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        exit 1
    fi
    printf '%s: %s\n' "$target" "$(grep '^Done ' "$log")"
done
