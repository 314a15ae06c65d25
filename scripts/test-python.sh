#!/usr/bin/env bash
# The Python package: builds its wheel with the dependencies that the workspace has built, installs it into an environment under the
# target folder, and runs its tests, which need no PyTorch (scripts/test-python-torch.sh has those that do).
# Needs a Python of 3.10 or later, and fetches maturin, numpy, pytest and tqdm once.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
environment=$target/python-package
python=$environment/bin/python3
export CARGO_TARGET_DIR=$target PYTHONDONTWRITEBYTECODE=1

[ -x "$python" ] || python3 -m venv "$environment"
"$python" -c 'import maturin, numpy, pytest, tqdm' 2>/dev/null ||
    "$python" -m pip install --quiet --disable-pip-version-check 'maturin>=1.9.4,<2' numpy pytest tqdm

# The tests compare with the programs; .ci/run has built them.
if [ -z "${SPARSEVD_BIN:-}" ]; then
    cargo build --release --quiet -p sparsevd-cli
    export SPARSEVD_BIN=$target/release
fi
rm -rf "$target/python-package/wheels"
"$python" -m maturin build --release --quiet --manifest-path bindings/python/Cargo.toml --interpreter "$python" --out "$target/python-package/wheels"
wheel=("$target"/python-package/wheels/sparsevd-*.whl)
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "${wheel[0]}"

size=$(wc -c <"${wheel[0]}")
printf '%s: %d bytes\n' "$(basename "${wheel[0]}")" "$size"
if [ "$size" -gt 6000000 ]; then
    printf '%s: expected at most 6000000 bytes\n' "${wheel[0]}" >&2
    exit 1
fi
# The first import of a new wheel reads it from the disk.
"$python" -c 'import sparsevd'
"$python" -X importtime -c 'import numpy, sparsevd' 2>&1 | awk -F'|' '
    $3 ~ /^ numpy$/ { numpy = $2 } $3 ~ /^ sparsevd$/ { print "import: numpy", numpy, "us, sparsevd beyond it", $2, "us"
    if ($2 > 50000) { print "expected at most 50000 us" > "/dev/stderr"; exit 1 } }'
"$python" -m pytest -q -p no:cacheprovider bindings/python/tests "$@"
