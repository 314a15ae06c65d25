#!/usr/bin/env python3
"""Magika's own ONNX file: its outputs beside onnxruntime's and those in float64, and its latency beside onnxruntime's f32 and int8.

    pip install magika onnx onnxruntime numpy
    taskset -c 1 python benches/peers/file_types.py RELEASE FILE.. [--sparsities 0.9,0.95]
    taskset -c 1 python benches/peers/file_types.py RELEASE --data file-types.npz --compressed MODEL [MODEL..]

RELEASE is the folder of `compress` and `run-sparse`; each FILE is an input of the network, as Magika reads files: the first and
the last 1,024 bytes without white space around them, 256 where there are fewer. `--data` takes the test inputs of
data/file-types/make.py in their place. The network is read from the package `magika`. `--compressed` names results of `compress`;
without them nothing is trained: at a sparsity, the smallest weights are zero, which costs accuracy, so it is speed alone that
such a line shows. Agreement is with the type of the highest score in float64, of all inputs and of those where that score is
above 0.5 and 0.95; the divergence is that of Kullback and Leibler from these scores. Latencies are medians of one thread at batch 1;
sides take turns, a round each of half a second. onnxruntime's int8 is its dynamic quantisation of matrix products and its static
one (QDQ) of convolutions, calibrated on the first 128 inputs; the faster one counts.
"""
import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import magika
import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

MODEL = next(pathlib.Path(magika.__file__).parent.glob("models/*/model.onnx"))
BYTES, PAD = 1024, 256
ROUNDS, ROUND_SECONDS = 7, 0.5


def ids_of(path: pathlib.Path) -> list[int]:
    data = path.read_bytes()
    head, tail = data[: 4 * BYTES].lstrip()[:BYTES], data[-4 * BYTES :].rstrip()[-BYTES:]
    pad = [[PAD] * (BYTES - len(part)) for part in (head, tail)]
    return [*head, *pad[0], *pad[1], *tail]


