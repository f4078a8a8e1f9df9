#!/usr/bin/env bash
# Runs docker/compose.yaml and looks at what its containers log. The image is built from docker/Dockerfile where its
# base image can be had, and else from programs built on this machine (docker/compose.host-binaries.yaml).
set -euo pipefail
cd "$(dirname "$0")/.."

# The tests must not take settings of the caller for their own.
unset LOG LOG_FORMAT COMPOSE_FILE "${!PROXY_@}" "${!UPSTREAM_@}" "${!CLIENT_@}"

base_image=${BUILD_IMAGE:-rust:1-bookworm}
export COMPOSE_PROJECT_NAME=rstlab-test-$$
export RSTLAB_IMAGE=$COMPOSE_PROJECT_NAME
# Docker takes a free port for 0.
export PROXY_PORT=0
export CLIENT_RATE=50

# The words in which nginx logs a reset.
reset='recv() failed (104: Connection reset by peer) while reading upstream'
requests=100

fail() {
    printf 'docker: %s\n' "$1" >&2
    exit 1
}

# tests/run.sh takes exit code 77 for "not tested".
not_tested() {
    printf '\n%s\n' '!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!' \
        "!!! DOCKER WAS NOT TESTED: $1" \
        '!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!' >&2
    exit 77
}

# until_true SECONDS WHAT COMMAND...: asks again and again until COMMAND says yes.
until_true() {
    local deadline=$((SECONDS + $1)) what=$2
    until "${@:3}"; do
        ((SECONDS < deadline)) || fail "$what: not within $1 s"
        sleep 0.2
    done
}

container() {
    compose ps --quiet "$1"
}

inspect() {
    docker inspect --format "$2" "$(container "$1")"
}

logs() {
    docker logs "$(container "$1")" 2>&1
}

is_healthy() {
    [[ $(inspect "$1" '{{.State.Health.Status}}') == healthy ]]
}

# logged SERVICE TEXT COUNT: whether at least COUNT lines hold TEXT.
logged() {
    (($(logs "$1" | grep --count --fixed-strings -- "$2") >= $3))
}

# summary FIELD: a number from the last line of the proxy's log.
summary() {
    logs proxy | grep ' summary ' | grep --only-matching --perl-regexp "(?<= $1=)\d+" || fail "no $1 in a summary"
}

# explained COUNT: whether the proxy logged the cause of at least COUNT resets, with the bytes that the upstream recorded
# in the volume.
explained() {
    local cause='cause=(data-after-close|unread-at-close) known=inferred .*unread_bytes=[0-9]'
    (($(logs proxy | grep --count --extended-regexp "$cause") >= $1))
}

# show ARGUMENT...: rstlab show, beside the volume with the records.
show() {
    compose run --rm --no-deps client rstlab show /records "$@" 2> "$work/show" || fail "$(cat "$work/show")"
}

# Starts everything, or the services named, with the upstream in this mode.
up() {
    UPSTREAM_MODE=$1 compose up --detach "${@:2}" > "$work/up" 2>&1 || fail "$(cat "$work/up")"
    until_true 60 'the upstream is healthy' is_healthy upstream
    until_true 60 'the proxy is healthy' is_healthy proxy
}

# Stops everything; each must end by itself, within the grace of 15 s.
stop() {
    local began=$SECONDS service code
    compose stop > "$work/stop" 2>&1 || fail "$(cat "$work/stop")"
    for service in upstream proxy client; do
        code=$(inspect "$service" '{{.State.ExitCode}}')
        # The client says with 1 that it was interrupted.
        [[ $code == 0 || $service == client && $code == 1 ]] || fail "$service ended with exit code $code"
    done
    echo "stopped in $((SECONDS - began)) s: $(logs proxy | tail --lines 1)"
}

has_ended() {
    [[ $(inspect "$1" '{{.State.Status}}') == exited ]]
}

# post ADDRESS: the length of the response to a POST to the published port, and curl's exit code: 18 for a cut response.
post() {
    curl --silent --noproxy '*' --output /dev/null --write-out '%{size_download} ' --data name=value "http://$1/" && echo 0 || echo $?
}

is_confined() {
    local service=$1 found
    found=$(inspect "$service" '{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.Privileged}} {{.HostConfig.SecurityOpt}}')
    [[ $found == '65532:65532 true [ALL] [] false [no-new-privileges:true]' ]] || fail "$service is not confined: $found"
}

build_on_the_host() {
    echo "no image $base_image: the programs are built on this machine"
    export RSTLAB_BINARIES=$work/image
    mkdir --parents --mode 755 "$RSTLAB_BINARIES/records"
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --bins --target host-tuple \
        -p rstlab-lab -p rstlab-proxy -p rstlab-upstream
    cp "${CARGO_TARGET_DIR:-target}"/"$(rustc --print host-tuple)"/release/rstlab{,-proxy,-upstream} "$RSTLAB_BINARIES"
    cp docker/Dockerfile.host-binaries "$RSTLAB_BINARIES/Dockerfile"
    files+=(--file docker/compose.host-binaries.yaml)
}

