"""Sparse Variational Dropout in PyTorch: layers whose every weight has a dropout rate of its own, which is trained.

The layers hold plain parameters, so DistributedDataParallel, mixed precision and any optimiser work as ever. The loss is that of the
task plus `kl(module)` over the number of training samples (Molchanov, Ashukha and Vetrov 2017, equation 14). `export_posterior` writes
what `compress --posterior` and `sparsevd.compress(.., posterior=..)` take.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["SparseConv1d", "SparseConv2d", "SparseLinear", "density", "export_posterior", "kl", "sparsify"]

# Constants of the approximation of the KL divergence (equation 14).
_K1, _K2, _K3 = 0.63576, 1.87320, 1.48695
# Keeps logarithms and roots finite.
_EPSILON = 1e-8
# log alpha beyond this says no more: the weight is noise, or exact.
_MOST_LOG_ALPHA = 8.0


class _Sparse(nn.Module):
    """A layer with a Gaussian posterior: the mean `theta` and the logarithm of the variance `log_sigma2` of each weight."""

    theta: nn.Parameter
    log_sigma2: nn.Parameter
    bias: nn.Parameter | None
    threshold: float

    def __init__(self, weight: Any, bias: nn.Parameter | None, log_sigma2: float, threshold: float) -> None:
        super().__init__()
        self.theta = weight
        self.log_sigma2 = nn.Parameter(torch.full_like(weight, log_sigma2))
        self.register_parameter("bias", bias)
        self.threshold = threshold

    def log_alpha(self) -> torch.Tensor:
        """Logarithm of the dropout rate of each weight, from -8 to 8."""
        log_alpha = self.log_sigma2 - torch.log(self.theta.square() + _EPSILON)
        return log_alpha.clamp(-_MOST_LOG_ALPHA, _MOST_LOG_ALPHA)

    def kl(self) -> torch.Tensor:
        """KL divergence of all weights from the log-uniform prior, in nats."""
        a = self.log_alpha()
        return (_K1 + 0.5 * F.softplus(-a) - _K1 * torch.sigmoid(_K2 + _K3 * a)).sum()

    def alive(self) -> torch.Tensor:
        """Whether each weight is left: its log alpha is not above the threshold."""
        return self.log_alpha() <= self.threshold

    @property
    def weight(self) -> torch.Tensor:
        """The weights that are left, and zeros."""
        return torch.where(self.alive(), self.theta, torch.zeros_like(self.theta))

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """The layer with that weight."""
        raise NotImplementedError

    def noise(self, mean: torch.Tensor) -> torch.Tensor:
        """Standard normal noise for outputs."""
        return torch.randn_like(mean)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """In training the outputs have the noise that noise of the weights gives them (local reparametrisation, equation 17)."""
        if not self.training:
            return self.apply_weight(x, self.weight, self.bias)
        mean = self.apply_weight(x, self.theta, self.bias)
        variance = self.apply_weight(x.square(), self.log_sigma2.exp(), None)
        return mean + torch.sqrt(variance + _EPSILON) * self.noise(mean)


class SparseLinear(_Sparse):
    """`nn.Linear` with a dropout rate for each weight."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        log_sigma2: float = -8.0,
        threshold: float = 3.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        layer = nn.Linear(in_features, out_features, bias, device=device, dtype=dtype)
        self._take(layer, log_sigma2, threshold)

    def _take(self, layer: nn.Linear, log_sigma2: float, threshold: float) -> None:
        super().__init__(layer.weight, layer.bias, log_sigma2, threshold)
        self.in_features, self.out_features = layer.in_features, layer.out_features

    @classmethod
    def of(cls, layer: nn.Linear, *, log_sigma2: float = -8.0, threshold: float = 3.0) -> SparseLinear:
        """A layer that goes on from the weights of a trained one; it holds the same parameters."""
        self = cls.__new__(cls)
        self._take(layer, log_sigma2, threshold)
        return self

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class _SparseConv(_Sparse):
    """What convolutions have in common."""

    _dense: type[nn.Conv1d] | type[nn.Conv2d]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        log_sigma2: float = -8.0,
        threshold: float = 3.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        how = {"device": device, "dtype": dtype}
        layer = self._dense(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **how)
        self._take(layer, log_sigma2, threshold)

    def _take(self, layer: Any, log_sigma2: float, threshold: float) -> None:
        if layer.padding_mode != "zeros":
            raise ValueError(f"padding_mode: expected zeros, got {layer.padding_mode}")
        super().__init__(layer.weight, layer.bias, log_sigma2, threshold)
        self.in_channels, self.out_channels = layer.in_channels, layer.out_channels
        self.kernel_size, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding
        self.dilation, self.groups, self.padding_mode = layer.dilation, layer.groups, layer.padding_mode

    @classmethod
    def of(cls, layer: Any, *, log_sigma2: float = -8.0, threshold: float = 3.0) -> Any:
        """A layer that goes on from the weights of a trained one; it holds the same parameters."""
        self = cls.__new__(cls)
        self._take(layer, log_sigma2, threshold)
        return self

    def extra_repr(self) -> str:
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"padding={self.padding}, dilation={self.dilation}, groups={self.groups}, bias={self.bias is not None}"
        )


