#!/usr/bin/env bash
# tests/soak.sh [MINUTES]: proxies among all kinds of clients, in front of upstreams that change their modes, are stopped
# and are killed, for so many minutes (30).
set -euo pipefail
cd "$(dirname "$0")/.."
# As tests/run.sh builds them: then nothing is built twice.
cargo test --locked --workspace --features rstlab-tests/long --no-run --quiet
exec target/debug/soak "${1:-30}"
