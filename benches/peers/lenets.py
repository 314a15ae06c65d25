#!/usr/bin/env python3
"""Both LeNets with as many non-zeros per layer as the paper reports: onnxruntime (and DeepSparse, where it is installed) beside `run-sparse`.

    pip install numpy onnx onnxruntime safetensors
    taskset -c 1 python benches/peers/lenets.py target/release/run-sparse [DEEPSPARSE_PYTHON]

One thread each. onnxruntime runs dense: it has no use for zeros. What a call through Python costs is measured on a model of one Identity and taken off its
times. `run-sparse bench` runs right before and right after; of its medians the slower counts, of a peer the fastest round. DeepSparse 1.8 needs a Python
3.11 of its own (`pip install deepsparse==1.8.0 numpy==1.26.4`); it is given the same ONNX files, zeros included, and nothing is taken off its times.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

# Non-zeros per layer: Molchanov, Ashukha, Vetrov 2017, table 1.
NETWORKS = {
    "lenet-300-100": ([1, 784], [("fc1", [300, 784], 2587), ("fc2", [100, 300], 840), ("fc3", [10, 100], 380)]),
    "lenet-5": (
        [1, 1, 28, 28],
        [("conv1", [20, 1, 5, 5], 165), ("conv2", [50, 20, 5, 5], 500), ("fc1", [500, 800], 800), ("fc2", [10, 500], 250)],
    ),
}
DEEPSPARSE = """
import json, sys, time, numpy
from deepsparse import compile_model
found = {}
for batch in (1, 64):
    engine = compile_model(sys.argv[1], batch_size=batch, num_cores=1)
    x = [numpy.random.default_rng(1).random([batch] + json.loads(sys.argv[2])[1:], numpy.float32)]
    for _ in range(50): engine.run(x)
    rounds = []
    for _ in range(7):
        start = time.perf_counter()
        for _ in range(200): engine.run(x)
        rounds.append((time.perf_counter() - start) / 200 * 1e6)
    found[batch] = min(rounds)
print(json.dumps(found))
"""


def weights(layers):
    rng = numpy.random.default_rng(2017)
    tensors = {}
    for name, shape, nonzeros in layers:
        flat = numpy.zeros(numpy.prod(shape), numpy.float32)
        flat[rng.choice(flat.size, nonzeros, replace=False)] = rng.uniform(-1, 1, nonzeros)
        tensors[f"{name}.weight"] = flat.reshape(shape)
        tensors[f"{name}.bias"] = rng.uniform(-1, 1, shape[0]).astype(numpy.float32)
    return tensors


def network(path, shape, layers, tensors):
    """The ONNX model of a chain, with a symbolic batch; a LeNet-5 pools behind its convolutions."""
    nodes, value, count = [], "x", 0

    def node(op, inputs, **attributes):
        nonlocal value, count
        count += 1
        nodes.append(helper.make_node(op, [value, *inputs], [f"v{count}"], **attributes))
        value = f"v{count}"

    flat = len(shape) == 2
    for i, (name, size, _) in enumerate(layers):
        parameters = [f"{name}.weight", f"{name}.bias"]
        if len(size) == 4:
            node("Conv", parameters, kernel_shape=size[2:])
            node("Relu", [])
            node("MaxPool", [], kernel_shape=[2, 2], strides=[2, 2])
        else:
            if not flat:
                node("Flatten", [])
                flat = True
            node("Gemm", parameters, transB=1)
            if i + 1 < len(layers):
                node("Relu", [])
    save(path, nodes, shape, value, [10], tensors)


def save(path, nodes, shape, output, out_shape, tensors):
    info = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *dims])
    initializers = [numpy_helper.from_array(t, name) for name, t in tensors.items()]
    graph = helper.make_graph(nodes, "g", [info("x", shape[1:])], [info(output, out_shape)], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, path)


def onnxruntime_us(path, shape, batch):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    x = {"x": numpy.random.default_rng(1).random([batch, *shape[1:]], numpy.float32)}
    rounds = []
    for _ in range(25):
        times = 200 if batch == 1 else 20
        start = time.perf_counter()
        for _ in range(times):
            session.run(None, x)
        rounds.append((time.perf_counter() - start) / times * 1e6)
    return min(rounds)


def ours(program, name, path):
    command = [program, "bench", path, "--network", name, "--against", "dense", "-b", "1,64", "--json"]
    runs = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["runs"]
    return {(r["plan"], r["batch"]): r["p50_us"] for r in runs}


def main():
    program = sys.argv[1]
    folder = pathlib.Path(tempfile.mkdtemp())
    print("| network | batch | sparse us | dense plan us | onnxruntime us | call us | onnxruntime, call off, over sparse | over dense plan | DeepSparse us |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (shape, layers) in NETWORKS.items():
        tensors = weights(layers)
        file, model, identity = (str(folder / f"{name}{end}") for end in (".safetensors", ".onnx", ".identity.onnx"))
        save_file(tensors, file)
        network(model, shape, layers, tensors)
        save(identity, [helper.make_node("Identity", ["x"], ["y"])], shape, "y", shape[1:], {})
        before = ours(program, name, file)
        them = {b: (onnxruntime_us(model, shape, b), onnxruntime_us(identity, shape, b)) for b in (1, 64)}
        deepsparse = {}
        if len(sys.argv) > 2:
            command = [sys.argv[2], "-c", DEEPSPARSE, model, json.dumps(shape)]
            environment = {**os.environ, "NM_DISABLE_ANALYTICS": "1"}
            lines = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            deepsparse = {int(k): v for k, v in json.loads(lines.splitlines()[-1]).items()}
        after = ours(program, name, file)
        for batch, (us, call) in them.items():
            sparse, dense = (max(run[plan, batch] for run in (before, after)) for plan in ("sparse", "dense"))
            peer = f"{deepsparse[batch]:.1f}" if deepsparse else "not measured"
            net = us - call
            print(
                f"| {name} | {batch} | {sparse:.3f} | {dense:.2f} | {us:.1f} | {call:.1f} | {net / sparse:.1f} | {net / dense:.2f} | {peer} |",
                flush=True,
            )


main()
