#!/usr/bin/env python3
"""A sentence encoder of the kind `bert`: embeddings of `run-sparse embed` beside PyTorch's, and latencies on one thread.

    pip install torch safetensors numpy tokenizers
    taskset -c 1 python benches/peers/encoder.py RUN_SPARSE FOLDER [--rounds 5]

FOLDER is that of the encoder, such as all-MiniLM-L6-v2. The forward pass is written here from Devlin et al. (2019) and `config.json`; it is
run in float32, as PyTorch would be, and in float64, from which both are measured. Latencies are those of a batch of one text of
12, 32 and 128 tokens: medians of rounds in which the two sides take turns, ours by `run-sparse bench`, without the tokenizer.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import numpy as np
import torch
from safetensors.torch import load_file

LENGTHS = [1, 2, 3, 5, 8, 13, 15, 16, 17, 30, 31, 32, 33, 50, 62, 63, 64, 65, 100, 127, 128, 129, 200, 254]
TIMED = [12, 32, 128]
ROUND_SECONDS = 1.0


class Bert:
    """The mean of the last layer's vectors, or the first of them, as the folder pools; at length 1 where it normalises."""

    def __init__(self, folder: pathlib.Path, dtype: torch.dtype = torch.float32):
        self.config = json.loads((folder / "config.json").read_text())
        self.tensors = {k: v.to(dtype) for k, v in load_file(folder / "model.safetensors").items() if v.is_floating_point()}
        modules = json.loads((folder / "modules.json").read_text())
        self.normalises = any(m["type"].endswith("Normalize") for m in modules)
        pooling = json.loads((folder / modules[1]["path"] / "config.json").read_text())
        self.takes_first = pooling.get("pooling_mode_cls_token", False)

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"])

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, weight.shape, weight, bias, self.config["layer_norm_eps"])

    @torch.inference_mode()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Of ids `[batch, length]`."""
        length, heads = ids.shape[1], self.config["num_attention_heads"]
        tables = [self.tensors[f"embeddings.{t}_embeddings.weight"] for t in ("word", "token_type", "position")]
        words = torch.nn.functional.embedding(ids, tables[0])
        x = self.norm("embeddings.LayerNorm", words + tables[1][0] + tables[2][:length])
        for i in range(self.config["num_hidden_layers"]):
            block = f"encoder.layer.{i}"
            q, k, v = (
                self.linear(f"{block}.attention.self.{part}", x).unflatten(2, (heads, -1)).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            y = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = self.norm(f"{block}.attention.output.LayerNorm", self.linear(f"{block}.attention.output.dense", y) + x)
            y = torch.nn.functional.gelu(self.linear(f"{block}.intermediate.dense", x))
            x = self.norm(f"{block}.output.LayerNorm", self.linear(f"{block}.output.dense", y) + x)
        pooled = x[:, 0] if self.takes_first else x.mean(1)
        return torch.nn.functional.normalize(pooled, dim=1) if self.normalises else pooled


def sentences(tokenizer) -> list[str]:
    """Texts of 3 to 256 tokens: words of the vocabulary, punctuation, accents and Chinese among them."""
    draw = random.Random(1)
    words = [w for w in tokenizer.get_vocab() if w.isalpha() and w.isascii()]
    words.sort()
    words += ["Café", "naïve,", "(2017)", "isn't", "北京", "ΑΒΓ", "x=1.5", "unbelievableness"]
    lines = []
    for length in LENGTHS:
        line = []
        while len(tokenizer.encode(" ".join(line)).ids) < length + 2:
            line.append(draw.choice(words))
        lines.append(" ".join(line))
    draw.shuffle(lines)
    return lines


def ours(run_sparse: str, folder: pathlib.Path, lines: list[str]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as place:
        text, out = pathlib.Path(place, "lines.txt"), pathlib.Path(place, "y.npy")
        text.write_text("".join(f"{line}\n" for line in lines))
        subprocess.run([run_sparse, "embed", folder, "--text", text, "--out", out, "--threads", "1"], check=True)
        return np.load(out)


def our_latency(run_sparse: str, folder: pathlib.Path, length: int) -> float:
    command = [run_sparse, "bench", folder, "--batch", "1", "--length", str(length), "--seconds", str(ROUND_SECONDS), "--json"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output)["runs"][0]["p50_us"] / 1e3


def torch_latency(model: Bert, length: int) -> float:
    ids = torch.randint(1000, 20_000, (1, length))
    times, start = [], time.perf_counter()
    while time.perf_counter() < start + ROUND_SECONDS:
        before = time.perf_counter()
        model.embed(ids)
        times.append(1e3 * (time.perf_counter() - before))
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_sparse")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    tokenizer = Tokenizer.from_file(str(args.folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    lines = sentences(tokenizer)
    single, double = Bert(args.folder), Bert(args.folder, torch.float64)
    ids = [torch.tensor([tokenizer.encode(line).ids]) for line in lines]
    exact = np.concatenate([double.embed(i).numpy() for i in ids])
    theirs = np.concatenate([single.embed(i).numpy() for i in ids])
    y = ours(args.run_sparse, args.folder, lines)
    lengths = sorted(i.shape[1] for i in ids)
    print(f"{len(lines)} texts of {lengths[0]} to {lengths[-1]} tokens, largest difference of an element:")
    print(f"  ours from PyTorch's float32 {np.abs(y - theirs).max():.1e}")
    print(f"  ours from float64           {np.abs(y - exact).max():.1e}")
    print(f"  PyTorch's float32 from it   {np.abs(theirs - exact).max():.1e}")
    print("latency in ms at batch 1, one thread: tokens, ours, PyTorch's, how many times as fast")
    for length in TIMED:
        rounds = [(our_latency(args.run_sparse, args.folder, length), torch_latency(single, length)) for _ in range(args.rounds)]
        a, b = (statistics.median(side) for side in zip(*rounds))
        print(f"  {length:3}  {a:7.2f}  {b:7.2f}  {b / a:.2f}", flush=True)


if __name__ == "__main__":
    main()
