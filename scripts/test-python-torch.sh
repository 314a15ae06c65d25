#!/usr/bin/env bash
# The layers of `sparsevd.torch` and modules of PyTorch in the Python package, in the environment that scripts/test-python.sh made, which
# fetches torch once: some gigabytes. Two processes train by gloo in one of the tests.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
python=${SPARSEVD_TORCH_PYTHON:-$target/python-package/bin/python3}
export PYTHONDONTWRITEBYTECODE=1

if [ ! -x "$python" ] || [ ! -d "$target/python-package/wheels" ]; then
    printf 'run scripts/test-python.sh first, which builds the wheel\n' >&2
    exit 1
fi
"$python" -c 'import pytest, torch' 2>/dev/null || "$python" -m pip install --quiet --disable-pip-version-check pytest torch
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$target"/python-package/wheels/sparsevd-*.whl
SPARSEVD_BIN=$target/release "$python" -m pytest -q -p no:cacheprovider bindings/python/tests_torch "$@"
