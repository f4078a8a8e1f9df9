#!/usr/bin/env bash
# Makes the sample outputs in README.md and docs/, so that they stay true.
#
#   tests/docs.sh              runs every sample and writes what it printed into the pages (release builds)
#   tests/docs.sh --check      runs every sample and fails if a page says something else (debug builds, as tests have)
#
# tests/docs.py says how a sample is written down and compared. tests/peers/install.sh tests has to have run. As root
# the samples have a network namespace of their own, so that their ports are free and nobody else moves the counters.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"

case ${1-} in
    '') profile=release ;;
    --check) profile=debug ;;
    *)
        sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac

build=(cargo build --locked --bins -p rstlab-lab -p rstlab-proxy -p rstlab-upstream)
[[ $profile == debug ]] || build+=(--release)
"${build[@]}"

# The tables of settings, modes and causes are made from the programs' own; tests/tests/tables.rs holds them against these.
[[ $profile == debug ]] || WRITE_TABLES=1 cargo test --locked -q -p rstlab-tests --test tables

namespaces=()
if ((EUID == 0)) && unshare --net --mount true 2> /dev/null; then
    namespaces=(unshare --net --mount)
fi
exec "${namespaces[@]}" python3 tests/docs.py "${CARGO_TARGET_DIR:-target}/$profile" "$@"
