"""Fake quantization with learned scales and zero points in PyTorch: writes fake_quantize.safetensors.

torch 2.15.0, safetensors 0.8.0. Run from anywhere: python fake_quantize.py
Deterministic: the same versions write the same bytes.

weight [6, 16], in groups of 8: scale and zero_point are [6, 2], with grids that some numbers lie outside of
g [6, 16] the gradient of the output
BITS.output, BITS.d_weight, BITS.d_scale, BITS.d_zero_point for 3 and 4 bits
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

for package, pinned in {"torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

torch.manual_seed(3)
ROWS, COLS, GROUP = 6, 16, 8
weight = torch.randn(ROWS, COLS)
g = torch.randn(ROWS, COLS)
scale = 0.2 + 0.2 * torch.rand(ROWS, COLS // GROUP)
zero_point = torch.randint(1, 6, (ROWS, COLS // GROUP)).float()
tensors = {"weight": weight, "g": g, "scale": scale, "zero_point": zero_point}
for bits in (3, 4):
    w, s, z = (x.clone().requires_grad_() for x in (weight, scale, zero_point))
    out = torch._fake_quantize_learnable_per_channel_affine(
        w.reshape(-1, GROUP), s.flatten(), z.flatten(), 0, 0, 2**bits - 1, 1.0
    ).reshape(ROWS, COLS)
    out.backward(g)
    tensors |= {f"{bits}.output": out.detach(), f"{bits}.d_weight": w.grad, f"{bits}.d_scale": s.grad, f"{bits}.d_zero_point": z.grad}
save_file({name: x.contiguous() for name, x in tensors.items()}, Path(__file__).with_suffix(".safetensors"))