clean_up() {
    compose down --rmi all --volumes --remove-orphans --timeout 5 > /dev/null 2>&1 || true
    rm -rf "$work"
}

docker info > /dev/null 2>&1 || not_tested 'no Docker engine answers'
if docker compose version > /dev/null 2>&1; then
    compose_command=(docker compose)
elif command -v docker-compose > /dev/null; then
    compose_command=(docker-compose)
else
    not_tested 'neither docker compose nor docker-compose is here'
fi

work=$(mktemp -d)
files=(--file docker/compose.yaml)
compose() {
    "${compose_command[@]}" "${files[@]}" "$@"
}
trap clean_up EXIT

docker image inspect "$base_image" > /dev/null 2>&1 \
    || timeout 300 docker pull --quiet "$base_image" 2> /dev/null \
    || build_on_the_host
compose build > "$work/build" 2>&1 || fail "$(cat "$work/build")"

echo 'a bad setting ends the service'
PROXY_GAP=1 compose up --detach proxy > "$work/up" 2>&1 || true
until_true 60 'the proxy ends' has_ended proxy
[[ $(inspect proxy '{{.State.ExitCode}} {{.RestartCount}}') == '2 0' ]] \
    || fail "the proxy was started again, or ended otherwise: $(logs proxy)"
logged proxy 'PROXY_GAP="1"; allowed' 1 || fail "$(logs proxy)"
compose down --volumes > /dev/null 2>&1

# The gap is long enough for a machine that stalls. All requests are the first ones of a fresh pair.
echo 'the first responses are cut'
PROXY_GAP=10s up lazy proxy
proxy=$(compose port proxy 8080)
for request in {1..8}; do
    post "$proxy" > "$work/first-$request" &
done
wait
for request in {1..8}; do
    [[ $(cat "$work/first-$request") =~ ^[0-9]+' 18'$ ]] \
        || fail "a first response was not cut: $(cat "$work"/first-*) $(logs proxy)"
done
compose down --volumes > /dev/null 2>&1

echo 'lazy: resets in the log'
up lazy
for service in upstream proxy client; do
    is_confined "$service"
done
until_true 60 'resets' logged proxy "$reset" 10
until_true 60 "$requests resets are explained" explained "$requests"
proxy=$(compose port proxy 8080)
[[ $proxy == 127.0.0.1:* ]] || fail "the proxy is published on $proxy"
answer=$(curl --silent --show-error --noproxy '*' --output /dev/null --write-out '%{http_code} %{size_download}' "http://$proxy/")
[[ $answer == '200 614400' ]] || fail "curl got $answer from $proxy"
stop
(($(summary resets) > 0 && $(summary truncated) > 0)) || fail 'no reset and no truncated response in the summary'
show --json > "$work/records"
both=$(grep '"lane":"proxy"' "$work/records" | grep --count '"lane":"upstream"') \
    || fail "no record has both halves: $(head --lines 2 "$work/records")"
echo "$both records have both halves; the newest:"
show --last 1
compose down --volumes > /dev/null 2>&1

echo "drain: none in $requests requests"
up drain
until_true 60 "$requests requests" logged upstream ' closed ' "$requests"
stop
[[ $(summary resets) == 0 && $(summary truncated) == 0 ]] || fail "$(logs proxy)"
(($(summary requests) >= requests)) || fail "$(logs proxy)"
logged proxy "$reset" 1 && fail "$(logs proxy)"
compose down --volumes > /dev/null 2>&1

if [[ -d /sys/kernel/tracing/instances ]]; then
    echo 'compose.kernel.yaml: the kernel proves the causes, in containers without --privileged'
    files+=(--file docker/compose.kernel.yaml)
    up lazy
    for service in upstream proxy; do
        found=$(inspect "$service" '{{.Config.User}} {{.HostConfig.CapDrop}} {{.HostConfig.CapAdd}} {{.HostConfig.Privileged}}')
        [[ $found =~ ^'0:0 [ALL] '.*NET_RAW.*' false'$ ]] || fail "$service: $found"
        logged "$service" 'witness=kernel' 1 || fail "$(logs "$service")"
    done
    until_true 60 'causes are proved' logged proxy 'known=proved' 10
    until_true 60 'causes are proved' logged upstream 'known=proved' 10
    stop
    show --last 1 > "$work/shown"
    grep --quiet "known     proved, by the kernel's reason" "$work/shown" && grep --quiet '══ RST' "$work/shown" \
        || fail "no packets, or not proved by the kernel: $(cat "$work/shown")"
else
    echo '!!! the kernel in containers was NOT tested: tracefs is not mounted at /sys/kernel/tracing'
fi
echo 'docker: as it should be'
