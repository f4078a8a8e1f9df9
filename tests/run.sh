#!/usr/bin/env bash
# Every test there is, on a Debian or Ubuntu machine with Rust. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# cargo's own directory, and that of nginx.
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"

step=start untested=

# run STEP COMMAND...
run() {
    local began=$SECONDS
    step=$1
    printf '\n=== %s\n' "$step"
    "${@:2}"
    printf -- '--- %s: %d s\n' "$step" $((SECONDS - began))
}

report() {
    local status=$?
    if ((status == 0)); then
        printf '\nall tests passed in %d s%s\n' "$SECONDS" "$untested"
    else
        printf '\nFAILED after %d s: %s\n' "$SECONDS" "$step" >&2
    fi
}

trap report EXIT

test_docker() {
    local status=0
    tests/docker.sh || status=$?
    case $status in
        0) ;;
        77) untested='; Docker was NOT tested, see above' ;;
        *) return "$status" ;;
    esac
}

# Makes resets and asks the kernel why it sent each.
kernel_tests() {
    if ((EUID != 0)); then
        not_asked 'this is not root'
    elif ! grep -q ' tracefs ' /proc/mounts && ! mount -t tracefs tracefs /sys/kernel/tracing; then
        not_asked 'tracefs cannot be mounted'
    else
        cargo test --locked -p rstlab-witness -p rstlab-lab --features rstlab-witness/kernel,rstlab-lab/kernel,rstlab-lab/peers
        cargo test --locked -p rstlab-tests --features kernel --test witness --test verdicts --test check_kernel -- --nocapture
    fi
}

not_asked() {
    printf '!!! THE KERNEL WAS NOT ASKED: %s\n' "$1" >&2
}

run 'packages and servers' tests/peers/install.sh tests
run 'formatting' cargo fmt --all --check
run 'clippy' cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
run 'unit and end-to-end tests' cargo test --locked --workspace
run 'peer tests' cargo test --locked -p rstlab-tests --features peers --test 'peers_*' --test strace --test timeline
run 'kernel tests' kernel_tests
run 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
run 'docker' test_docker
