"""Quantised ONNX files, in and out: what `run-sparse` computes of them in f32 and in int8, against onnxruntime.

    python benches/peers/quantised.py [--bin target/release]

In: a network of convolutions (ReLU, ReLU6, a residual sum, max-pooling, a mean, a convolution over groups, Gemm, MatMul), four weights of five zero, is quantised by
onnxruntime's `quantize_static` as QDQ and as QOperator, with unsigned and signed activations, per tensor and per channel, and by NNCF where it is installed.
Out: networks of `compress init`, pruned, with grids of `compress quantise-activations`, are written as ONNX by `compress convert`, and come back.

An error is the root of the mean squared difference of outputs, over their deviation. `noise` is that of onnxruntime on the quantised file against the file in f32:
what quantisation costs. The others are against onnxruntime on the quantised file, and may be no larger than 1.5 times the noise, nor those of samples three times as
large as any that ranges were found on, where integers saturate.
Needs numpy, onnx and onnxruntime.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (3, 16, 16)
MOST = 1.5
PRESETS = {"lenet-5": (1, 28, 28), "resnet-20": (3, 32, 32), "vgg-like": (3, 32, 32)}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def network(path, random):
    """A network of which four weights of five are zero."""
    tensors = {}

    def weights(name, *shape):
        w = random.standard_normal(shape) * (10 / np.prod(shape[1:])) ** 0.5
        w[np.abs(w) < np.quantile(np.abs(w), 0.8)] = 0
        tensors[name] = w.astype(np.float32)
        tensors[name.replace("weight", "bias")] = (0.1 * random.standard_normal(shape[0])).astype(np.float32)
        return [name, name.replace("weight", "bias")]

    def node(op, inputs, output, **attributes):
        return helper.make_node(op, inputs, [output], name=f"make_{output}", **attributes)

    tensors |= {"low": np.float32(0), "high": np.float32(6)}
    padded = {"pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    nodes = [
        node("Conv", ["x", *weights("c1.weight", 16, 3, 3, 3)], "a", **padded),
        node("Relu", ["a"], "b"),
        node("MaxPool", ["b"], "c", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", *weights("c2.weight", 16, 16, 3, 3)], "d", **padded),
        node("Clip", ["d", "low", "high"], "e"),
        node("Conv", ["e", *weights("c3.weight", 16, 16, 3, 3)], "f", **padded),
        node("Add", ["f", "c"], "g"),
        node("Relu", ["g"], "h"),
        node("Conv", ["h", *weights("c4.weight", 32, 8, 3, 3)], "i", group=2, strides=[2, 2], **padded),
        node("Relu", ["i"], "j"),
        node("GlobalAveragePool", ["j"], "k"),
        node("Flatten", ["k"], "l"),
        node("Gemm", ["l", *weights("fc1.weight", 32, 32)], "m", transB=1),
        node("Relu", ["m"], "n"),
    ]
    weights("fc2.weight", 10, 32)
    tensors["fc2.weight"] = np.ascontiguousarray(tensors["fc2.weight"].T)
    nodes += [node("MatMul", ["n", "fc2.weight"], "o"), node("Add", ["o", "fc2.bias"], "y")]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SHAPE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


class Reader(CalibrationDataReader):
    def __init__(self, samples):
        self.samples = iter([{"x": samples[i : i + 8]} for i in range(0, len(samples), 8)])

    def get_next(self):
        return next(self.samples, None)


def variants(folder, samples):
    """The quantised files, by name."""
    prepared = folder / "prepared.onnx"
    quant_pre_process(folder / "f32.onnx", prepared)
    unsigned, signed = QuantType.QUInt8, QuantType.QInt8
    made = {}
    for form in (QuantFormat.QDQ, QuantFormat.QOperator):
        for kind, activations in (("u8s8", unsigned), ("s8s8", signed)):
            for per_channel in (False, True):
                name = f"{form.name} {kind}{' per channel' if per_channel else ''}"
                path = folder / f"{name}.onnx"
                options = {"quant_format": form, "activation_type": activations, "weight_type": signed, "per_channel": per_channel}
                quantize_static(prepared, path, Reader(samples), **options)
                made[name] = path
    try:
        import nncf
    except ImportError:
        print("NNCF is not installed")
        return made
    dataset = nncf.Dataset([samples[i : i + 8] for i in range(0, len(samples), 8)], lambda x: {"x": x})
    made["NNCF"] = folder / "nncf.onnx"
    onnx.save(nncf.quantize(onnx.load(prepared), dataset), made["NNCF"])
    return made


def peer(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def error(y, want):
    return float(np.sqrt(((y - want) ** 2).mean()) / want.std())


class Ours:
    def __init__(self, programs, folder):
        self.compress, self.run_sparse, self.folder = programs / "compress", programs / "run-sparse", folder

    def outputs(self, path, x, mode):
        np.save(self.folder / "x.npy", x)
        run(self.run_sparse, path, "--input", self.folder / "x.npy", "--int8", mode, "--output", self.folder / "y.npy", "--quiet", "--force")
        return np.load(self.folder / "y.npy").reshape(len(x), -1)

    def convert(self, path, to):
        run(self.compress, "convert", path, to, "--force")
        return to

    def grids(self, path):
        """Grids and tensors of a safetensors file."""
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        metadata = header.pop("__metadata__")
        tensors = {name: data[8 + size + t["data_offsets"][0] : 8 + size + t["data_offsets"][1]] for name, t in header.items()}
        return json.loads(metadata.get("sparsevd.int8", "{}")), tensors


def within(name, errors, noise):
    """Prints the errors of a file, and whether they are within the noise."""
    good = all(e <= MOST * noise for e in errors.values())
    print(f"{name:28} noise {noise:.4f}  " + "  ".join(f"{k} {v:.4f}" for k, v in errors.items()) + ("" if good else "  OUT OF BOUNDS"), flush=True)
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    args = parser.parse_args()
    random = np.random.default_rng(3)
    good = True
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        ours = Ours(args.bin, folder)
        network(folder / "f32.onnx", random)
        samples, x = (random.standard_normal((64, *SHAPE)).astype(np.float32) for _ in range(2))
        f32 = peer(folder / "f32.onnx", x)
        for name, path in variants(folder, samples).items():
            want, wide = peer(path, x), peer(path, 3 * x)
            grids, _ = ours.grids(ours.convert(path, folder / "in.safetensors"))
            errors = {
                "f32": error(ours.outputs(path, x, "never"), want),
                "int8": error(ours.outputs(path, x, "always"), want),
                "f32, 3x": error(ours.outputs(path, 3 * x, "never"), wide),
                "int8, 3x": error(ours.outputs(path, 3 * x, "always"), wide),
            }
            good &= within(f"in: {name}, {max(len(grids) - 1, 0)} layers", errors, error(want, f32))
        for name, shape in PRESETS.items():
            dense, pruned, int8 = (folder / f"{name}{ending}.safetensors" for ending in ("", ".pruned", ".int8"))
            run(ours.compress, "init", name, "--seed", "1", "--out", dense)
            run(ours.compress, dense, "--method", "magnitude", "--sparsity", "0.8", "--out", pruned)
            samples, x = (random.standard_normal((64, *shape)).astype(np.float32) for _ in range(2))
            np.savez(folder / "samples.npz", x=samples)
            run(ours.compress, "quantise-activations", pruned, "--data", folder / "samples.npz", "--samples", "32", "--out", int8)
            out = ours.convert(int8, folder / f"{name}.onnx")
            back = ours.convert(out, folder / f"{name}.back.safetensors")
            if ours.grids(int8) != ours.grids(back):
                raise SystemExit(f"{name}: grids or weights change on the way to ONNX and back")
            f32, want = ours.outputs(int8, x, "never"), peer(out, x)
            errors = {"f32": error(f32, want), "int8": error(ours.outputs(int8, x, "always"), want), "back, int8": error(ours.outputs(out, x, "always"), want)}
            good &= within(f"out: {name}, {len(ours.grids(int8)[0]) - 1} layers", errors, error(want, f32))
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
