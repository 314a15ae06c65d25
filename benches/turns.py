#!/usr/bin/env python3
"""Two builds of this workspace by turns: is the second slower than the first?

    cargo build --release --workspace --bins --bench limits      # in each of the two trees
    taskset -c 1 python benches/turns.py FIRST SECOND MODEL.. [--rounds 5] [--batches 1,16] [--limits] [--json FILE]

FIRST and SECOND are folders with `run-sparse` and, for `--limits`, the executable of `benches/limits.rs` under the name `limits`. Each model is run by
`run-sparse bench`, sparse and dense, one thread; rounds change which build goes first. With `--limits`, so are all lines of the sparse kernels. Of each row
the ratio of the medians is printed, second over first, and at the end their geometric mean and every row that is over 1.05.
"""
import argparse
import json
import math
import pathlib
import statistics
import subprocess
from collections import defaultdict


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("first", type=pathlib.Path)
    parser.add_argument("second", type=pathlib.Path)
    parser.add_argument("models", nargs="*", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", default="1,16")
    parser.add_argument("--seconds", default="0.3", help="of each measurement")
    parser.add_argument("--limits", action="store_true", help="the lines of benches/limits.rs too")
    parser.add_argument("--json", type=pathlib.Path, help="where to write all times in microseconds")
    return parser.parse_args()


def bench(programs, model, args):
    command = [programs / "run-sparse", "bench", model, "--batch", args.batches, "--seconds", args.seconds, "--threads", "1", "--json", "--against", "dense"]
    runs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["runs"]
    return {f"{model.parent.name}/{model.stem} {run['plan']} batch {run['batch']}": run["p50_us"] for run in runs}


def limits(programs):
    lines = subprocess.run([programs / "limits", "json"], check=True, capture_output=True, text=True).stdout.splitlines()
    # The first contestant of a line is our kernel.
    return {line["line"]: next(iter(line["us"].values())) for line in map(json.loads, lines)}


def main():
    args = arguments()
    times = {side: defaultdict(list) for side in (args.first, args.second)}
    tasks = [lambda side, model=model: bench(side, model, args) for model in args.models]
    if args.limits:
        tasks.append(limits)
    for round_ in range(args.rounds):
        sides = [args.first, args.second][:: 1 if round_ % 2 == 0 else -1]
        for task in tasks:
            for side in sides:
                for row, us in task(side).items():
                    times[side][row].append(us)
    ratios = {}
    for row, first in times[args.first].items():
        before, after = statistics.median(first), statistics.median(times[args.second][row])
        ratios[row] = after / before
        print(f"{row:60} {before:12.3f} {after:12.3f}  {after / before:.3f}")
    mean = math.exp(statistics.fmean(map(math.log, ratios.values())))
    slower = {row: ratio for row, ratio in ratios.items() if ratio > 1.05}
    print(f"{len(ratios)} rows, geometric mean {mean:.4f}, {len(slower)} over 1.05")
    for row, ratio in slower.items():
        print(f"  {row}: {ratio:.3f}")
    if args.json:
        args.json.write_text(json.dumps({str(side): rows for side, rows in times.items()}))


if __name__ == "__main__":
    main()
