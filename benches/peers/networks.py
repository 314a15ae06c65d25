#!/usr/bin/env python3
"""Whole networks, pruned by magnitude, one thread: `run-sparse` beside onnxruntime, OpenVINO, PyTorch and DeepSparse.

    pip install numpy onnx onnxruntime openvino torch
    taskset -c 1 python benches/peers/networks.py target/release FOLDER [--deepsparse PYTHON] [--networks ..] [--batches ..] [--sparsities ..]
    pip install nncf; taskset -c 1 python benches/peers/networks.py target/release FOLDER --int8 [--networks ..] [--batches ..] [--sparsities ..]

Networks are the presets with seeded weights; all layers but the first convolution and depthwise ones lose the same share of their weights. Files that FOLDER
lacks are made in it by `compress`. With `--int8` all contestants multiply int8, with ranges found on the same 32 samples. Peers get the same network as dense ONNX, zeros included. Every contestant is a process of its own that
runs alone; of `run-sparse`, which runs first and last, the slower median counts, of each peer its only one. DeepSparse 1.8 needs a Python 3.11 of its own
(`pip install deepsparse==1.8.0 numpy==1.26.4`). PyTorch runs the dense network from its ONNX file as far as its own operators go: convolutions,
ReLU, sums and pooling, under `torch.jit.freeze`, channels last.
"""
import argparse
import json
import pathlib
import platform
import statistics
import subprocess
import sys
import time

SHAPES = {"vgg-like": [3, 32, 32], "mobilenet-v1": [3, 224, 224], "resnet-50": [3, 224, 224], "resnet-20": [3, 32, 32], "mlp-4096x2": [4096], "mlp-1024x4": [1024]}
# What `compress init` makes them by, where that is not the name.
SPECIFICATIONS = {"mlp-4096x2": "mlp:4096,4096,4096", "mlp-1024x4": "mlp:1024,1024,1024,1024,1024"}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("programs", help="folder of compress and run-sparse")
    parser.add_argument("folder", type=pathlib.Path, help="where models are kept")
    parser.add_argument("--deepsparse", help="Python that has DeepSparse")
    parser.add_argument("--networks", default="vgg-like,mobilenet-v1,resnet-50")
    parser.add_argument("--batches", default="1")
    parser.add_argument("--sparsities", default="0,80,90,95,98", help="in per cent")
    parser.add_argument("--peers", help="by default onnxruntime,openvino,openvino-bf16,torch,deepsparse, or the int8 ones")
    parser.add_argument("--int8", action="store_true", help="run-sparse with int8 layers; of peers, onnxruntime-int8 and openvino-int8")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


def median_us(run, seconds):
    run(), run()
    times, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds or len(times) < 3:
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e6


def random(shape):
    import numpy

    return numpy.random.default_rng(1).random(shape, numpy.float32)


def onnxruntime_run(path, shape):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    x = {session.get_inputs()[0].name: random(shape)}
    return lambda: session.run(None, x)


def openvino_run(path, shape, precision="f32"):
    import openvino

    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(shape)
    settings = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False, "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    x = random(shape)
    return lambda: request.infer([x])


CALIBRATION = 32


def samples(path, shape):
    """The inputs on which all contestants find their ranges."""
    import numpy

    return numpy.random.default_rng(2).random((CALIBRATION, *shape[1:]), numpy.float32)


def onnxruntime_int8_run(path, shape):
    """Static QDQ of unsigned activations and signed weights, a scale for each output channel: the fastest on x86 with VNNI."""
    from onnxruntime import quantization

    quantised = path.replace(".onnx", ".ort-int8.onnx")
    if not pathlib.Path(quantised).exists():

        class Reader(quantization.CalibrationDataReader):
            def __init__(self):
                import onnx

                name = onnx.load(path, load_external_data=False).graph.input[0].name
                self.inputs = iter([{name: x[None]} for x in samples(path, shape)])

            def get_next(self):
                return next(self.inputs, None)

        prepared = path.replace(".onnx", ".prepared.onnx")
        quantization.shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
        types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
        quantization.quantize_static(prepared, quantised, Reader(), per_channel=True, **types)
    return onnxruntime_run(quantised, shape)


def openvino_int8_run(path, shape):
    """Post-training quantisation by NNCF."""
    import nncf
    import openvino

    quantised = path.replace(".onnx", ".ov-int8.xml")
    if not pathlib.Path(quantised).exists():
        model = openvino.Core().read_model(path)
        model.reshape([1, *shape[1:]])
        dataset = nncf.Dataset([x[None] for x in samples(path, shape)])
        openvino.save_model(nncf.quantize(model, dataset, subset_size=CALIBRATION), quantised)
    return openvino_run(quantised, shape)


