#!/usr/bin/env bash
# Checks the real servers and proxies of matrix.toml and puts the table into docs/matrix.md, between its two markers.
# Takes some three minutes and a build. tests/peers/install.sh matrix has to have run.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"

table=$(mktemp)
trap 'rm "$table"' EXIT
cargo build --locked --release -p rstlab-lab -p rstlab-proxy -p rstlab-upstream -p rstlab-tests
"${CARGO_TARGET_DIR:-target}/release/rstlab" matrix tests/peers/matrix.toml --markdown "$table"
sed -i -e '/^<!-- matrix -->$/,/^<!-- end -->$/ { /^<!--/!d }' -e "/^<!-- matrix -->$/r $table" docs/matrix.md
