"""Networks of torchvision, a U-Net and a CRNN, exported to ONNX with seeded weights by both of PyTorch's exporters, run by `run-sparse`.

    pip install torch torchvision onnx onnxscript numpy
    python benches/peers/torchvision_networks.py [--bin target/release] [NAME ...]

A line for each file: the largest difference to PyTorch's outputs as a share of the largest output, or that it is refused, by how many nodes, and
the first of them. Exit code 1 where an output differs by more than 1e-4 of the largest. Weights that torchvision sets to zero, as those
of the last layer of a ViT, are drawn too.
"""

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def block(inputs, outputs):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), nn.Conv2d(outputs, outputs, 3, padding=1), nn.ReLU()
    )


class UNet(nn.Module):
    """Two levels; one goes up by a transposed convolution, one by bilinear interpolation."""

    def __init__(self):
        super().__init__()
        self.down = nn.ModuleList([block(3, 16), block(16, 32), block(32, 64)])
        self.pool = nn.MaxPool2d(2)
        self.up = nn.ModuleList([nn.ConvTranspose2d(64, 32, 2, 2), nn.Upsample(scale_factor=2, mode="bilinear")])
        self.merge = nn.ModuleList([block(64, 32), block(48, 16)])
        self.classes = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        large = self.down[0](x)
        middle = self.down[1](self.pool(large))
        x = self.up[0](self.down[2](self.pool(middle)))
        x = self.up[1](self.merge[0](torch.cat([x, middle], 1)))
        return self.classes(self.merge[1](torch.cat([x, large], 1)))


class CRNN(nn.Module):
    """Convolutions, and a bidirectional LSTM over the columns of their maps."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d((2, 1))
        )
        self.columns = nn.LSTM(32 * 8, 64, bidirectional=True, batch_first=True)
        self.classes = nn.Linear(128, 37)

    def forward(self, x):
        x = self.features(x)
        n, c, h, w = x.shape
        return self.classes(self.columns(x.permute(0, 3, 1, 2).reshape(n, w, c * h))[0])


NETWORKS = {
    name: getattr(torchvision.models, name)
    for name in (
        "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small",
        "regnet_y_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "vgg11", "vit_b_16",
    )
} | {"unet": UNet, "crnn": CRNN}  # fmt: skip
SHAPES = {"unet": (1, 3, 64, 64), "crnn": (1, 1, 32, 96)}


def seeded(name):
    torch.manual_seed(2017)
    arguments = {"init_weights": True, "aux_logits": False} if name == "googlenet" else {}
    network = NETWORKS[name](**arguments).eval()
    for values in [*network.parameters(), *(b for b in network.buffers() if b.is_floating_point())]:
        if not values.data.any():
            nn.init.normal_(values.data, std=0.02)
    return network


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=Path, default=ROOT / "target/release")
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*NETWORKS, []], help=", ".join(NETWORKS))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for name in options.names or NETWORKS:
            network = seeded(name)
            x = torch.randn(SHAPES.get(name, (1, 3, 224, 224)))
            with torch.no_grad():
                y = network(x)
            expected = Path(folder) / "expected.npz"
            np.savez(expected, x=x.numpy(), y=y.numpy())
            for exporter, arguments in {"script": {"dynamo": False}, "dynamo": {"dynamo": True, "external_data": False}}.items():
                file = Path(folder) / f"{name}.onnx"
                torch.onnx.export(network, (x,), file, input_names=["x"], output_names=["y"], verbose=False, **arguments)
                run = subprocess.run(
                    [options.bin / "run-sparse", "check", file, "--expect", expected, "--tolerance", str(TOLERANCE), "--json"],
                    capture_output=True, text=True,
                )  # fmt: skip
                if run.returncode == 2:
                    said = f"refused: {run.stderr.strip().partition('.onnx: ')[2]}"
                    print(f"{name:20} {exporter:7} {said[:150]}", flush=True)
                    continue
                wrong += run.returncode != 0
                if run.returncode != 1 and run.returncode != 0:
                    print(f"{name:20} {exporter:7} exit code {run.returncode}: {run.stderr.strip()[-150:]}", flush=True)
                    continue
                print(f"{name:20} {exporter:7} {json.loads(run.stdout)['max_relative_error']:.1e}", flush=True)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
