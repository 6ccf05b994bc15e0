#!/usr/bin/env bash
# The image's packages with the hashes of their files, in the versions of .venv: those that the tests ran with.
#
#   scripts/lock.sh [BUILD…]     requirements/BUILD.txt: cpu, cuda, cuda12 (all that serving needs, each with its build of
#                                torch) and train (what training needs beside); without one cpu, cuda and train
#
# CPU_WHEELS       a folder with the build of torch for CPUs, where PyTorch's page cannot be reached
set -euo pipefail
cd "$(dirname "$0")/.."

PAGES=https://download.pytorch.org/whl
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

main() {
    local build torch served
    torch=$(.venv/bin/python -c 'from importlib.metadata import version; print(version("torch").partition("+")[0])')
    .venv/bin/pip freeze --quiet --exclude-editable | grep '^[A-Za-z0-9._-]*==' | grep -v '^torch==' > "$scratch/tested"
    for build in "$@"; do
        case $build in
            cpu) from_page "$build" "$torch+cpu" "$PAGES/cpu/torch/" "${CPU_WHEELS:-}" ;;
            cuda) compile "$torch" "requirements/$build.txt" ;;
            cuda12) from_page "$build" "$torch+cu126" "$PAGES/cu126/torch/" ;;
            train)
                mapfile -t served < <(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package=\1/p' requirements/cuda.txt)
                compile "$torch" "requirements/$build.txt" --extra train "${served[@]}"
                ;;
            *) echo "there is no build $build: cpu, cuda, cuda12, train" >&2; exit 2 ;;
        esac
    done
}

# from_page BUILD TORCH PAGE [FOLDER]: torch comes from a page of PyTorch's, all else from PyPI
from_page() {
    compile "$2" "$scratch/list" --find-links "${4:-$3}"
    { echo "--find-links $3"; cat "$scratch/list"; } > "requirements/$1.txt"
}

# compile TORCH FILE [OPTION…]
compile() {
    local torch=$1 file=$2
    shift 2
    # setuptools builds our own package
    printf '%s\n' "torch==$torch" setuptools > "$scratch/beside.in"
    .venv/bin/uv pip compile pyproject.toml "$scratch/beside.in" --constraint constraints.txt --constraint "$scratch/tested" \
        --python-version 3.11 --python-platform x86_64-manylinux_2_36 --generate-hashes --no-header --no-annotate --quiet \
        --output-file "$file" "$@" > /dev/null
}

if [ $# -eq 0 ]; then set -- cpu cuda train; fi
main "$@"
