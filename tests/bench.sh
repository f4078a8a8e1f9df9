#!/usr/bin/env bash
# Benches rstlab-proxy beside nginx and HAProxy, and puts the tables into docs/bench.md, between its two markers. Takes
# some ten minutes and a build, on a machine that does nothing else; as root rstlab-proxy can ask the kernel for evidence.
# tests/peers/install.sh tests has to have run. Arguments go to `rstlab bench`.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"

table=$(mktemp)
trap 'rm "$table"' EXIT
cargo build --locked --release --bins -p rstlab-lab -p rstlab-proxy
"${CARGO_TARGET_DIR:-target}/release/rstlab" bench --markdown "$table" "$@"
sed -i -e '/^<!-- bench -->$/,/^<!-- end -->$/ { /^<!--/!d }' -e "/^<!-- bench -->$/r $table" docs/bench.md