class SparseConv1d(_SparseConv):
    """`nn.Conv1d` with a dropout rate for each weight."""

    _dense = nn.Conv1d

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv1d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


class SparseConv2d(_SparseConv):
    """`nn.Conv2d` with a dropout rate for each weight."""

    _dense = nn.Conv2d

    def apply_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)


_SPARSE: dict[type[nn.Module], Any] = {nn.Linear: SparseLinear, nn.Conv1d: SparseConv1d, nn.Conv2d: SparseConv2d}


def sparsify(
    module: nn.Module,
    *,
    skip: tuple[str, ...] | list[str] = (),
    log_sigma2: float = -8.0,
    threshold: float = 3.0,
) -> nn.Module:
    """Replaces the linear layers and convolutions of a module by sparse ones, in place, under the same names, and returns it.

    The layers go on from the weights that they have. Depthwise convolutions stay: each of their few weights matters much. `skip` names
    layers that stay too.
    """
    found = dict(module.named_modules())
    absent = [name for name in skip if name not in found]
    if absent:
        raise ValueError(f"skip: expected names of layers, got {', '.join(absent)}")
    made: dict[int, nn.Module] = {}

    def sparse(name: str, layer: Any) -> Any:
        cls = _SPARSE.get(type(layer))
        depthwise = getattr(layer, "groups", 1) > 1 and layer.weight.shape[1] == 1
        if cls is None or depthwise or name in skip:
            return layer
        if id(layer) not in made:
            made[id(layer)] = cls.of(layer, log_sigma2=log_sigma2, threshold=threshold)
            made[id(layer)].train(layer.training)
        return made[id(layer)]

    def visit(prefix: str, parent: nn.Module) -> None:
        for key, child in list(parent.named_children()):
            name = f"{prefix}{key}"
            replaced = sparse(name, child)
            if replaced is child:
                visit(f"{name}.", child)
            else:
                setattr(parent, key, replaced)

    result: nn.Module = sparse("", module)
    if result is module:
        visit("", module)
    if not made:
        raise ValueError(f"module: expected a linear layer or a convolution, got none in {type(module).__name__}")
    return result


def _layers(module: nn.Module) -> list[_Sparse]:
    layers = [layer for layer in module.modules() if isinstance(layer, _Sparse)]
    if not layers:
        raise ValueError(f"module: expected a sparse layer, got none in {type(module).__name__}; sparsify() makes them")
    return layers


def kl(module: nn.Module) -> torch.Tensor:
    """KL divergence of all weights of sparse layers, in nats. The loss is that of the task, a mean over samples, plus this over the
    number of training samples."""
    first, *others = [layer.kl() for layer in _layers(module)]
    return sum(others, first)


def density(module: nn.Module) -> float:
    """Share of the weights of sparse layers that is left."""
    layers = _layers(module)
    with torch.no_grad():
        left = sum(int(layer.alive().sum()) for layer in layers)
    return left / sum(layer.theta.numel() for layer in layers)




def export_posterior(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Writes means and variances of sparse layers, and all other parameters and statistics, as docs/posterior.md has them.

    A file that exists is replaced, once the new one is whole. Of several processes one is to call it.
    """
    _layers(module)  # Says where there is none.
    if isinstance(module, (nn.parallel.DistributedDataParallel, nn.DataParallel)):
        module = module.module
    tensors = {}
    for name, tensor in module.state_dict().items():
        name = name.replace("_orig_mod.", "")  # Of torch.compile.
        if name.endswith("num_batches_tracked"):
            continue
        tensor = tensor.detach().to("cpu", torch.float32).contiguous()
        if not bool(torch.isfinite(tensor).all()):
            raise ValueError(f"tensor `{name}`: expected finite numbers, got others")
        tensors[name] = tensor.numpy()
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = os.fspath(path)
    descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path) or ".", prefix=".sparsevd-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for array in tensors.values():
                file.write(array.astype("<f4", copy=False).tobytes())
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
