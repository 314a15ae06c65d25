#!/usr/bin/env python3
"""Sparse times dense: MKL, torch CSR, scipy and sprs beside the kernels of this repository, as one table.

    pip install numpy scipy torch mkl
    RUSTFLAGS='-C target-cpu=native' cargo bench --bench limits --no-run   # prints where the program is; sprs is slow without
    taskset -c 1 python benches/peers/spmm.py target/release/deps/limits-HASH

One thread each. `limits` (ours and sprs, taking turns) runs for each layer right before and right after the Python libraries. Of our two medians the
slower counts, of each peer the fastest round. Patterns are random in both, of the same density. MKL is called
through handles that are made once and optimised for many calls.
"""
import ctypes
import json
import pathlib
import subprocess
import sys
import time

import numpy
import scipy.sparse
import torch

DENSITIES = [0.2, 0.1, 0.05, 0.02]
BATCHES = [16, 64, 256]
LAYERS = [(512, 512), (2048, 512), (1024, 1024)]


def best(run, seconds=0.05, rounds=5):
    """Microseconds of the fastest round."""
    run()
    start = time.perf_counter()
    run()
    times = max(1, int(seconds / rounds / max(time.perf_counter() - start, 1e-7)))
    fastest = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(times):
            run()
        fastest = min(fastest, (time.perf_counter() - start) / times)
    return fastest * 1e6


class Mkl:
    """A CSR handle with a hint and a dense right-hand side."""

    class Description(ctypes.Structure):
        _fields_ = [("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int)]

    def __init__(self, matrix, columns):
        library = next(pathlib.Path(sys.prefix).glob("lib/libmkl_rt.so*"))
        self.mkl = ctypes.CDLL(str(library))
        self.mkl.MKL_Set_Num_Threads(1)
        self.matrix, self.columns = matrix, columns
        self.starts = matrix.indptr.astype(numpy.int32)
        self.indices = matrix.indices.astype(numpy.int32)
        self.handle = ctypes.c_void_p()
        pointer = lambda array: array.ctypes.data_as(ctypes.c_void_p)
        rows, cols = matrix.shape
        status = self.mkl.mkl_sparse_s_create_csr(
            ctypes.byref(self.handle), 0, rows, cols, pointer(self.starts),
            ctypes.c_void_p(self.starts.ctypes.data + 4), pointer(self.indices), pointer(matrix.data),
        )
        assert status == 0, status
        self.description = self.Description(20, 0, 0)
        # Row-major, non-transposed, many calls.
        self.mkl.mkl_sparse_set_mm_hint(self.handle, 10, self.description, 101, columns, 1000)
        assert self.mkl.mkl_sparse_optimize(self.handle) == 0
        self.x = numpy.random.default_rng(1).random((cols, columns), numpy.float32)
        self.y = numpy.zeros((rows, columns), numpy.float32)
        self.arguments = (
            10, ctypes.c_float(1.0), self.handle, self.description, 101, pointer(self.x),
            columns, columns, ctypes.c_float(0.0), pointer(self.y), columns,
        )
        self.run()
        assert numpy.allclose(self.y, matrix @ self.x, atol=1e-3)

    def run(self):
        assert self.mkl.mkl_sparse_s_mm(*self.arguments) == 0


def peers(rows, cols, density, n):
    matrix = scipy.sparse.random(rows, cols, density, "csr", numpy.float32, numpy.random.default_rng(7))
    x = numpy.random.default_rng(1).random((cols, n), numpy.float32)
    weight = torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr.astype(numpy.int32)), torch.from_numpy(matrix.indices.astype(numpy.int32)),
        torch.from_numpy(matrix.data), matrix.shape,
    )
    other = torch.from_numpy(x)
    scale = matrix.nnz / (rows * cols * density)
    with torch.inference_mode():
        return {
            "MKL": best(Mkl(matrix, n).run) / scale,
            "torch CSR": best(lambda: weight @ other) / scale,
            "scipy": best(lambda: matrix @ x) / scale,
        }


def ours(program, rows, cols):
    """Microseconds of our kernel and of sprs, by density and batch."""
    lines = subprocess.run([program, "spmm", f"{rows}x{cols}", "json"], check=True, capture_output=True, text=True).stdout
    found = {}
    for line in map(json.loads, lines.splitlines()):
        _, density, n, _ = line["line"].split()
        found[float(density[2:]), int(n[2:])] = line["us"]
    return found


def main():
    program = sys.argv[1]
    torch.set_num_threads(1)
    print("| W | N | density | ours us | MKL | torch CSR | scipy | sprs | best peer over ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for rows, cols in LAYERS:
        before = ours(program, rows, cols)
        them = {(d, n): peers(rows, cols, d, n) for n in BATCHES for d in DENSITIES}
        after = ours(program, rows, cols)
        for (density, n), times in them.items():
            runs = [before[density, n], after[density, n]]
            # The slower of our two runs.
            mine = max(r["sparse"] for r in runs)
            times["sprs"] = min(r["sprs"] for r in runs)
            ratio = min(times.values()) / mine
            ratios.append(ratio)
            cells = " | ".join(f"{times[k]:.1f}" for k in ["MKL", "torch CSR", "scipy", "sprs"])
            print(f"| {rows}x{cols} | {n} | {density} | {mine:.2f} | {cells} | {ratio:.2f} |", flush=True)
    print(f"\nleast {min(ratios):.2f}, median {sorted(ratios)[len(ratios) // 2]:.2f}")


main()
