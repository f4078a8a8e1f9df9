#!/usr/bin/env bash
# Every test there is, on a Debian or Ubuntu machine with Rust. Stops at the first that fails.
set -euo pipefail
cd "$(dirname "$0")/.."
# cargo's own directory, and that of nginx.
export PATH="$PATH:$HOME/.cargo/bin:/usr/sbin" DEBIAN_FRONTEND=noninteractive

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

# The packages that hold the commands the tests call, as far as they are missing.
missing_packages() {
    local command package
    while read -r command package; do
        command -v "$command" > /dev/null || echo "$package"
    done <<- END
		cc gcc
		curl curl
		nginx nginx
		strace strace
		tcpdump tcpdump
		wrk wrk
	END
    # The static programs for Docker need libc.a; a venv needs the pip that comes with this package.
    [[ -e $(cc -print-file-name=libc.a 2> /dev/null) ]] || echo libc6-dev
    python3 -c 'import ensurepip' 2> /dev/null || echo python3-venv
}

install_packages() {
    local packages sudo=() policy=/usr/sbin/policy-rc.d status=0
    mapfile -t packages < <(missing_packages)
    if ((${#packages[@]} == 0)); then
        echo 'nothing to install: cc, curl, nginx, python3-venv, strace, tcpdump and wrk are here'
        return
    fi
    echo "installing with apt-get: ${packages[*]}"
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    if [[ -e $policy ]]; then
        policy=''
    else
        # nginx would be started as a service, on port 80. The tests run their own.
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" install -m 755 /dev/stdin "$policy"
    fi
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null || status=$?
    [[ -z $policy ]] || "${sudo[@]}" rm "$policy"
    return "$status"
}

install_gunicorn() {
    local version venv
    for version in 23.0.0 27.0.1; do
        venv=.venv/gunicorn-$version
        if [[ ! -x $venv/bin/gunicorn ]]; then
            echo "installing with pip in $venv: gunicorn==$version flask"
            python3 -m venv --clear "$venv"
            "$venv/bin/pip" install --quiet --disable-pip-version-check "gunicorn==$version" flask
        fi
        "$venv/bin/gunicorn" --version
    done
}

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
        cargo test --locked -p rstlab-witness -p rstlab-lab --features rstlab-witness/kernel,rstlab-lab/kernel
    fi
}

not_asked() {
    printf '!!! THE KERNEL WAS NOT ASKED: %s\n' "$1" >&2
}

run 'packages' install_packages
run 'gunicorn' install_gunicorn
run 'formatting' cargo fmt --all --check
run 'clippy' cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
run 'unit and end-to-end tests' cargo test --locked --workspace
run 'peer tests' cargo test --locked -p rstlab-tests --features peers --test 'peers_*' --test strace
run 'kernel tests' kernel_tests
run 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
run 'docker' test_docker
