#!/usr/bin/env bash
# Build the image and try it where there is no Docker engine: buildah builds, podman runs, on a base made with debootstrap.
#   sudo docker/try.sh          needs apt's buildah podman runc debootstrap curl
# With redis-server and docker-compose at hand it also tries the second tier of the text cache and lints the compose file.
# BASE names a local image to use instead of making one; BUILD_OPTIONS and RUN_OPTIONS are handed to buildah and podman
# (a proxy, a mounted pip.conf); MIRROR is the Debian mirror for debootstrap; LIMIT_MB the largest image that passes.
set -euo pipefail
cd "$(dirname "$0")/.."
IMAGE=${IMAGE:-winnow:try}
BASE=${BASE:-}
PORT=${PORT:-8765}
LIMIT_MB=${LIMIT_MB:-500}
WORK=$(mktemp -d)
CONTAINER=winnow-try-$$
STORAGE=(--storage-driver "${STORAGE_DRIVER:-overlay}")
REDIS_PORT=${REDIS_PORT:-8766}
export DISABLE_HC_SYSTEMD=true # no timers for the health check: it is run below
PODMAN=(podman "${STORAGE[@]}" --runtime runc)
read -ra BUILD_OPTIONS <<<"${BUILD_OPTIONS:-}"
read -ra RUN_OPTIONS <<<"${RUN_OPTIONS:-}"

say() { printf '\n== %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    "${PODMAN[@]}" logs "$CONTAINER" >&2 2>/dev/null || true
    exit 1
}
clean() {
    "${PODMAN[@]}" rm --force --volumes --time 5 "$CONTAINER" >/dev/null 2>&1 || true
    if [ -n "${redis:-}" ]; then kill "$redis" 2>/dev/null && wait "$redis" || true; fi
    rm -rf "$WORK"
}
trap clean EXIT

if command -v docker-compose >/dev/null; then
    say "lint the compose file"
    docker-compose --file docker-compose.yml config --quiet || fail "docker-compose.yml"
    echo "docker-compose.yml is valid"
fi

