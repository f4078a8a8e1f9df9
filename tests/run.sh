#!/usr/bin/env bash
# Every test there is, on a Debian or Ubuntu machine with Rust. Stops at the first that fails; its last line says what
# was not tested. FUZZ_SECONDS: how long each target is fuzzed (10).
set -euo pipefail
cd "$(dirname "$0")/.."
# The directories of cargo and of nginx.
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin"

fuzz_seconds=${FUZZ_SECONDS:-10}
# The unit tests would fuzz as well.
unset FUZZ_SECONDS

step=start
untested=()

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
        printf '\nall tests passed in %d s%s\n' "$SECONDS" "$(IFS=; echo "${untested[*]/#/; NOT TESTED: }")"
    else
        printf '\nFAILED after %d s: %s\n' "$SECONDS" "$step" >&2
    fi
}

trap report EXIT

# not_tested WHAT: prints WHAT at once, and again in the last line.
not_tested() {
    untested+=("$1")
    printf '!!! NOT TESTED: %s\n' "$1" >&2
}

test_docker() {
    local status=0
    tests/docker.sh || status=$?
    case $status in
        0) ;;
        77) not_tested 'Docker, see above' ;;
        *) return "$status" ;;
    esac
}

test_fuzz() {
    local status=0
    tests/fuzz.sh "$fuzz_seconds" || status=$?
    case $status in
        0) ;;
        77) not_tested 'libFuzzer, see above' ;;
        *) return "$status" ;;
    esac
}

# Makes resets, and asks the kernel for the reason of each.
kernel_tests() {
    if ((EUID != 0)); then
        not_tested 'the kernel: this is not root'
    elif ! grep -q ' tracefs ' /proc/mounts && ! mount -t tracefs tracefs /sys/kernel/tracing; then
        not_tested 'the kernel: tracefs cannot be mounted'
    else
        cargo test --locked -p rstlab-witness -p rstlab-lab --features rstlab-witness/kernel,rstlab-lab/kernel,rstlab-lab/peers \
            --lib --test kernel --test packets --test watch_kernel --test trace
        cargo test --locked -p rstlab-tests --features kernel --test witness --test verdicts --test check_kernel -- --nocapture
    fi
}

run 'packages and servers' tests/peers/install.sh tests
run 'formatting' cargo fmt --all --check
run 'clippy' cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
# The feature rstlab-tests/long adds the tests that `cargo test --workspace` leaves out.
run 'unit and end-to-end tests' cargo test --locked --workspace --features rstlab-tests/long
run 'peer tests' cargo test --locked -p rstlab-tests --features peers --test 'peers_*' --test strace --test timeline
run 'kernel tests' kernel_tests
run 'soak' tests/soak.sh 2
run 'fuzzing' test_fuzz
run 'sample outputs' tests/docs.sh --check
run 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
run 'docker' test_docker
