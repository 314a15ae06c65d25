#!/usr/bin/env python3
"""Time of one training step of LeNet-5-Caffe in PyTorch, dense and Sparse VD, to set beside `cargo bench --bench training`.

    pip install torch
    OMP_NUM_THREADS=1 taskset -c 0 python benches/peers/train_step.py --threads 1

Batch 100, f32, Adam on all parameters (`foreach`), max-pooling before ReLU (they commute; it is the faster order),
channels-last weights: PyTorch at the best settings we know of. Prints one JSON line per kind with the median and minimum.
"""
import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F

K1, K2, K3 = 0.63576, 1.87320, 1.48695
SHAPES = [(20, 1, 5, 5), (50, 20, 5, 5), (500, 800), (10, 500)]


class Layer(torch.nn.Module):
    """Linear or convolution with a Gaussian posterior, by local reparametrization."""

    def __init__(self, shape, noise):
        super().__init__()
        fan_in = torch.tensor(shape[1:]).prod().item()
        self.theta = torch.nn.Parameter(torch.randn(shape) * (2 / fan_in) ** 0.5)
        self.bias = torch.nn.Parameter(torch.zeros(shape[0]))
        self.log_sigma2 = torch.nn.Parameter(torch.full(shape, -10.0)) if noise else None
        self.product = F.conv2d if len(shape) == 4 else F.linear

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


def measure(noise, steps):
    torch.manual_seed(0)
    layers = [Layer(shape, noise) for shape in SHAPES]
    optimiser = torch.optim.Adam([p for l in layers for p in l.parameters()], lr=1e-3, foreach=True)
    x, y = torch.rand(100, 1, 28, 28), torch.arange(100) % 10
    times = []
    for _ in range(steps + 5):
        start = time.perf_counter()
        h = F.relu(F.max_pool2d(layers[0](x), 2))
        h = F.relu(F.max_pool2d(layers[1](h), 2)).flatten(1)
        loss = F.cross_entropy(layers[3](F.relu(layers[2](h))), y)
        if noise:
            loss = loss + sum(l.kl() for l in layers) / 60_000
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        times.append(1e3 * (time.perf_counter() - start))
    times = times[5:]
    print(json.dumps({
        "step": "sparse-vd" if noise else "dense", "threads": torch.get_num_threads(), "torch": torch.__version__,
        "median_ms": round(statistics.median(times), 2), "min_ms": round(min(times), 2),
    }))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--steps", type=int, default=30)
arguments = parser.parse_args()
torch.set_num_threads(arguments.threads)
torch.set_flush_denormal(True)
measure(False, arguments.steps)
measure(True, arguments.steps)
