#!/usr/bin/env python3
"""A sentence encoder, dense and sparse, beside onnxruntime in f32 and with dynamic int8: latencies on one thread.

    pip install torch safetensors numpy onnx onnxscript onnxruntime
    taskset -c 1 python benches/peers/embeddings.py RUN_SPARSE DENSE [SPARSE ..] [--onnx FILE] [--batches 1,32] [--lengths 12,32,128]

DENSE is the folder of the encoder, such as all-MiniLM-L6-v2, which PyTorch exports as ONNX (`encoder.py` has the forward pass) to FILE; SPARSE are folders that
`compress` made of it. onnxruntime's int8 is `quantize_dynamic` with signed weights per channel. Milliseconds, without the tokenizer, are medians of rounds in
which all take turns; in brackets how many times faster than each of the two the encoder is. Embeddings of the exported file, by onnxruntime and by `run-sparse`, are compared with PyTorch's first.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnxruntime as ort
import torch
from encoder import Bert
from onnxruntime.quantization import QuantType, quantize_dynamic


class Exported(torch.nn.Module):
    """The forward pass as a module."""

    def __init__(self, bert: Bert):
        super().__init__()
        self.bert = bert

    def forward(self, input_ids):
        return self.bert.embed.__wrapped__(self.bert, input_ids)


def export(folder: pathlib.Path, path: pathlib.Path):
    bert = Bert(folder)
    ids = torch.randint(1000, 20_000, (2, 7))
    shapes = {"input_ids": {0: torch.export.Dim("batch", max=1024), 1: torch.export.Dim("length", max=512)}}
    with torch.no_grad():
        torch.onnx.export(
            Exported(bert).eval(), (ids,), path, dynamo=True, dynamic_shapes=shapes, input_names=["input_ids"], output_names=["sentence_embedding"],
            external_data=False, verbose=False,
        )  # fmt: skip
    return bert


class Onnxruntime:
    def __init__(self, path: pathlib.Path):
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, ids: np.ndarray) -> np.ndarray:
        return self.session.run(None, {"input_ids": ids})[0]

    def milliseconds(self, batch: int, length: int, seconds: float) -> float:
        ids = np.random.default_rng(1).integers(1000, 20_000, (batch, length))
        self.run(ids)
        times, start = [], time.perf_counter()
        while time.perf_counter() < start + seconds or len(times) < 3:
            before = time.perf_counter()
            self.run(ids)
            times.append(1e3 * (time.perf_counter() - before))
        return statistics.median(times)


def ours_of_onnx(run_sparse: str, path: pathlib.Path, ids: np.ndarray) -> np.ndarray:
    with tempfile.TemporaryDirectory() as place:
        x, y = pathlib.Path(place, "x.npy"), pathlib.Path(place, "y.npy")
        np.save(x, ids)
        shape = f"input_ids={','.join(map(str, ids.shape))}"
        subprocess.run([run_sparse, path, "--shape", shape, "--input", x, "--output", y, "--quiet"], check=True)
        return np.load(y)


class Ours:
    def __init__(self, run_sparse: str, folder: pathlib.Path):
        self.command = [run_sparse, "bench", folder, "--threads", "1", "--json"]

    def milliseconds(self, batch: int, length: int, seconds: float) -> float:
        command = [*self.command, "--batch", str(batch), "--length", str(length), "--seconds", str(seconds)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return json.loads(output)["runs"][0]["p50_us"] / 1e3


def main():
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_sparse")
    parser.add_argument("dense", type=pathlib.Path)
    parser.add_argument("sparse", type=pathlib.Path, nargs="*")
    parser.add_argument("--onnx", type=pathlib.Path)
    parser.add_argument("--batches", type=numbers, default=[1, 32])
    parser.add_argument("--lengths", type=numbers, default=[12, 32, 128])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        f32, int8 = args.onnx or pathlib.Path(place, "encoder.onnx"), pathlib.Path(place, "int8.onnx")
        bert = export(args.dense, f32)
        quantize_dynamic(f32, int8, weight_type=QuantType.QInt8, per_channel=True)
        peers = [Onnxruntime(f32), Onnxruntime(int8)]
        for shape in [(1, 1), (3, 17), (2, 128), (4, 256)]:
            ids = np.random.default_rng(2).integers(1000, 20_000, shape)
            want = bert.embed(torch.from_numpy(ids)).numpy()
            sides = [peers[0].run(ids), ours_of_onnx(args.run_sparse, f32, ids)]
            theirs, mine = (np.abs(side - want).max() for side in sides)
            print(f"{shape} ids, largest difference from PyTorch: onnxruntime {theirs:.1e}, run-sparse on the exported file {mine:.1e}")
    ours = {folder.name: Ours(args.run_sparse, folder) for folder in [args.dense, *args.sparse]}
    width = max(map(len, ours))
    print(f"{'batch':>5} {'tokens':>6} {'ort f32':>8} {'ort int8':>8}  " + "  ".join(f"{name:>{max(width, 20)}}" for name in ours))
    for batch in args.batches:
        for length in args.lengths:
            contestants = [*peers, *ours.values()]
            rounds = [[c.milliseconds(batch, length, args.seconds) for c in contestants] for _ in range(args.rounds)]
            f, i, *mine = (statistics.median(side) for side in zip(*rounds))
            cells = "  ".join(f"{f'{m:.2f} ({f / m:.2f}, {i / m:.2f})':>{max(width, 20)}}" for m in mine)
            print(f"{batch:5} {length:6} {f:8.2f} {i:8.2f}  {cells}", flush=True)


if __name__ == "__main__":
    main()
