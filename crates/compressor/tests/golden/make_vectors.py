#!/usr/bin/env python3
"""Golden vectors (float64 autograd, stored as float32): python make_vectors.py vectors.safetensors (torch, numpy, safetensors).
kl.*    : log_alpha grid -> KL per weight and dKL/dlog_alpha; exact KL by quadrature for comparison
dense.* : x, theta, log_sigma2, bias, eps (the noise, given), upstream g -> y and all gradients
conv.*  : the same for a 5x5 valid convolution
adam.*  : three Adam steps (lr 1e-3, betas 0.9/0.999, eps 1e-8) on a known gradient sequence
"""
import sys
import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

K1, K2, K3, EPS = 0.63576, 1.87320, 1.48695, 1e-8
torch.manual_seed(0)
d = torch.float64
out = {}

la = torch.linspace(-10, 10, 81, dtype=d).requires_grad_()
kl = -(K1 * torch.sigmoid(K2 + K3 * la) - 0.5 * F.softplus(-la) - K1)
g, = torch.autograd.grad(kl.sum(), la)
out["kl.log_alpha"], out["kl.value"], out["kl.grad"] = la.detach(), kl.detach(), g
# exact: -KL = 0.5*la - E log|1 + sqrt(alpha) e| + C ; C makes KL -> 0 as alpha -> inf: C = E log|e|
e = np.linspace(-12, 12, 4_000_001) + 1.7e-7
w = np.exp(-0.5 * e * e) / np.sqrt(2 * np.pi) * (e[1] - e[0])
C = (w * np.log(np.abs(e))).sum()
ex = [-(0.5 * l - (w * np.log(np.abs(1 + np.exp(0.5 * l) * e))).sum() + C) for l in la.detach().numpy()]
out["kl.exact"] = torch.tensor(ex, dtype=d)
print("max |approx - exact| over [-10,10]:", float((out["kl.value"] - out["kl.exact"]).abs().max()))


def case(p, x, W, s, b, lin):
    for t in (x, W, s, b): t.requires_grad_()
    mu = lin(x, W, b); v = lin(x * x, torch.exp(s), None)
    eps = torch.randn_like(mu); y = mu + torch.sqrt(v + EPS) * eps
    up = torch.randn_like(y)
    gr = torch.autograd.grad((y * up).sum(), (x, W, s, b))
    lal = (s - torch.log(W * W + EPS)).clamp(-8, 8)
    klt = -(K1 * torch.sigmoid(K2 + K3 * lal) - 0.5 * F.softplus(-lal) - K1)
    gk = torch.autograd.grad(klt.sum(), (W, s))
    for n, t in zip(("x", "theta", "log_sigma2", "bias", "eps", "y", "upstream", "g_x", "g_theta", "g_log_sigma2", "g_bias",
                     "kl_sum", "kl_g_theta", "kl_g_log_sigma2"),
                    (x, W, s, b, eps, y, up, *gr, klt.sum().reshape(1), *gk)):
        out[p + "." + n] = t.detach()


r = lambda *s: torch.randn(*s, dtype=d)
case("dense", r(7, 13), 0.3 * r(5, 13), -4 + 2 * r(5, 13), r(5), F.linear)
case("conv", r(3, 2, 9, 9), 0.2 * r(4, 2, 5, 5), -5 + 2 * r(4, 2, 5, 5), r(4), F.conv2d)
p = torch.nn.Parameter(r(6)); o = torch.optim.Adam([p], lr=1e-3)
out["adam.p0"] = p.detach().clone()
for k in range(3):
    p.grad = r(6); out["adam.g%d" % k] = p.grad.clone(); o.step(); out["adam.p%d" % (k + 1)] = p.detach().clone()
save_file({k: v.float().contiguous() for k, v in out.items()}, sys.argv[1])
