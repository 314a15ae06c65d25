"""Modules of PyTorch as networks, and weights of networks back in modules. PyTorch is imported by those who have one."""

from __future__ import annotations

import json
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn
from torch.nn import functional as F

from . import _native
from ._errors import InputError, ModelError

if TYPE_CHECKING:
    from ._native import Model

# Outputs that differ by more than this times the largest are no rounding.
TOLERANCE = 1e-4


def export(module: nn.Module, example: Any) -> Model:
    """The network of a module in evaluation mode, whose outputs on `example` are checked against those of the module."""
    if not isinstance(example, (torch.Tensor, np.ndarray)):
        kind = type(example).__name__
        raise InputError(f"example: expected an array or a tensor of one or more samples, got an object of type {kind}")
    example = torch.as_tensor(np.asarray(example.detach().cpu()) if isinstance(example, torch.Tensor) else example)
    if example.dtype != torch.float32 or example.ndim < 2 or len(example) == 0:
        shape = list(example.shape)
        raise InputError(f"example: expected float32 of shape [batch, ...], got {example.dtype} of shape {shape}")
    graph, tensors = _Exporter(module, example.shape[1:]).network()
    model = _native.network(json.dumps(graph), tensors)
    _check(model, module, example)
    return model


def put_weights(model: Model, module: nn.Module) -> nn.Module:
    """Puts the weights of a compressed network into the module that it came from, in place.

    Weights and units that left are zeros. Batch normalisation that was folded into the layer before it becomes the identity, and a layer
    without a bias gets one where the fold made one.
    """
    tensors = {name: torch.from_numpy(array) for name, array in model.original_tensors().items()}
    have = dict(module.named_parameters(remove_duplicate=False)) | dict(module.named_buffers(remove_duplicate=False))
    plan: list[tuple[nn.Module, str, torch.Tensor]] = []
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        try:
            layer = module.get_submodule(owner)
        except AttributeError:
            raise ModelError(f"tensor `{name}`: expected a module `{owner}`, got none") from None
        if name in have and have[name].shape != tensor.shape:
            shapes = f"{list(tensor.shape)}, got {list(have[name].shape)}"
            raise ModelError(f"tensor `{name}`: expected shape {shapes}")
        if name not in have and leaf != "bias":
            raise ModelError(f"tensor `{name}`: expected it in the module, got none")
        plan.append((layer, leaf, tensor))
    # Nothing is changed before everything is known to fit.
    with torch.no_grad():
        for layer, leaf, tensor in plan:
            there = getattr(layer, leaf, None)
            if there is None:
                like = next(layer.parameters())
                setattr(layer, leaf, nn.Parameter(tensor.to(like.device, like.dtype)))
            else:
                there.copy_(tensor)
        for name, layer in module.named_modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm) and f"{name}.running_mean" not in tensors:
                _make_identity(layer)
    return module


def _make_identity(layer: nn.modules.batchnorm._BatchNorm) -> None:
    if layer.running_mean is None or layer.running_var is None:
        return  # It is no part of a network that was exported.
    layer.running_mean.zero_()
    layer.running_var.fill_(1.0 - layer.eps)
    if layer.affine:
        layer.weight.fill_(1.0)
        layer.bias.zero_()


def _check(model: Model, module: nn.Module, example: torch.Tensor) -> None:
    """Compares the outputs of both."""
    at = next(module.parameters()).device
    was_training = module.training
    module.eval()
    with torch.no_grad():
        expected = module(example.to(at)).float().cpu().numpy()
    module.train(was_training)
    got = model.session(threads=1, dense=True)(example.numpy())
    if expected.shape != got.shape:
        raise ModelError(f"module: expected outputs of shape {list(expected.shape)}, got {list(got.shape)}")
    largest = max(float(np.abs(expected).max(initial=0.0)), 1e-6)
    differ = float(np.abs(expected - got).max(initial=0.0))
    if not differ <= TOLERANCE * largest:
        raise ModelError(f"module: expected its outputs, up to {largest:.3g}, got ones that differ by {differ:.3g}")


