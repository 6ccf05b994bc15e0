#!/usr/bin/env bash
# Build or try the container image with the engine that runs here (docker, podman), else with buildah alone, as root.
#
#   IMAGE=ddpm-lookalike:0.1.0 scripts/image.sh build     (further arguments go to the build)
#   IMAGE=ddpm-lookalike:0.1.0 scripts/image.sh test      (PYTHON: the environment's interpreter)
#
# ENGINE           docker, podman or buildah, where more than one would do
# PIP_CONF         a pip.conf that is lent to the build: a mirror, a certificate
# STORAGE_DRIVER   of buildah, where its own choice does not work: vfs works everywhere, with much disk
# DEBIAN_MIRROR    where buildah's base image is made from when no registry can be reached
set -euo pipefail
cd "$(dirname "$0")/.."

BASE=$(sed -n 's/^ARG BASE=//p' Dockerfile)
MADE_HERE=localhost/debian:bookworm-slim
IMAGE=${IMAGE:?the name of the image, such as ddpm-lookalike:0.1.0}
DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

main() {
    local verb=${1:-} engine
    shift || true
    engine=${ENGINE:-$(running_engine)}
    case $verb in
        build) build "$engine" "$@" ;;
        test) try "$engine" ;;
        *) echo "usage: IMAGE=name:tag $0 build|test" >&2; exit 2 ;;
    esac
}

running_engine() {
    local engine
    for engine in docker podman; do
        if command -v "$engine" >/dev/null && "$engine" info >/dev/null 2>&1; then
            echo "$engine"
            return
        fi
    done
    type -P buildah >/dev/null || { echo "no docker or podman runs here, and there is no buildah" >&2; exit 1; }
    echo buildah
}

# By itself buildah heeds STORAGE_DRIVER only where there is a storage.conf, and Debian's package brings none.
buildah() {
    command buildah ${STORAGE_DRIVER:+--storage-driver "$STORAGE_DRIVER"} "$@"
}

build() {
    local engine=$1 arguments=(--file Dockerfile --tag "$IMAGE")
    shift
    [ -z "${PIP_CONF:-}" ] || arguments+=(--secret "id=pip_conf,src=$PIP_CONF")
    if [ "$engine" = buildah ]; then
        if ! buildah pull --quiet --policy missing "$BASE"; then
            buildah inspect --type image "$MADE_HERE" >/dev/null 2>&1 || make_base
            arguments+=(--build-arg "BASE=$MADE_HERE")
        fi
        buildah bud --isolation chroot --layers "${arguments[@]}" "$@" .
    else
        "$engine" build "${arguments[@]}" "$@" .
    fi
}

# What debian:bookworm-slim is, made here: its packages, without documentation and without lists of packages.
make_base() {
    local root container
    command -v debootstrap >/dev/null || { echo "$BASE cannot be pulled, and there is no debootstrap" >&2; exit 1; }
    root=$(mktemp -d /var/tmp/debian.XXXXXX)
    debootstrap --variant=minbase bookworm "$root" "$DEBIAN_MIRROR" >&2
    printf 'deb %s\n' "$DEBIAN_MIRROR bookworm main" "$DEBIAN_MIRROR bookworm-updates main" \
        "$DEBIAN_MIRROR-security bookworm-security main" > "$root/etc/apt/sources.list"
    rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/usr/share/{doc,man,info,locale}/*
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$root" /
    buildah config --cmd bash "$container"
    buildah commit --quiet --rm "$container" "$MADE_HERE"
    rm -rf "$root"
}

try() {
    local engine=$1 container status=0
    if [ "$engine" != buildah ]; then
        exec "${PYTHON:-python3}" scripts/image_test.py "$engine" "$IMAGE"
    fi
    container=$(buildah from --pull-never "$IMAGE")
    # A network of its own, so that no port of this machine is in the way.
    IMAGE_CONFIG=$(buildah inspect --type image "$IMAGE") bwrap --dev-bind / / --unshare-net --die-with-parent \
        "${PYTHON:-python3}" scripts/image_test.py bwrap "$(buildah mount "$container")" || status=$?
    buildah rm "$container" >/dev/null
    return "$status"
}

main "$@"
