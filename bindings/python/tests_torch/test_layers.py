"""The layers of PyTorch beside golden vectors, and modules as networks. Needs torch: scripts/test-python-torch.sh."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import sparsevd
import sparsevd.torch as sparse

ROOT = Path(__file__).resolve().parents[3]
VECTORS = ROOT / "crates" / "compressor" / "tests" / "golden" / "vectors.safetensors"


def read(path: Path) -> dict[str, torch.Tensor]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    tensors = {}
    for name, about in header.items():
        if name != "__metadata__":
            first, last = (8 + size + at for at in about["data_offsets"])
            array = np.frombuffer(data[first:last], "<f4").reshape(about["shape"])
            tensors[name] = torch.from_numpy(array.astype(np.float64))
    return tensors


def close(got: torch.Tensor, expected: torch.Tensor) -> None:
    """1e-5 relative to the largest."""
    scale = expected.abs().max()
    torch.testing.assert_close(got.reshape(expected.shape), expected, rtol=1e-5, atol=float(1e-5 * scale))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("case", "layer"), [("dense", sparse.SparseLinear(13, 5)), ("conv", sparse.SparseConv2d(2, 4, 5))])
def test_layers_beside_golden_vectors(case, layer, dtype):
    v = {name.removeprefix(f"{case}."): t.to(dtype) for name, t in read(VECTORS).items() if name.startswith(f"{case}.")}
    layer = layer.to(dtype)
    with torch.no_grad():
        layer.theta.copy_(v["theta"])
        layer.log_sigma2.copy_(v["log_sigma2"])
        layer.bias.copy_(v["bias"])
    layer.zero_grad()
    layer.noise = lambda mean: v["eps"]
    x = v["x"].clone().requires_grad_()
    y = layer(x)
    close(y, v["y"])
    y.backward(v["upstream"])
    close(x.grad, v["g_x"])
    close(layer.theta.grad, v["g_theta"])
    close(layer.log_sigma2.grad, v["g_log_sigma2"])
    close(layer.bias.grad, v["g_bias"])
    layer.zero_grad()
    divergence = sparse.kl(layer)
    close(divergence, v["kl_sum"])
    divergence.backward()
    close(layer.theta.grad, v["kl_g_theta"])
    close(layer.log_sigma2.grad, v["kl_g_log_sigma2"])


def test_a_convolution_of_one_dimension_is_one_of_two():
    one, two = sparse.SparseConv1d(3, 4, 5, stride=2, padding=1), sparse.SparseConv2d(3, 4, (1, 5), stride=(1, 2), padding=(0, 1))
    with torch.no_grad():
        two.theta.copy_(one.theta[:, :, None])
        two.bias.copy_(one.bias)
    x = torch.randn(2, 3, 20)
    for layer in (one, two):
        layer.noise = torch.ones_like
    torch.testing.assert_close(one(x), two(x[:, :, None])[:, :, 0])
    torch.testing.assert_close(one.eval()(x), two.eval()(x[:, :, None])[:, :, 0])


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3, groups=4),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(36, 10),
    )


def test_a_trained_network_becomes_sparse_in_place():
    module = net()
    x = torch.randn(5, 1, 8, 8)
    expected = module.eval()(x)
    names = [name for name, _ in module.named_modules()]
    # Small enough that no weight is over the threshold.
    assert sparse.sparsify(module, log_sigma2=-20.0) is module
    assert [name for name, _ in module.named_modules()] == names
    kinds = [type(module[i]) for i in (0, 3, 6)]
    assert kinds == [sparse.SparseConv2d, nn.Conv2d, sparse.SparseLinear]
    torch.testing.assert_close(module(x), expected)
    assert sparse.density(module) == 1.0
    with torch.no_grad():
        module[6].log_sigma2[:5] = 8.0
    assert sparse.density(module) == (36 + 180) / (36 + 360)
    assert not module[6].weight[:5].any()
    same = sparse.sparsify(net(), skip=["6"])
    assert type(same[6]) is nn.Linear
    assert isinstance(sparse.sparsify(nn.Linear(2, 3)), sparse.SparseLinear)
    for wrong in [lambda: sparse.sparsify(net(), skip=["7"]), lambda: sparse.sparsify(nn.ReLU()), lambda: sparse.kl(net())]:
        with pytest.raises(ValueError, match="expected"):
            wrong()


def test_a_posterior_is_what_compress_takes(tmp_path):
    module = net()
    x = torch.randn(6, 1, 8, 8)
    dense = sparsevd.compress(module.eval(), example=x, sparsity=0.0).model
    dense.save(tmp_path / "net.safetensors", dense=True)
    sparse.sparsify(module)
    with torch.no_grad():
        for layer in (module[0], module[6]):
            layer.log_sigma2.copy_(torch.randn_like(layer.theta) * 4 - 4)
    sparse.export_posterior(module, tmp_path / "posterior.safetensors")
    assert read(tmp_path / "posterior.safetensors").keys() >= {"0.theta", "0.log_sigma2", "6.theta", "6.log_sigma2", "6.bias"}
    result = sparsevd.compress(net(), example=x, posterior=tmp_path / "posterior.safetensors")
    with torch.no_grad():
        expected = module.eval()(x).numpy()
    np.testing.assert_allclose(result.model.session(threads=1)(x.numpy()), expected, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        module[0].theta[0] = float("nan")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ValueError, match="tensor `0.theta`: expected finite numbers"):
        sparse.export_posterior(module, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


class Residual(nn.Module):
    """What tracing must see through: functions, views, a sum."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.fc1 = nn.Linear(6 * 4 * 4, 16)
        self.drop = nn.Dropout()
        self.fc2 = nn.Linear(16, 3)

    def forward(self, x):
        x = nn.functional.relu(self.conv1(x))
        x = torch.relu(self.conv2(x) + x)
        x = nn.functional.max_pool2d(x, 2)
        x = x.view(x.size(0), -1)
        return self.fc2(self.drop(self.fc1(x).relu()))


