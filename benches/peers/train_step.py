#!/usr/bin/env python3
"""Time of one training step in PyTorch, dense and Sparse VD, to set beside `cargo bench --bench training`.

    pip install torch
    OMP_NUM_THREADS=1 taskset -c 0 python benches/peers/train_step.py --threads 1 [--network resnet-20]

LeNet-5-Caffe or ResNet-20, on 28x28 pixels as in that benchmark. Batch 100, f32, Adam on all parameters (`foreach`), max-pooling
before ReLU (they commute; it is the faster order), channels-last weights and maps: PyTorch at the best settings we know of. Prints
one JSON line per kind with the median and minimum.
"""
import argparse
import functools
import json
import statistics
import time

import torch
import torch.nn.functional as F

K1, K2, K3 = 0.63576, 1.87320, 1.48695


class Layer(torch.nn.Module):
    """Linear or convolution with a Gaussian posterior, by local reparametrization."""

    def __init__(self, shape, noise, stride=1, padding=0, bias=True):
        super().__init__()
        fan_in = torch.tensor(shape[1:]).prod().item()
        self.theta = torch.nn.Parameter(torch.randn(shape) * (2 / fan_in) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(shape[0])) if bias else None
        self.log_sigma2 = torch.nn.Parameter(torch.full(shape, -10.0)) if noise else None
        conv = functools.partial(F.conv2d, stride=stride, padding=padding)
        self.product = conv if len(shape) == 4 else F.linear

    def layout(self, w):
        return w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w

    def forward(self, x):
        mean = self.product(x, self.layout(self.theta), self.bias)
        if self.log_sigma2 is None:
            return mean
        variance = self.product(x * x, self.layout(self.log_sigma2.exp()))
        return mean + (variance + 1e-8).sqrt() * torch.randn_like(mean)

    def kl(self):
        log_alpha = (self.log_sigma2 - (self.theta * self.theta + 1e-8).log()).clamp(-8, 8)
        return (K1 - K1 * torch.sigmoid(K2 + K3 * log_alpha) + 0.5 * F.softplus(-log_alpha)).sum()


class LeNet5(torch.nn.Module):
    def __init__(self, noise):
        super().__init__()
        shapes = [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]
        self.layers = torch.nn.ModuleList(Layer(shape, noise) for shape in shapes)

    def forward(self, x):
        h = F.relu(F.max_pool2d(self.layers[0](x), 2))
        h = F.relu(F.max_pool2d(self.layers[1](h), 2)).flatten(1)
        return self.layers[3](F.relu(self.layers[2](h)))


class Block(torch.nn.Module):
    """Two convolutions, and their input added to what they make."""

    def __init__(self, channels, out, stride, noise):
        super().__init__()
        self.first = Layer((out, channels, 3, 3), noise, stride, 1, bias=False)
        self.second = Layer((out, out, 3, 3), noise, 1, 1, bias=False)
        self.shortcut = Layer((out, channels, 1, 1), noise, stride, bias=False) if channels != out else None
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(out) for _ in range(3 if self.shortcut else 2))

    def forward(self, x):
        y = F.relu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return F.relu(y + (self.norms[2](self.shortcut(x)) if self.shortcut else x))


class ResNet20(torch.nn.Module):
    def __init__(self, noise):
        super().__init__()
        self.stem = Layer((16, 1, 3, 3), noise, 1, 1, bias=False)
        self.norm = torch.nn.BatchNorm2d(16)
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        self.blocks = torch.nn.Sequential(*(Block(*width, noise) for width in widths))
        self.last = Layer((10, 64), noise)

    def forward(self, x):
        x = self.blocks(F.relu(self.norm(self.stem(x))))
        return self.last(x.mean((2, 3)))


NETWORKS = {"lenet-5": LeNet5, "resnet-20": ResNet20}


def measure(network, noise, steps):
    torch.manual_seed(0)
    net = NETWORKS[network](noise).to(memory_format=torch.channels_last)
    layers = [m for m in net.modules() if isinstance(m, Layer)]
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3, foreach=True)
    x, y = torch.rand(100, 1, 28, 28).to(memory_format=torch.channels_last), torch.arange(100) % 10
    times = []
    for _ in range(steps + 5):
        start = time.perf_counter()
        loss = F.cross_entropy(net(x), y)
        if noise:
            loss = loss + sum(l.kl() for l in layers) / 60_000
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[5:]
    print(json.dumps({
        "network": network, "step": "sparse-vd" if noise else "dense", "threads": torch.get_num_threads(), "torch": torch.__version__,
        "median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2),
    }))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--network", choices=NETWORKS, default="lenet-5")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=30)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.set_flush_denormal(True)
for noise in False, True:
    measure(arguments.network, noise, arguments.steps)