if [ -z "$BASE" ]; then
    BASE=localhost/winnow-base:bookworm
    if ! buildah "${STORAGE[@]}" inspect --type image "$BASE" >/dev/null 2>&1; then
        say "base image: debootstrap with Python 3.11"
        debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates bookworm "$WORK/base" \
            ${MIRROR:+"$MIRROR"} >"$WORK/debootstrap.log" 2>&1 || { tail "$WORK/debootstrap.log"; fail debootstrap; }
        rm -rf "$WORK"/base/var/cache/apt/* "$WORK"/base/var/lib/apt/lists/* "$WORK"/base/usr/share/{doc,man,locale}/*
        made=$(buildah "${STORAGE[@]}" from scratch)
        mounted=$(buildah "${STORAGE[@]}" mount "$made")
        cp -a "$WORK/base/." "$mounted/"
        buildah "${STORAGE[@]}" umount "$made" >/dev/null
        buildah "${STORAGE[@]}" commit --rm "$made" "$BASE" >/dev/null
    fi
fi

say "build"
buildah "${STORAGE[@]}" bud --isolation chroot --pull-never --format docker "${BUILD_OPTIONS[@]}" \
    --build-arg BASE="$BASE" --file docker/Dockerfile --tag "$IMAGE" . >"$WORK/build.log" 2>&1 ||
    { tail -20 "$WORK/build.log"; fail build; }
size=$("${PODMAN[@]}" image inspect --format '{{.Size}}' "$IMAGE")
echo "image: $((size / 1000000)) MB (limit $LIMIT_MB MB)"
[ $((size / 1000000)) -lt "$LIMIT_MB" ] || fail "the image is too large"

if [ -z "${WINNOW_REDIS_URL:-}" ] && command -v redis-server >/dev/null; then
    redis-server --bind 127.0.0.1 --port "$REDIS_PORT" --maxmemory 64mb --maxmemory-policy volatile-lru --save "" \
        --appendonly no --dir "$WORK" >"$WORK/redis.log" 2>&1 &
    redis=$!
    WINNOW_REDIS_URL=redis://127.0.0.1:$REDIS_PORT/0
fi

say "run: read-only root, no capabilities, not root"
"${PODMAN[@]}" run --detach --name "$CONTAINER" --network=host --ulimit nofile=20000:20000 --ulimit nproc=1000:1000 \
    --read-only --tmpfs /tmp:size=64m --cap-drop ALL --security-opt no-new-privileges \
    --env WINNOW_HOST=127.0.0.1 --env WINNOW_PORT="$PORT" ${WINNOW_REDIS_URL:+--env WINNOW_REDIS_URL="$WINNOW_REDIS_URL"} \
    "${RUN_OPTIONS[@]}" "$IMAGE" >/dev/null
started=$(date +%s%N)
until "${PODMAN[@]}" exec "$CONTAINER" python /opt/winnow/healthcheck.py 2>/dev/null; do
    [ "$("${PODMAN[@]}" inspect --format '{{.State.Running}}' "$CONTAINER")" = true ] || fail "the container ended"
    [ $((($(date +%s%N) - started) / 1000000000)) -lt 60 ] || fail "not ready within 60 s"
    sleep 0.2
done
echo "ready after $((($(date +%s%N) - started) / 1000000)) ms, health check green"
uid=$("${PODMAN[@]}" exec "$CONTAINER" python -c 'import os; print(os.getuid())')
[ "$uid" = 10001 ] || fail "runs as uid $uid"
"${PODMAN[@]}" exec "$CONTAINER" python -c 'open("/opt/winnow/x", "w")' 2>/dev/null && fail "the root is writable"
"${PODMAN[@]}" exec "$CONTAINER" python -c 'import torch' 2>/dev/null && fail "torch is in the image"
echo "uid $uid, root read-only, no torch"

say "separate"
python3 - "$WORK/mix.wav" <<'PY'
import math, random, struct, sys, wave
with wave.open(sys.argv[1], "wb") as out:
    out.setnchannels(2), out.setsampwidth(2), out.setframerate(44100)
    for n in range(3 * 44100):
        tone = 8000 * math.sin(2 * math.pi * 440 * n / 44100)
        out.writeframes(struct.pack("<hh", int(tone + random.gauss(0, 800)), int(tone / 2 + random.gauss(0, 800))))
PY
ask() { # the sound in, the named one out; the answer's headers on stdout
    curl -fsS -F audio=@"$WORK/mix.wav" -F prompt="dog barking" "http://127.0.0.1:$PORT/separate" -o "$WORK/dog.wav" \
        --dump-header - | tr -d '\r'
}
headers=$(ask) || fail "the curl"
grep -iE '^(HTTP|content-type|x-presence|x-embedding-cache|server-timing)' <<<"$headers"
[ "$(stat -c %s "$WORK/dog.wav")" = "$(stat -c %s "$WORK/mix.wav")" ] || fail "another length came back"
left=$("${PODMAN[@]}" exec "$CONTAINER" python -c 'import os; print(os.listdir("/scratch"))')
[ "$left" = "[]" ] || fail "left in /scratch: $left"
echo "as many bytes came back as went in; nothing is left in /scratch"
if [ -n "${redis:-}" ]; then
    keys=$("${PODMAN[@]}" exec "$CONTAINER" python -c \
        'import os, redis; print(redis.Redis.from_url(os.environ["WINNOW_REDIS_URL"]).dbsize())')
    [ "$keys" = 1 ] || fail "$keys embeddings in Redis"
    echo "Redis keeps the prompt's embedding"
    kill "$redis" && wait "$redis" || true
    redis=
    ask >/dev/null || fail "a dead Redis fails a request"
    echo "and the service answers without it"
fi

say "stop"
started=$(date +%s%N)
"${PODMAN[@]}" stop --time 30 "$CONTAINER" >/dev/null 2>&1
status=$("${PODMAN[@]}" inspect --format '{{.State.ExitCode}}' "$CONTAINER")
[ "$status" = 0 ] || [ "$status" = 143 ] || fail "ended with $status"
echo "ended $((($(date +%s%N) - started) / 1000000)) ms after SIGTERM with status $status"
say "all is well"
