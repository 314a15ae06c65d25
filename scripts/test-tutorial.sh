#!/usr/bin/env bash
# Runs docs/tutorial.md: its blocks of Python, in one interpreter, and of shell commands, from the top to the bottom, in a fresh folder. The first
# block, which installs, is done here instead: the package is the wheel that scripts/test-python.sh has built, the programs are those of
# `cargo build --release -p sparsevd-cli`, and `sparsevd` is this tree. It takes about three minutes of one core.
#
# Needs Python 3.10 or later, and fetches torch once: some gigabytes. SPARSEVD_TORCH_PYTHON names an interpreter of an environment that has it.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
python=${SPARSEVD_TORCH_PYTHON:-$target/python-package/bin/python3}
programs=$(realpath -m "${SPARSEVD_BIN:-$target/release}")
wheels=("$target"/python-package/wheels/sparsevd-*.whl)

if [ ! -x "$python" ] || [ ! -f "${wheels[0]}" ] || [ ! -x "$programs/compress" ]; then
    printf 'run scripts/test-python.sh first, which builds the programs and the wheel\n' >&2
    exit 1
fi
"$python" -c 'import safetensors, torch' 2>/dev/null || "$python" -m pip install --quiet --disable-pip-version-check safetensors torch
"$python" -m pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "${wheels[0]}"

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
ln -s "$root" "$folder/sparsevd"
cd "$folder"
PATH=$programs:$PATH "$python" - "$root/docs/tutorial.md" <<'PYTHON'
import re
import subprocess
import sys

page = open(sys.argv[1]).read()
blocks = list(re.finditer(r"^```(\w+)\n(.*?)^```$", page, re.M | re.S))
assert len(blocks) > 1 and "cargo install" in blocks[0][2], "expected a page whose first block installs"
names = {"__name__": "__main__"}
for block in blocks[1:]:
    language, code = block.groups()
    line = page.count("\n", 0, block.start(2)) + 1
    print(f"-- tutorial.md:{line}: {language}", flush=True)
    if language == "python":
        # A traceback has the lines of the page.
        exec(compile("\n" * (line - 1) + code, sys.argv[1], "exec"), names)
    elif language == "sh":
        subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True)
    else:
        sys.exit(f"tutorial.md:{line}: expected python or sh, got {language}")
PYTHON
printf 'the tutorial runs as it stands\n'
