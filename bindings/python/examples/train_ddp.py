"""Sparse Variational Dropout of LeNet-5 on several processes, by DistributedDataParallel.

    torchrun --nproc-per-node 2 bindings/python/examples/train_ddp.py --data data/mnist --out lenet-5
    compress lenet-5.safetensors --posterior lenet-5.posterior.safetensors --data data/mnist --scale 0.00392157

On a cluster the same is launched on each machine, as for any program of PyTorch:

    torchrun --nnodes 4 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 train_ddp.py --backend nccl ...

Every process draws its own noise and reads its own part of the samples; gradients are averaged. A network of your own, with its data,
takes the places of `LeNet5` and `mnist`.
"""

from __future__ import annotations

import argparse
import gzip
import json
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import sparsevd
import sparsevd.torch as sparse


class LeNet5(nn.Sequential):
    """The LeNet-5 of Caffe: 20 and 50 filters, 500 units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.pool1 = nn.Conv2d(1, 20, 5), nn.MaxPool2d(2)
        self.conv2, self.pool2 = nn.Conv2d(20, 50, 5), nn.MaxPool2d(2)
        self.flatten, self.fc1 = nn.Flatten(), nn.Linear(800, 500)
        self.relu, self.fc2 = nn.ReLU(), nn.Linear(500, 10)


def mnist(folder: Path, part: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images from 0 to 1 and labels."""

    def idx(name: str) -> np.ndarray:
        data = gzip.open(folder / name).read()
        dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
        return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(dims)

    x = torch.from_numpy(idx(f"{part}-images-idx3-ubyte.gz") / np.float32(255))[:, None]
    return x, torch.from_numpy(idx(f"{part}-labels-idx1-ubyte.gz").astype(np.int64))


def same_everywhere(module: nn.Module) -> bool:
    """Whether all processes have the same parameters."""
    ours = torch.cat([p.detach().flatten() for p in module.parameters()])
    all_of_them = [torch.empty_like(ours) for _ in range(dist.get_world_size())]
    dist.all_gather(all_of_them, ours)
    return all(torch.equal(ours, other) for other in all_of_them)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST's IDX files, gzipped")
    parser.add_argument("--out", required=True, help="writes OUT.safetensors, dense, and OUT.posterior.safetensors")
    parser.add_argument("--epochs", type=int, default=20, help="of the posterior, after a quarter of them dense")
    parser.add_argument("--samples", type=int, default=60_000, help="training samples that are used")
    parser.add_argument("--batch", type=int, default=128, help="samples of a step, over all processes")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--backend", default="gloo", help="gloo for CPUs, nccl for GPUs")
    args = parser.parse_args()

    dist.init_process_group(args.backend)
    rank, processes = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", rank % torch.cuda.device_count()) if args.backend == "nccl" else torch.device("cpu")
    if device.type == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
    torch.manual_seed(0)  # The same network everywhere.
    x, y = (t[: args.samples].to(device) for t in mnist(args.data, "train"))
    net = LeNet5().to(device)

    def train(module: nn.Module, epochs: int, kl_weight: float) -> None:
        parallel = DistributedDataParallel(module)
        optimiser = torch.optim.Adam(parallel.parameters(), args.lr)
        steps = epochs * (len(x) // args.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, 2 * (1 - step / max(steps, 1))))
        for epoch in range(epochs):
            # One order for all, of which each takes its part.
            order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
            warm = kl_weight * min(1.0, (epoch + 1) / max(1, epochs // 4)) / len(x)
            for batch in order.split(args.batch):
                if len(batch) < args.batch:
                    break
                ours = batch[rank::processes].to(device)
                loss = F.cross_entropy(parallel(x[ours]), y[ours])
                if kl_weight:
                    loss = loss + warm * sparse.kl(module)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()

    train(net, max(1, args.epochs // 4), 0.0)
    if rank == 0:
        example = x[:8].cpu()
        dense = sparsevd.compress(net, example=example, sparsity=0.0).model
        dense.save(f"{args.out}.safetensors", dense=True, overwrite=True)
    sparse.sparsify(net)
    torch.manual_seed(1 + rank)  # Noise of its own.
    train(net, args.epochs, 1.0)

    agree = same_everywhere(net)
    if rank == 0:
        sparse.export_posterior(net, f"{args.out}.posterior.safetensors")
        net.eval()
        test_x, test_y = (t.to(device) for t in mnist(args.data, "t10k"))
        with torch.no_grad():
            wrong = sum(int((net(a).argmax(1) != b).sum()) for a, b in zip(test_x.split(1000), test_y.split(1000)))
        about = {"processes": processes, "agree": agree, "density": sparse.density(net), "test_error": 100 * wrong / len(test_y)}
        print(json.dumps(about))
    dist.destroy_process_group()
    if not agree:
        raise SystemExit("the processes have different parameters")


if __name__ == "__main__":
    main()
