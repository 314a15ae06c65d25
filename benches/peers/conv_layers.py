#!/usr/bin/env python3
"""onnxruntime's convolutions and LeNet-5, dense, on one thread, beside `cargo bench --bench limits -- conv`.

    pip install onnxruntime onnx numpy
    taskset -c 1 python benches/peers/conv_layers.py [OUT.json]

Times are medians in microseconds with the cost of a call taken off, which is measured on an identity of the same input.
`layer` is a model of that one convolution with bias and ReLU; `in a chain` is what one more such layer costs behind
others, where onnxruntime keeps its own layout (for layers whose input and output agree).
"""
import json
import platform
import sys
import time

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

# name, out, in per group, kernel, side, stride, padding, groups
LAYERS = [
    ("lenet-5-conv2", 50, 20, 5, 12, 1, 0, 1),
    ("resnet-56", 64, 64, 3, 56, 1, 1, 1),
    ("resnet-28", 128, 128, 3, 28, 1, 1, 1),
    ("resnet-14", 256, 256, 3, 14, 1, 1, 1),
    ("resnet-7", 512, 512, 3, 7, 1, 1, 1),
    ("resnet-56-s2", 128, 64, 3, 56, 2, 1, 1),
    ("resnet-28-s2", 256, 128, 3, 28, 2, 1, 1),
    ("resnet-56-1x1", 256, 64, 1, 56, 1, 0, 1),
    ("resnet-14-1x1", 1024, 256, 1, 14, 1, 0, 1),
    ("resnet-stem", 64, 3, 7, 224, 2, 3, 1),
    ("mobilenet-dw-112", 32, 1, 3, 112, 1, 1, 32),
    ("mobilenet-dw-112-s2", 64, 1, 3, 112, 2, 1, 64),
    ("mobilenet-dw-28", 256, 1, 3, 28, 1, 1, 256),
    ("mobilenet-dw-14", 512, 1, 3, 14, 1, 1, 512),
    ("mobilenet-dw-14-s2", 512, 1, 3, 14, 2, 1, 512),
]
RNG = numpy.random.default_rng(0)


def weight(*shape):
    scale = (2 / max(1, numpy.prod(shape[1:]))) ** 0.5
    return (RNG.standard_normal(shape) * scale).astype(numpy.float32)


class Model:
    """A chain of nodes from `x0`."""

    def __init__(self, shape):
        self.shape, self.nodes, self.tensors, self.last = shape, [], [], "x0"

    def add(self, op, *tensors, **attributes):
        names = []
        for tensor in tensors:
            names.append(f"t{len(self.tensors)}")
            self.tensors.append(numpy_helper.from_array(tensor, names[-1]))
        out = f"x{len(self.nodes) + 1}"
        self.nodes.append(helper.make_node(op, [self.last, *names], [out], **attributes))
        self.last = out
        return self

    def conv(self, out, inn, kernel, stride, pad, groups):
        self.add("Conv", weight(out, inn, kernel, kernel), weight(out), kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[pad] * 4, group=groups)
        return self.add("Relu")

    def time(self):
        """Median microseconds of a run, and those of a call that does nothing with the same input."""
        return run(self), run(Model(self.shape).add("Identity"))


def run(model):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        model.nodes, "g", [value("x0", TensorProto.FLOAT, model.shape)], [value(model.last, TensorProto.FLOAT, None)], model.tensors
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    x = RNG.standard_normal(model.shape).astype(numpy.float32)
    # Bound once, so that a run neither copies its input nor allocates its output.
    binding = session.io_binding()
    binding.bind_ortvalue_input("x0", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    shape = session.run(None, {"x0": x})[0].shape
    binding.bind_ortvalue_output(model.last, onnxruntime.OrtValue.ortvalue_from_numpy(numpy.zeros(shape, numpy.float32)))
    go = lambda: session.run_with_iobinding(binding)
    samples, end = [], time.perf_counter() + 0.4
    for _ in range(5):
        go()
    while len(samples) < 31 or time.perf_counter() < end:
        start = time.perf_counter()
        go()
        samples.append(time.perf_counter() - start)
    return float(numpy.median(samples)) * 1e6


def lenet_5(batch):
    m = Model([batch, 1, 28, 28])
    pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    m.conv(20, 1, 5, 1, 0, 1).add("MaxPool", **pool).conv(50, 20, 5, 1, 0, 1).add("MaxPool", **pool)
    m.add("Flatten").add("Gemm", weight(500, 800), weight(500), transB=1).add("Relu")
    return m.add("Gemm", weight(10, 500), weight(10), transB=1)


def main():
    rows = []
    for name, out, inn, kernel, side, stride, pad, groups in LAYERS:
        shape = [1, inn * groups, side, side]
        layer, call = Model(shape).conv(out, inn, kernel, stride, pad, groups).time()
        row = {"name": name, "batch": 1, "us": layer - call, "call_us": call}
        if out == inn * groups and stride == 1 and 2 * pad == kernel - 1:
            chains = [Model(shape), Model(shape)]
            for model, layers in zip(chains, (2, 6)):
                for _ in range(layers):
                    model.conv(out, inn, kernel, stride, pad, groups)
            row["chained_us"] = (run(chains[1]) - run(chains[0])) / 4
        rows.append(row)
    for batch in (1, 64):
        whole, call = lenet_5(batch).time()
        rows.append({"name": "lenet-5", "batch": batch, "us": whole - call, "call_us": call})
    print(f"onnxruntime {onnxruntime.__version__}, one thread, {platform.processor() or platform.machine()}")
    print(f"{'':20} {'batch':>5} {'us':>10} {'in a chain':>10} {'call':>7}")
    for row in rows:
        chained = f"{row['chained_us']:.1f}" if "chained_us" in row else ""
        print(f"{row['name']:20} {row['batch']:5} {row['us']:10.1f} {chained:>10} {row['call_us']:7.1f}")
    if sys.argv[1:]:
        report = {"onnxruntime": onnxruntime.__version__, "machine": platform.platform(), "layers": rows}
        with open(sys.argv[1], "w") as file:
            json.dump(report, file, indent=1)


main()
