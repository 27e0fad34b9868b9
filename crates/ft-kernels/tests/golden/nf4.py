"""NF4 and FP4 with bitsandbytes on the CPU: writes nf4.safetensors.

bitsandbytes 0.50.2, torch 2.15.0, safetensors 0.8.0. Run from anywhere: python nf4.py
Deterministic: the same versions write the same bytes.

x              [10, 256]
FORMAT.packed  [10·128], two numbers a byte, the first in the high half
FORMAT.absmax  [40], the largest magnitude of every 64 numbers
FORMAT.numbers [10, 256], what they decode to
"""

import importlib.metadata
from pathlib import Path

import torch
from bitsandbytes import functional
from safetensors.torch import save_file

for package, pinned in {"bitsandbytes": "0.50.2", "torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(3)
normal = torch.randn(5, 256, generator=generator)
outlier = torch.zeros(256)
outlier[100] = -3.0
x = torch.stack([
    0.02 * normal[0],
    normal[1] ** 3,
    torch.zeros(256),
    outlier,
    1e-30 * normal[2],
    torch.full((256,), 0.3),
    normal[3].abs() + 1,
    (8 * normal[4]).round() / 8,
    1e6 * normal[0],
    torch.linspace(-1, 1, 256),
])
tensors = {"x": x}
for kind in ("nf4", "fp4"):
    packed, state = functional.quantize_4bit(x, blocksize=64, quant_type=kind)
    numbers = functional.dequantize_4bit(packed, state)
    name = kind.upper()
    tensors |= {f"{name}.packed": packed.flatten(), f"{name}.absmax": state.absmax, f"{name}.numbers": numbers}
save_file({name: x.contiguous() for name, x in tensors.items()}, Path(__file__).with_name("nf4.safetensors"))