class _Leaves(fx.Tracer):
    """Traces a module down to the layers of torch.nn."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module.__module__.startswith("torch.nn") and not isinstance(module, nn.Sequential)


def _pair(value: Any) -> list[int]:
    return [int(v) for v in value] if isinstance(value, (tuple, list)) else [int(value)] * 2


class _Exporter:
    """A graph as docs/format.md has it, and its tensors under the names of the state dict."""

    def __init__(self, module: nn.Module, sample: torch.Size) -> None:
        self.module = module
        self.sample = list(sample)
        self.nodes: list[dict[str, Any]] = []
        self.tensors: dict[str, np.ndarray] = {}
        self.modules = dict(module.named_modules(remove_duplicate=False))

    def network(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        was_training = self.module.training
        self.module.eval()
        try:
            traced = _Leaves().trace(self.module)
        except Exception as error:
            raise ModelError(f"module: expected a forward without control flow on values, got {error}") from error
        finally:
            self.module.train(was_training)
        values: dict[fx.Node, str] = {}
        names: set[str] = set()
        inputs: list[dict[str, Any]] = []
        outputs: list[str] = []
        for node in traced.nodes:
            if node.op == "placeholder":
                if inputs:
                    raise ModelError("module: expected one input, got several")
                inputs.append({"name": node.name, "shape": self.sample})
                values[node] = node.name
                names.add(node.name)
            elif node.op == "output":
                (result,) = node.args
                if not isinstance(result, fx.Node):
                    raise ModelError("module: expected one tensor as output, got several")
                outputs.append(values[result])
            elif node.op == "call_module" and node.target in self.modules:
                op = self.layer(str(node.target), self.modules[node.target])
                self.add(node, str(node.target), op, values, names)
            elif _is_size(node):
                continue
            elif node.op in ("call_function", "call_method"):
                self.add(node, node.name, self.function(node), values, names)
            else:
                raise ModelError(f"module: expected layers and functions, got {node.op} `{node.target}`")
        if outputs and outputs[0] == inputs[0]["name"]:
            raise ModelError("module: expected a layer, got none")
        graph = {"name": type(self.module).__name__, "inputs": inputs, "nodes": self.nodes, "outputs": outputs}
        return graph, self.tensors

    def add(self, node: fx.Node, name: str, op: dict[str, Any] | None, values: dict[fx.Node, str], names: set[str]) -> None:
        operands = [values[a] for a in node.args if isinstance(a, fx.Node) and a in values]
        if not operands:
            raise ModelError(f"module: expected values as positional arguments, got `{node.format_node()}`")
        if op is None:  # The value as it came.
            values[node] = operands[0]
            return
        for extra in op.pop("before", []):
            extra_name = f"{name}.pad"
            self.nodes.append({"name": extra_name, "inputs": operands, **extra})
            operands = [extra_name]
        while name in names:
            name += "_"
        names.add(name)
        self.nodes.append({"name": name, "inputs": operands, **op})
        values[node] = name

    def keep(self, name: str, tensor: torch.Tensor) -> str:
        self.tensors[name] = tensor.detach().float().cpu().contiguous().numpy()
        return name

    def layer(self, name: str, layer: nn.Module) -> dict[str, Any] | None:
        """The operator of a layer; None is the identity."""
        if isinstance(layer, nn.Linear):
            op: dict[str, Any] = {"op": "Linear", "weight": self.keep(f"{name}.weight", layer.weight)}
            return op | self.bias(name, layer)
        if isinstance(layer, nn.Conv2d):
            if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
                raise ModelError(f"module `{name}`: expected padding of zeros by numbers, got {layer}")
            op = {"op": "Conv", "weight": self.keep(f"{name}.weight", layer.weight), "groups": layer.groups}
            return op | self.bias(name, layer) | self.window(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            if layer.running_mean is None or layer.running_var is None:
                raise ModelError(f"module `{name}`: expected running statistics, got none")
            features = layer.num_features
            one, zero = torch.ones(features), torch.zeros(features)
            return {
                "op": "BatchNormalization",
                "scale": self.keep(f"{name}.weight", layer.weight if layer.affine else one),
                "bias": self.keep(f"{name}.bias", layer.bias if layer.affine else zero),
                "mean": self.keep(f"{name}.running_mean", layer.running_mean),
                "variance": self.keep(f"{name}.running_var", layer.running_var),
                "epsilon": layer.eps,
            }
        if isinstance(layer, nn.MaxPool2d):
            if layer.ceil_mode or layer.return_indices:
                raise ModelError(f"module `{name}`: expected no ceil_mode and no indices, got {layer}")
            return {"op": "MaxPool"} | self.window(layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        if isinstance(layer, nn.AvgPool2d):
            counts = layer.count_include_pad or _pair(layer.padding) == [0, 0]
            if layer.ceil_mode or not counts or layer.divisor_override is not None:
                raise ModelError(f"module `{name}`: expected the mean over whole windows, got {layer}")
            return {"op": "AveragePool"} | self.window(layer.kernel_size, layer.stride, layer.padding, 1)
        if isinstance(layer, nn.AdaptiveAvgPool2d) and _pair(layer.output_size or 0) == [1, 1]:
            return {"op": "GlobalAveragePool"}
        if isinstance(layer, nn.Flatten) and (layer.start_dim, layer.end_dim) == (1, -1):
            return {"op": "Flatten"}
        if isinstance(layer, (nn.Identity, nn.Dropout, nn.Dropout2d)):
            return None
        simple = {nn.ReLU: "Relu", nn.Sigmoid: "Sigmoid", nn.Tanh: "Tanh", nn.Hardswish: "HardSwish"}
        if type(layer) in simple:
            return {"op": simple[type(layer)]}
        if isinstance(layer, nn.ReLU6):
            return {"op": "Clip", "min": 0.0, "max": 6.0}
        if isinstance(layer, nn.LeakyReLU):
            return {"op": "LeakyRelu", "alpha": layer.negative_slope}
        if isinstance(layer, nn.GELU):
            return {"op": "Gelu", "approximate": layer.approximate}
        raise ModelError(
            f"module `{name}`: expected a layer that can be exported, got {type(layer).__name__}; "
            "export the module to ONNX and compress that file"
        )

    def bias(self, name: str, layer: Any) -> dict[str, Any]:
        return {} if layer.bias is None else {"bias": self.keep(f"{name}.bias", layer.bias)}

    @staticmethod
    def window(kernel: Any, stride: Any, padding: Any, dilation: Any) -> dict[str, Any]:
        pads = _pair(padding)
        return {
            "kernel_shape": _pair(kernel),
            "strides": _pair(stride if stride is not None else kernel),
            "pads": pads + pads,
            "dilations": _pair(dilation),
        }

    def pool(self, average: bool, rest: list[Any], named: dict[str, Any]) -> dict[str, Any] | None:
        """The operator of a function that pools; None where it has arguments that no operator has."""
        named = dict(zip(("kernel_size", "stride", "padding"), rest)) | named
        kernel, stride = named.pop("kernel_size"), named.pop("stride", None)
        padding, dilation = named.pop("padding", 0), named.pop("dilation", 1)
        counts = named.pop("count_include_pad", True) or _pair(padding) == [0, 0]
        if len(rest) > 3 or not counts or any(named.values()):
            return None
        return {"op": "AveragePool" if average else "MaxPool"} | self.window(kernel, stride, padding, dilation)

    def function(self, node: fx.Node) -> dict[str, Any] | None:
        """The operator of a function or method."""
        target, rest, named = node.target, list(node.args[1:]), dict(node.kwargs)
        named.pop("inplace", None)
        simple = {
            F.relu: "Relu", torch.relu: "Relu", "relu": "Relu", "relu_": "Relu",
            torch.sigmoid: "Sigmoid", F.sigmoid: "Sigmoid", "sigmoid": "Sigmoid",
            torch.tanh: "Tanh", F.tanh: "Tanh", "tanh": "Tanh", F.hardswish: "HardSwish",
        }
        if target in simple and not rest and not named:
            return {"op": simple[target]}
        if target in (operator.add, torch.add, operator.iadd, "add", "add_") and _is_node(rest) and not named:
            return {"op": "Add"}
        if target in (operator.mul, torch.mul, "mul") and _is_node(rest) and not named:
            return {"op": "Mul"}
        if target in (torch.flatten, "flatten") and (rest, named) in (([1], {}), ([], {"start_dim": 1}), ([1, -1], {})):
            return {"op": "Flatten"}
        if target in (F.dropout, F.dropout2d):
            return None
        if target in (F.max_pool2d, torch.max_pool2d, F.avg_pool2d):
            op = self.pool(target is F.avg_pool2d, rest, named)
            if op is not None:
                return op
        if target is F.adaptive_avg_pool2d and rest and _pair(rest[0]) == [1, 1]:
            return {"op": "GlobalAveragePool"}
        if target in ("view", "reshape", torch.reshape) and _flattens(rest):
            return {"op": "Flatten"}
        raise ModelError(
            f"module: expected a function that can be exported, got `{node.format_node()}`; "
            "export the module to ONNX and compress that file"
        )


def _is_node(rest: list[Any]) -> bool:
    return len(rest) == 1 and isinstance(rest[0], fx.Node)


def _is_size(node: fx.Node) -> bool:
    """Whether a node is a size of a tensor, which a view takes."""
    if node.op == "call_method" and node.target == "size":
        return True
    if node.op != "call_function":
        return False
    if node.target is getattr:
        return bool(node.args[1] == "shape")
    return node.target is operator.getitem and isinstance(node.args[0], fx.Node) and _is_size(node.args[0])


def _flattens(rest: list[Any]) -> bool:
    """Whether a view keeps the first dimension and joins the others; the check of the outputs says whether that was right."""
    sizes = list(rest[0]) if len(rest) == 1 and isinstance(rest[0], (tuple, list)) else rest
    return len(sizes) == 2 and (sizes[0] == -1 or isinstance(sizes[0], fx.Node) or isinstance(sizes[1], int))
