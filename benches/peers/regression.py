"""Regression on the tables that tables.py writes: an MLP, dense and compressed, over several seeds, as rows of docs/tables.md.

    python benches/peers/regression.py TABLES [--bin target/release] [--seeds 5] [--epochs N] [--kl-scale K] [NAME ...]

For each table and seed: `compress train mlp`, then `compress` without a recipe, both with their defaults; `--epochs` is that of the
training, `--kl-scale` that of the compression. R2 of dense and sparse are on validation and test rows. The last line of a table is
R2 of a linear regression on the same test rows. Needs numpy.
"""

import argparse
import csv
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import mean

import numpy as np


def run(*command):
    """The report of a command, which may break its accuracy promise."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def seed_of(args, table, seed, folder):
    common = ["--data", table, "--seed", seed, "--quiet", "--force", "--json"]
    dense, sparse = folder / "dense.safetensors", folder / "sparse.safetensors"
    epochs = ["--epochs", args.epochs] if args.epochs else []
    scale = ["--kl-scale", args.kl_scale] if args.kl_scale else []
    files = ["--out", dense, "--run", folder / "train.run"]
    run(args.bin / "compress", "train", "mlp", *common, *files, *epochs)
    files = ["--out", sparse, "--run", folder / "run"]
    report = run(args.bin / "compress", dense, *common, *files, *scale)
    scores = [report["accuracy"][part][of] for part in ("validation", "test") for of in ("dense_r2", "sparse_r2")]
    return report["ratio"], scores, report["accuracy"]["promise"]["verdict"]


def is_for_testing(rows):
    """The draw of `held_back` in crates/format/src/table/mod.rs."""
    z = np.arange(rows, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    test = np.zeros(rows, dtype=bool)
    test[np.argsort(z)[: rows // 5]] = True
    return test


def linear(table):
    """R2 on the test rows of least squares on all others; words are one column for each."""
    with open(table, newline="") as file:
        rows = list(csv.reader(file))[1:]
    features, columns = [np.ones(len(rows))], list(zip(*rows))
    for column in columns[:-1]:
        try:
            features.append(np.array(column, dtype=float))
        except ValueError:
            features += [np.array(column) == word for word in sorted(set(column))[1:]]
    x, y = np.stack(features, axis=1).astype(float), np.array(columns[-1], dtype=float)
    test = is_for_testing(len(y))
    weights = np.linalg.lstsq(x[~test], y[~test], rcond=None)[0]
    return 1 - ((x[test] @ weights - y[test]) ** 2).sum() / ((y[test] - y[test].mean()) ** 2).sum()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", type=Path)
    parser.add_argument("names", nargs="*", default=["boston", "diabetes", "diamonds"])
    parser.add_argument("--bin", type=Path, default=Path("target/release"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--kl-scale", type=float)
    args = parser.parse_intermixed_args()
    print("| table | seed | fewer | validation, dense | sparse | test, dense | sparse | promise |")
    print("|---|---|---|---|---|---|---|---|")
    for name in args.names:
        rows = []
        for seed in range(args.seeds):
            with tempfile.TemporaryDirectory() as folder:
                ratio, scores, verdict = seed_of(args, args.tables / f"{name}.csv", seed, Path(folder))
            rows.append((ratio, scores))
            cells = " | ".join(f"{r2:.3f}" for r2 in scores)
            print(f"| {name} | {seed} | {f'{ratio:.0f}x' if ratio else 'constant'} | {cells} | {verdict} |", flush=True)
        means = " | ".join(f"{mean(scores[i] for _, scores in rows):.3f}" for i in range(4))
        print(f"| {name} | mean | {mean(ratio for ratio, _ in rows if ratio):.0f}x | {means} | |", flush=True)
        print(f"| {name} | linear | | | | {linear(args.tables / f'{name}.csv'):.3f} | | |", flush=True)


main()