def torch_run(path, shape):
    import onnx
    import torch
    from onnx import numpy_helper

    torch.set_num_threads(1)
    graph = onnx.load(path).graph
    tensors = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    attributes = [{a.name: list(a.ints) or a.i for a in node.attribute} for node in graph.node]

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weights = torch.nn.ParameterList([torch.nn.Parameter(t.to(memory_format=torch.channels_last) if t.dim() == 4 else t, False) for t in tensors.values()])
            self.places = {name: i for i, name in enumerate(tensors)}

        def forward(self, x):
            values = {graph.input[0].name: x}
            value = lambda name: self.weights[self.places[name]] if name in self.places else values[name]
            functional = torch.nn.functional
            for node, attribute in zip(graph.node, attributes):
                ins = [value(name) for name in node.input if name and (name in values or name in self.places)]
                pads = attribute.get("pads", [0] * 4)
                if node.op_type == "Conv":
                    y = functional.conv2d(*ins, *([None] if len(ins) == 2 else []), attribute.get("strides", 1), pads[:2], attribute.get("dilations", 1), attribute.get("group", 1))
                elif node.op_type == "BatchNormalization":
                    x, scale, shift, mean, variance = ins
                    y = functional.batch_norm(x, mean, variance, scale, shift)
                elif node.op_type == "Relu":
                    y = functional.relu(ins[0])
                elif node.op_type == "Add":
                    y = ins[0] + ins[1]
                elif node.op_type == "MaxPool":
                    y = functional.max_pool2d(ins[0], attribute["kernel_shape"], attribute.get("strides"), pads[:2])
                elif node.op_type == "GlobalAveragePool":
                    y = ins[0].mean((2, 3), keepdim=True)
                elif node.op_type in ("Flatten", "Reshape"):
                    y = ins[0].flatten(1)
                elif node.op_type == "Gemm":
                    y = functional.linear(*ins)
                else:
                    raise SystemExit(f"{node.op_type} (node {node.name}) is not known here")
                values[node.output[0]] = y
            return y

    x = torch.from_numpy(random(shape)).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        traced = torch.jit.freeze(torch.jit.trace(Network().eval(), x))

    def run():
        with torch.inference_mode():
            traced(x)

    return run


def deepsparse_run(path, shape):
    from deepsparse import compile_model

    engine = compile_model(path, batch_size=shape[0], num_cores=1)
    x = [random(shape)]
    return lambda: engine.run(x)


PEERS = {
    "onnxruntime": onnxruntime_run,
    "openvino": openvino_run,
    "onnxruntime-int8": onnxruntime_int8_run,
    "openvino-int8": openvino_int8_run,
    "openvino-bf16": lambda path, shape: openvino_run(path, shape, "bf16"),
    "torch": torch_run,
    "deepsparse": deepsparse_run,
}


def make(programs, folder, network, sparsity):
    """The network as safetensors for us and as ONNX for others."""
    name = network if sparsity == 0 else f"{network}-{sparsity}"
    ours, theirs = folder / f"{name}.safetensors", folder / f"{name}.onnx"
    compress = f"{programs}/compress"
    quiet = {"check": True, "stdout": subprocess.DEVNULL}
    if not ours.exists():
        if sparsity == 0:
            subprocess.run([compress, "init", SPECIFICATIONS.get(network, network), "--out", ours], **quiet)
        else:
            dense, _ = make(programs, folder, network, 0)
            share = ["--sparsity", str(sparsity / 100), "--scope", "layer"]
            subprocess.run([compress, dense, "--method", "magnitude", *share, "--out", ours, "-q"], **quiet)
    if not theirs.exists():
        subprocess.run([compress, "convert", ours, theirs, "--dense"], **quiet)
    return ours, theirs


def make_int8(programs, path, shape):
    """The network with grids for int8 layers, found on the samples of the peers."""
    import numpy

    quantised = path.with_suffix(".int8.safetensors")
    if not quantised.exists():
        inputs = path.parent / f"inputs-{shape[-1]}.npz"
        numpy.savez(inputs, x=numpy.concatenate([samples(path, shape)] * 2))
        command = [f"{programs}/compress", "quantise-activations", path, "--data", inputs, "--samples", str(CALIBRATION), "--held-out", "8", "--out", quantised]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return quantised


def ours_us(programs, path, batch, seconds):
    command = [f"{programs}/run-sparse", "bench", path, "--batch", str(batch), "--seconds", str(seconds), "--json", "-q"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["runs"][0]["p50_us"]


def peer_us(options, peer, path, shape):
    python = options.deepsparse if peer == "deepsparse" else sys.executable
    command = [python, __file__, options.programs, str(options.folder), "--seconds", str(options.seconds), "--measure", peer, str(path), json.dumps(shape)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{peer} on {path}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main():
    options = arguments()
    if options.measure:
        peer, path, shape = options.measure
        print(median_us(PEERS[peer](path, json.loads(shape)), options.seconds))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    default = "onnxruntime-int8,openvino-int8" if options.int8 else "onnxruntime,openvino,openvino-bf16,torch,deepsparse"
    peers = [p for p in (options.peers or default).split(",") if p != "deepsparse" or options.deepsparse]
    print(f"{platform.processor() or platform.machine()}, one thread; milliseconds per run, and how many times faster run-sparse is")
    print(f"{'network':14} {'sparsity':>8} {'batch':>5} {'run-sparse':>11}" + "".join(f" {p:>20}" for p in peers))
    for network in options.networks.split(","):
        for batch in map(int, options.batches.split(",")):
            dense = {}
            for sparsity in map(int, options.sparsities.split(",")):
                ours, theirs = make(options.programs, options.folder, network, sparsity)
                shape = [batch, *SHAPES[network]]
                if options.int8:
                    ours = make_int8(options.programs, ours, shape)
                before = ours_us(options.programs, ours, batch, options.seconds)
                times = {}
                for peer in peers:
                    # Only DeepSparse takes less time over zeros; the others are measured once.
                    if peer == "deepsparse" or peer not in dense:
                        dense[peer] = peer_us(options, peer, theirs, shape)
                    times[peer] = dense[peer]
                us = max(before, ours_us(options.programs, ours, batch, options.seconds))
                row = "".join(f" {t / 1e3:>12.2f} {t / us:>6.2f}x" for t in times.values())
                print(f"{network:14} {sparsity:>6} % {batch:>5} {us / 1e3:>11.3f}{row}", flush=True)


if __name__ == "__main__":
    main()
