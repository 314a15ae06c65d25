"""Sparse Variational Dropout in PyTorch with the layers of `sparsevd.torch`, then `compress --posterior`.

    python benches/peers/posterior.py [--epochs 20] [--bin target/release]

Trains LeNet-300-100 on the MNIST of the repository, exports its posterior, compresses it, and compares what `run-sparse`
computes from the result with what PyTorch computes from the posterior. Needs torch and the Python package (bindings/python); the loop is that of docs/posterior.md.
"""

import argparse
import gzip
import json
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

import sparsevd.torch as sparse

ROOT = Path(__file__).resolve().parents[2]


def idx(name):
    data = gzip.open(ROOT / "data/mnist" / f"{name}.gz").read()
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    args = parser.parse_args()
    torch.manual_seed(0)

    page = {}
    exec(re.search(r"```python\n(.*?)```", (ROOT / "docs/posterior.md").read_text(), re.S)[1], page)
    model = nn.Sequential()
    model.add_module("flatten", nn.Flatten())
    for i, (inputs, outputs) in enumerate([(784, 300), (300, 100), (100, 10)], 1):
        model.add_module(f"fc{i}", nn.Linear(inputs, outputs))
        if i < 3:
            model.add_module(f"relu{i}", nn.ReLU())

    x = torch.tensor(idx("train-images-idx3-ubyte") / 255.0, dtype=torch.float32)[:, None]
    y = torch.tensor(idx("train-labels-idx1-ubyte").astype(np.int64))

    class Batches:
        def __iter__(self):
            order = torch.randperm(len(x))
            return ((x[i], y[i]) for i in order.split(100))

    page["train"](model, Batches(), len(x), args.epochs)
    model.eval()
    test = torch.tensor(idx("t10k-images-idx3-ubyte") / 255.0, dtype=torch.float32)[:, None]
    with torch.no_grad():
        scores = model(test).numpy()
    wrong = (scores.argmax(1) != idx("t10k-labels-idx1-ubyte")).mean()
    print(f"PyTorch: test error {100 * wrong:.2f} %")

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        sparse.export_posterior(model, folder / "posterior.safetensors")
        np.savez(folder / "expect.npz", x=test[:64].numpy(), y=scores[:64])
        network, result = folder / "network.safetensors", folder / "sparse.safetensors"
        compress = [args.bin / "compress"]
        subprocess.run([*compress, "init", "lenet-300-100", "--out", network], check=True)
        command = [*compress, network, "--posterior", folder / "posterior.safetensors", "--out", result]
        subprocess.run([*command, "--data", ROOT / "data/mnist", "--max-accuracy-drop", "100"], check=True)
        run = [args.bin / "run-sparse"]
        subprocess.run([*run, "check", result, "--expect", folder / "expect.npz"], check=True)
        report = subprocess.run(
            [*run, "eval", result, "--data", ROOT / "data/mnist", "--json"], check=True, capture_output=True
        )
        error = json.loads(report.stdout)["error_percent"]
        assert abs(error - 100 * wrong) < 0.02, (error, 100 * wrong)


if __name__ == "__main__":
    main()
