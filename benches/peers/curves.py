"""Draws error against ratio as an SVG, from what `compress compare --json` prints.

    python -m venv venv && venv/bin/pip install matplotlib
    target/release/compress compare models/lenet-5/model.safetensors --methods sparse-vd --ratios 100,150,200,280 --seeds 0,1,2,3,4 --json > F.json
    venv/bin/python benches/peers/curves.py F.json [F.json ...] --out docs/lenet-5-curve.svg

Each method has a line through the means of its seeds, a point for each seed, and the dense network is a dashed line. Errors are those on
the test samples.
"""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

NAMES = {"sparse-vd": "Sparse VD", "gradual-magnitude": "gradual magnitude", "fisher": "Fisher"}
# Of Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {"sparse-vd": "#0072B2", "gradual-magnitude": "#D55E00", "fisher": "#009E73"}


def draw(axes, comparison):
    results = comparison["results"]
    for method in dict.fromkeys(r["method"] for r in results):
        of_method = sorted((r for r in results if r["method"] == method), key=lambda r: r["ratio"])
        colour = COLOURS[method]
        axes.plot([r["ratio"] for r in of_method], [r["test"]["percent"] for r in of_method], "-o", color=colour, label=NAMES[method])
        seeds = [s for r in of_method for s in r["seeds"]]
        axes.plot([s["ratio"] for s in seeds], [s["test"]["sparse_percent"] for s in seeds], ".", color=colour, alpha=0.4)
    axes.axhline(comparison["test"]["error_percent"], linestyle="--", color="#555555", label="dense")
    ratios = sorted({r["asked_ratio"] for r in results})
    axes.set_xscale("log")
    axes.set_xticks(ratios, [f"{r:g}x" for r in ratios])
    axes.set_xticks([], minor=True)
    axes.set_ylim(bottom=0)
    axes.set_title(comparison["network"])
    axes.set_xlabel("fewer weights")
    axes.set_ylabel("test error, %")
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparisons", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    # The same bytes of the same numbers, and text that can be searched.
    plt.rcParams.update({"svg.hashsalt": "sparsevd", "svg.fonttype": "none", "font.family": "sans-serif"})
    comparisons = [json.loads(path.read_text()) for path in args.comparisons]
    figure, axes = plt.subplots(1, len(comparisons), figsize=(4.5 * len(comparisons), 3.2), squeeze=False, layout="constrained")
    for one, comparison in zip(axes[0], comparisons):
        draw(one, comparison)
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
