"""Codes the integers of a network by ISO NNC (ISO/IEC 15938-17) and compares with its packed file.

    compress convert models/lenet-5/record.spvd lenet-5.i8.safetensors --values i8 --profile interop
    python benches/peers/nnc.py lenet-5.i8.safetensors models/lenet-5/record.spvd

NNC gets every advantage that we know of: names of one letter, tensors of 32-bit integers, which it codes as they are, and the
best of all its settings that matter for them (row skipping, optimised context parameters, unary length, scan order) and
of two layouts (filters as they are, or as matrices). Its steps, graph and first shapes are not counted; the packed file has them.
Needs nncodec (2.1.3 here), numpy and safetensors.
"""

import itertools
import json
import math
import os
import sys

import numpy as np
from nncodec import nnc
from safetensors import safe_open


def integers(path):
    """Every tensor of a network on grids as its integers, zeros included."""
    with safe_open(path, "np") as file:
        meta = file.metadata()
        stored = {name: file.get_tensor(name) for name in file.keys()}
    steps = json.loads(meta.get("sparsevd.steps", "{}"))
    shapes = json.loads(meta.get("sparsevd.sparse", "{}"))
    tensors = {}
    for name, entry in shapes.items():
        if name == "v":
            continue
        height, width = entry["shape"][0], math.prod(entry["shape"][1:])
        values = stored.pop(f"{name}.values")
        if entry["layout"] != "csr":
            sys.exit(f"{path}: expected the layout csr for {name}, as `--profile interop` writes it, got {entry['layout']}")
        columns, starts = (stored.pop(f"{name}.{part}") for part in ("col_indices", "crow_indices"))
        rows = np.repeat(np.arange(height), np.diff(starts.astype("i8")))
        if values.dtype == np.int8:
            stored.pop(f"{name}.scale")
        else:
            values = np.rint(values.astype("f8") / steps[name])
        dense = np.zeros((height, width), np.int32)
        dense[rows, columns] = values
        tensors[name] = dense.reshape(entry["shape"])
    for name, values in stored.items():
        tensors[name] = np.rint(values.astype("f8") / steps[name]).astype(np.int32)
    # A layer's weight before its bias, in the order of the layers.
    return dict(sorted(tensors.items(), key=lambda t: (t[0].split(".")[0], t[0].endswith("bias"))))


def best(tensors):
    """The smallest bitstream of all settings, each of them decoded and compared, and its settings."""
    found = []
    for matrices, row_skipping, param_opt, unary, scan_order in itertools.product(
        (False, True), (False, True), (False, True), (0, 1, 3, 6, 10, 15), (0, 1, 2, 3, 4)
    ):
        short = {chr(97 + i): t for i, t in enumerate(tensors.values())}
        if matrices:
            short = {n: t.reshape(t.shape[0], -1) if t.ndim > 2 else t for n, t in short.items()}
        settings = dict(row_skipping=row_skipping, param_opt=param_opt, cabac_unary_length_minus1=unary, scan_order=scan_order)
        stream = nnc.compress(
            {n: t.copy() for n, t in short.items()}, use_dq=False, bitstream_path=None, return_bitstream=True, verbose=False, **settings
        )
        back = nnc.decompress(bytearray(stream))
        assert all(np.array_equal(back[n], t) for n, t in short.items()), settings
        found.append((len(stream), {"matrices": matrices, **settings}))
    return min(found, key=lambda f: f[0])


def main():
    network, packed = sys.argv[1:]
    size, settings = best(integers(network))
    ours = os.path.getsize(packed)
    print(f"ISO NNC {size} B at its best ({settings}); packed {ours} B: {100 * (1 - ours / size):.1f} % smaller")


if __name__ == "__main__":
    main()
