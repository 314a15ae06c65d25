"""Whole networks as ONNX: what `run-sparse` computes against onnxruntime, dense and sparse, at two batch sizes.

    python benches/peers/onnx_outputs.py [--bin target/release] [--batch 1,7] [--sparsity 0.95] [NAME ...]

For each preset: `compress init` writes it with seeded weights, the statistics of its normalisations become random ones, and
onnxruntime runs the file that `compress convert` writes, as it is and after `--method magnitude`. `torch-NAME` are networks
of torchvision as torch.onnx exports them, with random weights. The largest difference is a share of the largest output; outputs
that are all zero, or not finite, end the run.
Needs numpy, onnx and onnxruntime; torch, torchvision and onnxscript for the latter.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ["lenet-300-100", "lenet-5", "vgg-like", "resnet-20", "mobilenet-v1", "resnet-50"]
TORCH = ["torch-resnet18", "torch-mobilenet_v2", "torch-mobilenet_v3_small", "torch-squeezenet1_1", "torch-googlenet"]


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def randomise_statistics(path, random):
    """Gives normalisations numbers that would show."""
    model = onnx.load(path)
    tensors = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            continue
        for name, low, high in zip(node.input[1:], (0.7, -0.3, -0.3, 0.7), (1.3, 0.3, 0.3, 1.3)):
            shape = tensors[name].dims
            new = random.uniform(low, high, shape).astype(np.float32)
            tensors[name].CopyFrom(numpy_helper.from_array(new, name))
    onnx.save(model, path)


def torch_model(name, path):
    import torch
    import torchvision

    torch.manual_seed(1)
    options = {"aux_logits": False, "init_weights": True} if "googlenet" in name else {}
    model = getattr(torchvision.models, name.removeprefix("torch-"))(weights=None, **options).eval()
    x = torch.randn(2, 3, 224, 224)
    # A forward pass in training mode gives the normalisations statistics of their inputs.
    model.train()
    with torch.no_grad():
        model(x)
    model.eval()
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=(batch,), external_data=True, verbose=False)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=PRESETS)
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("--batch", default="1,7")
    parser.add_argument("--sparsity", default="0.95")
    args = parser.parse_args()
    compress, run_sparse = args.bin / "compress", args.bin / "run-sparse"
    random = np.random.default_rng(3)
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name in args.names:
            dense, sparse = folder / f"{name}.onnx", folder / f"{name}.sparse.onnx"
            if name.startswith("torch-"):
                torch_model(name, dense)
            else:
                run(compress, "init", name, "--seed", "1", "--out", dense)
                randomise_statistics(dense, random)
            pruned = folder / f"{name}.safetensors"
            run(compress, dense, "--method", "magnitude", "--sparsity", args.sparsity, "--out", pruned)
            run(compress, "convert", pruned, sparse)
            for kind, file in [("dense", dense), ("sparse", sparse)]:
                session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
                (x_info,) = session.get_inputs()
                for batch in map(int, args.batch.split(",")):
                    x = random.standard_normal((batch, *x_info.shape[1:])).astype(np.float32)
                    (y,) = session.run(None, {x_info.name: x})
                    if not np.isfinite(y).all() or not y.any():
                        raise SystemExit(f"{name} {kind}: onnxruntime's outputs are all zero or not finite, which compares nothing")
                    np.savez(folder / "expect.npz", x=x, y=y)
                    result = json.loads(run(run_sparse, "check", file, "--expect", folder / "expect.npz", "--json"))
                    difference = result["max_relative_error"]
                    worst = max(worst, difference)
                    print(f"{name:22} {kind:6} batch {batch}: {difference:.2e}", flush=True)
            for file in folder.iterdir():
                file.unlink()
    print(f"worst: {worst:.2e}")
    raise SystemExit(worst > 1e-4)


if __name__ == "__main__":
    main()