def exact(ids: np.ndarray) -> np.ndarray:
    """The scores in float64, by the network's own numbers."""
    tensors = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(MODEL).graph.initializer if t.data_type == 1}

    def tensor(ending: str) -> np.ndarray:
        (only,) = [v for name, v in tensors.items() if name.endswith(ending)]
        return only

    def gelu(v):
        return v / 2 * (1 + np.tanh(0.7978846 * (v + 0.044715 * v**3)))

    def normal(v, axis, name):
        mean, variance = v.mean(axis, keepdims=True), v.var(axis, keepdims=True)
        return (v - mean) / np.sqrt(variance + 1e-6) * tensor(f"{name}/Reshape_2:0") + tensor(f"{name}/Reshape_3:0")

    x = gelu(tensor("get_logits_/Const:0")[ids] + tensor("Dense_0/Reshape:0")).reshape(len(ids), 512, 256)
    x = normal(x, 1, "LayerNorm_0")
    filters = tensor("Conv_0/transpose_3:0")[..., 0]
    width = x.shape[1] - filters.shape[2] + 1
    y = sum(x[:, k : k + width] @ filters[..., k].T for k in range(filters.shape[2]))
    y = gelu(y + tensor("const_fold_opt__209")[..., 0]).max(1)
    scores = normal(y, 1, "LayerNorm_1") @ tensor("Const_24:0") + tensor("Dense_1/Reshape:0")
    shares = np.exp(scores - scores.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Samples(CalibrationDataReader):
    def __init__(self, ids: np.ndarray):
        self.samples = iter({"bytes": row[None]} for row in ids)

    def get_next(self):
        return next(self.samples, None)


def quantised(folder: pathlib.Path, ids: np.ndarray) -> dict[str, pathlib.Path]:
    files = {name: folder / f"{name}.onnx" for name in ("dynamic", "static")}
    quantize_dynamic(MODEL, files["dynamic"], weight_type=QuantType.QInt8)
    quantize_static(MODEL, files["static"], Samples(ids), per_channel=True, op_types_to_quantize=["Conv", "MatMul"])
    return files


def timed(peer: onnxruntime.InferenceSession, ids: np.ndarray) -> float:
    times, end = [], time.perf_counter() + ROUND_SECONDS
    while time.perf_counter() < end or len(times) < 5:
        row = ids[len(times) % len(ids)][None]
        start = time.perf_counter()
        peer.run(None, {"bytes": row})
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def ours(release: pathlib.Path, model: pathlib.Path, ids: pathlib.Path) -> float:
    command = [release / "run-sparse", "bench", model, "--input", ids, "--batch", "1", "--threads", "1"]
    command += ["--seconds", str(ROUND_SECONDS), "--json"]
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    runs = report["runs"]
    return next(m["p50_us"] for m in runs if m["plan"] == "sparse") / 1e3


def outputs(release: pathlib.Path, model: pathlib.Path, ids: pathlib.Path, folder: pathlib.Path) -> np.ndarray:
    command = [release / "run-sparse", model, "--input", ids, "--output", folder / "y.npy", "--force", "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return np.load(folder / "y.npy")


def agreement(name: str, got: np.ndarray, want: np.ndarray) -> None:
    same, top = got.argmax(1) == want.argmax(1), want.max(1)
    shares = [f"{100 * same[top > least].mean():.2f} % of {(top > least).sum()} above {least}" for least in (0, 0.5, 0.95)]
    divergence = (want * np.log(np.maximum(want, 1e-9) / np.maximum(got, 1e-9))).sum(1).mean()
    print(f"{name}: the same type for {', '.join(shares)}; divergence {divergence:.3f} nats")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("release", type=pathlib.Path)
    parser.add_argument("files", type=pathlib.Path, nargs="*")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--array", default="x_test", help="the inputs of --data")
    parser.add_argument("--most", type=int, help="take the first N of them")
    parser.add_argument("--compressed", type=pathlib.Path, nargs="*", default=[])
    parser.add_argument("--sparsities", default="0.9,0.95", type=lambda s: [float(v) for v in s.split(",")])
    args = parser.parse_args()
    if args.data:
        ids = np.load(args.data)[args.array][: args.most].astype(np.int32)
    else:
        ids = np.array([ids_of(path) for path in args.files], np.int32)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        np.save(folder / "ids.npy", ids)
        peers = {"onnxruntime f32": session(MODEL)}
        models = {"sparsevd dense": MODEL} | {f"sparsevd {path.name}": path for path in args.compressed}
        want = np.concatenate([exact(part) for part in np.array_split(ids, -(-len(ids) // 64))])
        got = {name: np.concatenate([peer.run(None, {"bytes": row[None]})[0] for row in ids]) for name, peer in peers.items()}
        got |= {name: outputs(args.release, path, folder / "ids.npy", folder) for name, path in models.items()}
        for name in ("sparsevd dense", "onnxruntime f32"):
            print(f"{name}: largest difference from float64 {np.abs(got[name] - want).max():.1e}, of {len(ids)} files")
        for name, path in quantised(folder, ids[:128]).items():
            peers[f"onnxruntime int8 {name}"] = peer = session(path)
            got[f"onnxruntime int8 {name}"] = np.concatenate([peer.run(None, {"bytes": row[None]})[0] for row in ids])
        for name, y in got.items():
            agreement(name, y, want)
        for sparsity in [] if args.compressed else args.sparsities:
            models[f"sparsevd {100 * sparsity:g} % zeros"] = path = folder / f"{sparsity}.safetensors"
            command = [args.release / "compress", MODEL, "--method", "magnitude", "--sparsity", str(sparsity), "--scope", "layer"]
            subprocess.run([*command, "--out", path, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        np.save(folder / "timed.npy", ids[:64])
        times = {name: [] for name in [*peers, *models]}
        for _ in range(ROUNDS):
            for name, peer in peers.items():
                times[name].append(timed(peer, ids[:64]))
            for name, model in models.items():
                times[name].append(ours(args.release, model, folder / "timed.npy"))
    base = np.median(times["onnxruntime f32"])
    for name, of_rounds in times.items():
        median = np.median(of_rounds)
        print(f"{name:28} {median:7.3f} ms  {base / median:5.2f} of onnxruntime f32")


if __name__ == "__main__":
    main()
