"""Draws test error against ratio of the networks of CIFAR-10 as an SVG, from the `curve.csv` beside their cards.

    python -m venv venv && venv/bin/pip install matplotlib
    venv/bin/python benches/peers/cifar_curves.py --out docs/cifar-10-curves.svg

The band is the binomial standard error of the dense network's error on 10,000 images.
"""

import argparse
import csv
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

MODELS = Path(__file__).resolve().parents[2] / "models"
# Of Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {"trained": "#0072B2", "in one shot": "#D55E00"}
IMAGES = 10_000


def draw(axes, network):
    with open(MODELS / f"{network}-cifar10/curve.csv") as file:
        rows = [(float(r["fewer"]), float(r["test_error"]), r["how"]) for r in csv.DictReader(file)]
    dense = next(error for _, error, how in rows if how == "dense")
    deviation = (dense * (100 - dense) / IMAGES) ** 0.5
    axes.axhspan(dense - deviation, dense + deviation, color="#eeeeee")
    axes.axhline(dense, linestyle="--", color="#555555", label="dense")
    for how, colour in COLOURS.items():
        points = [(fewer, error) for fewer, error, of in rows if of == how]
        if points:
            axes.plot(*zip(*points), "-o", color=colour, label=how)
    most = max(fewer for fewer, _, _ in rows)
    ticks = [fewer for fewer in (1, 2, 3, 5, 8, 12, 20) if fewer <= most]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{fewer:g}x" for fewer in ticks])
    axes.set_xticks([], minor=True)
    axes.set_title(network)
    axes.set_xlabel("fewer weights")
    axes.set_ylabel("test error, %")
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    # The same bytes of the same numbers, and text that can be searched.
    plt.rcParams.update({"svg.hashsalt": "sparsevd", "svg.fonttype": "none", "font.family": "sans-serif"})
    networks = ["resnet-20", "resnet-8"]
    figure, axes = plt.subplots(1, len(networks), figsize=(4.5 * len(networks), 3.2), layout="constrained")
    for one, network in zip(axes, networks):
        draw(one, network)
    figure.savefig(args.out, metadata={"Date": None})


if __name__ == "__main__":
    main()
