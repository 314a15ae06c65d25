"""What a call from Python costs over the session of Rust: LeNet-300-100 at batch 1, both by turns, medians.

    python bindings/python/benches/call.py [--bin target/release] [--rounds 5]
"""

import argparse
import json
import statistics
import subprocess
import timeit
from pathlib import Path

import numpy as np

import sparsevd

ROOT = Path(__file__).resolve().parents[3]
# So few that the median has no pause for another process.
CALLS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    path = ROOT / "models" / "lenet-300-100" / "sparse.safetensors"
    session = sparsevd.load(path).session(threads=1)
    # As `run-sparse bench` has it where no data is named.
    x = np.random.default_rng(0).random((1, 1, 28, 28), dtype=np.float32)
    out = np.empty((1, 10), np.float32)
    calls = {"session(x)": lambda: session(x), "session.run(x, out=y)": lambda: session.run(x, out=out), "lambda: None": lambda: None}
    rust: list[float] = []
    python: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        bench = [args.bin / "run-sparse", "bench", path, "-b", "1", "-t", "1", "--json"]
        report = json.loads(subprocess.run(bench, check=True, capture_output=True, text=True).stdout)
        rust.append(report["runs"][0]["p50_us"])
        for name, call in calls.items():
            times = timeit.repeat(call, number=CALLS, repeat=2001)
            python[name].append(statistics.median(times) / CALLS * 1e6)
    base = statistics.median(rust)
    print(f"{'Rust session':24} {base:6.2f} us")
    for name, times in python.items():
        us = statistics.median(times)
        print(f"{name:24} {us:6.2f} us" + (f"  {us - base:+.2f}" if name.startswith("session") else ""))


if __name__ == "__main__":
    main()
