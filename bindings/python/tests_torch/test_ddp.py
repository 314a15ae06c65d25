"""Two processes train one network, and `compress --posterior` takes it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import sparsevd

ROOT = Path(__file__).resolve().parents[3]


def test_two_gloo_processes_train_a_posterior(tmp_path):
    example = ROOT / "bindings" / "python" / "examples" / "train_ddp.py"
    settings = ["--data", ROOT / "data" / "mnist", "--out", tmp_path / "net", "--samples", 6000, "--epochs", 4, "--batch", 60]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, example, *settings]
    done = subprocess.run([str(a) for a in launch], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    about = json.loads(done.stdout.splitlines()[-1])
    assert about["processes"] == 2 and about["agree"]
    assert about["density"] < 0.9 and about["test_error"] < 10
    folder = Path(os.environ["SPARSEVD_BIN"])
    files = [tmp_path / "net.safetensors", "--posterior", tmp_path / "net.posterior.safetensors"]
    command = [folder / "compress", *files, "--out", tmp_path / "net.sparse.safetensors", "--no-report", "--json"]
    done = subprocess.run([str(a) for a in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    # Weights of depthwise convolutions apart, of which there are none.
    assert abs(report["nonzeros"] / report["weights"] - about["density"]) < 0.05
    assert sparsevd.load(tmp_path / "net.spvd").nonzeros > 0
