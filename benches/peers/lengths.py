"""Compares `run-sparse` with onnxruntime on a network of two inputs and two outputs, one of each with a free length.

    python benches/peers/lengths.py target/release/run-sparse [MODEL.onnx]

Runs 40 lengths, each with batches of 1 and 3, and exits with 1 where an output differs by more than 1e-5 of the largest.
MODEL is tests/golden/onnx/sequence.onnx unless given. Needs numpy and onnxruntime.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

LENGTHS = [*range(1, 25), 31, 32, 33, 47, 48, 49, 63, 64, 65, 100, 127, 128, 129, 200, 255, 256]
GOLDEN = Path(__file__).resolve().parents[2] / "tests/golden/onnx/sequence.onnx"


def main():
    program, *rest = sys.argv[1:]
    model = Path(rest[0]) if rest else GOLDEN
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(3)
    failed, worst = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        expect = Path(folder) / "expect.npz"
        for length in LENGTHS:
            for batch in (1, 3):
                inputs = {}
                for value in session.get_inputs():
                    known = [size if isinstance(size, int) else length for size in value.shape[1:]]
                    inputs[value.name] = random.standard_normal([batch, *known]).astype(np.float32)
                names = [value.name for value in session.get_outputs()]
                outputs = dict(zip(names, session.run(names, inputs)))
                np.savez(expect, **inputs, **outputs)
                command = [program, "check", model, "--expect", expect, "--tolerance", "1e-5", "--json"]
                run = subprocess.run(command, capture_output=True, text=True)
                if run.returncode not in (0, 1):
                    sys.exit(f"length {length}, batch {batch}: {run.stderr}")
                result = json.loads(run.stdout)
                worst = max(worst, result["max_relative_error"])
                if not result["pass"]:
                    failed += 1
                    print(f"length {length}, batch {batch}: {result}")
    print(f"{len(LENGTHS)} lengths, largest difference {worst:.1e} of the largest output, {failed} failed")
    sys.exit(failed > 0)


main()