@pytest.mark.parametrize("make", [net, Residual])
def test_weights_go_back_into_the_module(make, tmp_path):
    torch.manual_seed(1)
    module = make()
    channels = 1 if make is net else 2
    x = torch.randn(300, channels, 8, 8)
    y = (x.mean(dim=(1, 2, 3)) > 0).long().numpy()
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('validation = 60\n[[phase]]\nmethod = "sparse-vd"\nepochs = 3\nbatch = 20\nlr = 1e-2\nkl_scale = 20.0\n')
    result = sparsevd.compress(module, (x.numpy(), y), recipe=recipe, example=x[:4])
    assert result.model.nonzeros < result.model.weights
    assert result.into(module) is module
    with torch.no_grad():
        got = module.eval()(x).numpy()
    np.testing.assert_allclose(got, result.model.session(threads=1)(x.numpy()), rtol=1e-3, atol=1e-4)


def test_modules_that_are_no_network():
    x = torch.randn(2, 1, 8, 8)

    class Branches(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    for module, example, error, message in [
        (nn.Sequential(nn.Linear(8, 8), nn.Softplus()), x, sparsevd.ModelError, "module `1`: .* Softplus"),
        (Branches(), x, sparsevd.ModelError, "control flow"),
        (net(), None, sparsevd.InputError, "example: expected"),
        (net(), x.double(), sparsevd.InputError, "example: expected float32"),
    ]:
        with pytest.raises(error, match=message):
            sparsevd.compress(module, (x.numpy(), np.zeros(2, int)), example=example)
    other = net()
    result = sparsevd.compress(other, example=x, sparsity=0.5)
    before = {name: t.clone() for name, t in other.state_dict().items()}
    with pytest.raises(sparsevd.ModelError, match="tensor `0.bias`: expected shape"):
        result.into(nn.Sequential(nn.Linear(2, 2)))
    assert all(torch.equal(t, before[name]) for name, t in other.state_dict().items())
