"""Makes the golden files of `sparse-bitmask`: a network as compressed-tensors writes it, and its dense tensors.

    pip install torch transformers 'compressed-tensors==0.14.0'
    python make.py
"""

import torch
from compressed_tensors.compressors.sparse_compressors.sparse_bitmask import BitmaskCompressor
from compressed_tensors.config import BitmaskConfig
from safetensors.torch import save_file

torch.manual_seed(1)


def weights(*shape, density=0.3):
    return torch.randn(*shape) * (torch.rand(*shape) < density)


dense = {
    "conv.weight": weights(4, 2, 3, 3),
    "conv.bias": torch.randn(4),
    "norm.weight": torch.tensor([1.0, 0.0, 0.5, 2.0]),
    "norm.bias": torch.randn(4),
    "norm.running_mean": torch.randn(4),
    "norm.running_var": torch.rand(4) + 0.5,
    "fc.weight": weights(5, 16).to(torch.bfloat16),
    "fc.bias": torch.randn(5),
}
dense["fc.weight"][3] = 0.0
compressor = BitmaskCompressor(config=BitmaskConfig(format="sparse-bitmask"))
save_file(compressor.compress(dense), "model.safetensors", {"format": "pt"})
save_file(dense, "dense.safetensors", {"format": "pt"})
