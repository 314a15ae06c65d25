"""What tests need: the tree, the programs that were built, and small networks and data."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from sparsevd import _native

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def models() -> Path:
    return ROOT / "models"


@pytest.fixture(scope="session")
def program():
    """Runs `compress` or `run-sparse`, as `cargo build --release` made them."""
    folder = Path(os.environ.get("SPARSEVD_BIN", ROOT / "target" / "release"))

    def run(name: str, *arguments: object, cwd: Path | None = None) -> str:
        done = subprocess.run([folder / name, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def linear(name: str, inputs: list[str]) -> dict:
    return {"name": name, "inputs": inputs, "op": "Linear", "weight": f"{name}.weight", "bias": f"{name}.bias"}


def weights(rng: np.random.Generator, **layers: tuple[int, int]) -> dict[str, np.ndarray]:
    """A matrix [out, in] and a bias for each layer."""
    tensors = {}
    for name, shape in layers.items():
        tensors[f"{name}.weight"] = rng.normal(scale=shape[1] ** -0.5, size=shape).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(scale=0.1, size=shape[0]).astype(np.float32)
    return tensors


@pytest.fixture
def mlp(rng):
    """A network of 8 inputs, 16 hidden units and 3 classes."""
    graph = {
        "name": "mlp",
        "inputs": [{"name": "x", "shape": [8]}],
        "nodes": [linear("fc1", ["x"]), {"name": "relu", "inputs": ["fc1"], "op": "Relu"}, linear("fc2", ["relu"])],
        "outputs": ["fc2"],
    }
    return _native.network(json.dumps(graph), weights(rng, fc1=(16, 8), fc2=(3, 16)))


@pytest.fixture
def two_by_two(rng):
    """A network of two inputs and two outputs."""
    graph = {
        "name": "two",
        "inputs": [{"name": "a", "shape": [4]}, {"name": "b.0", "shape": [4]}],
        "nodes": [
            {"name": "sum", "inputs": ["a", "b.0"], "op": "Add"},
            {"name": "product", "inputs": ["a", "b.0"], "op": "Mul"},
        ],
        "outputs": ["sum", "product"],
    }
    return _native.network(json.dumps(graph), {})


@pytest.fixture
def sequences(rng):
    """A linear layer and a layer normalisation over a sequence of any length."""
    graph = {
        "name": "sequences",
        "inputs": [{"name": "x", "shape": ["time", 6]}],
        "nodes": [linear("fc", ["x"]), {"name": "relu", "inputs": ["fc"], "op": "Relu"}],
        "outputs": ["relu"],
    }
    return _native.network(json.dumps(graph), weights(rng, fc=(5, 6)))


@pytest.fixture
def table(rng):
    """Samples of three classes that the first two of eight features tell apart."""
    y = rng.integers(0, 3, 600)
    x = rng.normal(size=(600, 8)).astype(np.float32)
    x[:, 0] += 4 * (y == 0)
    x[:, 1] += 4 * (y == 1)
    return x, y
