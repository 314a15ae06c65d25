#!/usr/bin/env python3
"""Semantic textual similarity by an encoder: 100 times Spearman's correlation between cosines of embeddings and scores, by set.

    python benches/peers/sts.py RUN_SPARSE SETS FOLDER [FOLDER ..]

SETS is a folder of .tsv files, each line a score and two sentences. FOLDERs are those of encoders; `run-sparse embed` runs them. The
last column is the mean over the sets, as Reimers and Gurevych (2019) report it. It needs numpy alone.
"""
import argparse
import pathlib
import subprocess
import tempfile

import numpy as np


def ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 0 on; equal values have their mean rank."""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def embed(run_sparse: str, folder: pathlib.Path, sentences: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as place:
        text, out = pathlib.Path(place, "text.txt"), pathlib.Path(place, "y.npy")
        text.write_text("".join(f"{s}\n" for s in sentences), encoding="utf-8")
        command = [run_sparse, "embed", folder, "--text", text, "--out", out, "--quiet"]
        subprocess.run(command, check=True)
        return np.load(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_sparse")
    parser.add_argument("sets", type=pathlib.Path)
    parser.add_argument("folders", type=pathlib.Path, nargs="+")
    args = parser.parse_args()
    sets = {}
    for path in sorted(args.sets.glob("*.tsv")):
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        sets[path.stem] = (np.array([float(row[0]) for row in rows]), [row[1] for row in rows], [row[2] for row in rows])
    print(f"{'':24}" + " ".join(f"{name[-12:]:>12}" for name in sets) + f" {'mean':>7}")
    for folder in args.folders:
        found = []
        for scores, first, second in sets.values():
            y = embed(args.run_sparse, folder, first + second)
            y /= np.linalg.norm(y, axis=1, keepdims=True)
            found.append(100 * spearman((y[: len(first)] * y[len(first) :]).sum(axis=1), scores))
        print(f"{folder.name[-24:]:24}" + " ".join(f"{v:12.2f}" for v in found) + f" {np.mean(found):7.2f}", flush=True)


if __name__ == "__main__":
    main()
