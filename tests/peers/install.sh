#!/usr/bin/env bash
# Installs the real servers on a Debian or Ubuntu machine: programs with apt-get, Python servers with pip, each version
# in a venv of its own, .venv/NAME-VERSION. Installed versions stay as they are. No service is started.
#
#   tests/peers/install.sh tests     what tests/run.sh needs
#   tests/peers/install.sh matrix    what tests/peers/matrix.toml needs
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="$PATH:/usr/sbin" DEBIAN_FRONTEND=noninteractive

# Commands, and the packages that hold them.
tests_commands() {
    cat <<- END
		cc gcc
		curl curl
		haproxy haproxy
		nginx nginx
		node nodejs
		openssl openssl
		strace strace
		tcpdump tcpdump
		tshark tshark
		wrk wrk
	END
}

matrix_commands() {
    cat <<- END
		apache2 apache2-bin
		haproxy haproxy
		lighttpd lighttpd
		nginx nginx
		node nodejs
	END
}

# The packages of the commands that are missing.
missing_packages() {
    local command package
    while read -r command package; do
        command -v "$command" > /dev/null || echo "$package"
    done < <("$1_commands")
    # A venv needs the pip that comes with this package.
    python3 -c 'import ensurepip' 2> /dev/null || echo python3-venv
    # The static programs for Docker need libc.a.
    [[ $1 != tests || -e $(cc -print-file-name=libc.a 2> /dev/null) ]] || echo libc6-dev
}

install_packages() {
    local packages sudo=() policy=/usr/sbin/policy-rc.d status=0
    mapfile -t packages < <(missing_packages "$1")
    if ((${#packages[@]} == 0)); then
        printf 'no package to install: %s are here\n' "$("$1_commands" | cut -d ' ' -f 1 | paste -sd ' ')"
        return
    fi
    echo "installing with apt-get: ${packages[*]}"
    ((EUID == 0)) || sudo=(sudo)
    "${sudo[@]}" apt-get update -qq
    if [[ -e $policy ]]; then
        policy=''
    else
        # nginx and others would be started as services, on port 80. The tests run their own.
        printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" install -m 755 /dev/stdin "$policy"
    fi
    "${sudo[@]}" apt-get install -y -qq --no-install-recommends "${packages[@]}" > /dev/null || status=$?
    [[ -z $policy ]] || "${sudo[@]}" rm "$policy"
    return "$status"
}

# install_python NAME VERSION PACKAGE...: a server in a venv of its own, with the packages that it needs.
install_python() {
    local package venv=.venv/$1-$2
    [[ -x $venv/bin/python ]] || python3 -m venv --clear "$venv"
    for package in "$1" "${@:3}"; do
        "$venv/bin/python" -c "import $package" 2> /dev/null && continue
        echo "installing with pip in $venv: $1==$2 ${*:3}"
        "$venv/bin/pip" install --quiet --disable-pip-version-check "$1==$2" "${@:3}"
        break
    done
    "$venv/bin/python" -c "from importlib.metadata import version; print('$1', version('$1'))"
}

case ${1-} in
    tests)
        install_packages tests
        install_python gunicorn 23.0.0 flask
        install_python gunicorn 27.0.1 flask
        install_python uvicorn 0.54.0
        install_python waitress 3.0.2 flask
        ;;
    matrix)
        install_packages matrix
        install_python gunicorn 23.0.0 flask gevent
        # Its gevent workers import packaging.
        install_python gunicorn 27.0.1 flask gevent packaging
        install_python uvicorn 0.54.0
        install_python waitress 3.0.2 flask
        ;;
    *)
        sed -n '2,6s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
esac
