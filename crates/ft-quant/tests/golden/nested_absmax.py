"""Double quantization with bitsandbytes on the CPU: writes nested_absmax.safetensors.

bitsandbytes 0.50.2, torch 2.15.0, safetensors 0.8.0. Run from anywhere: python nested_absmax.py
Deterministic: the same versions write the same bytes.

absmax   [700], the largest magnitudes of as many blocks
codes    [700], nested [3], offset [1], map [256]: what they are stored as
numbers  [700], what that decodes to
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
weight = torch.randn(700, 64, generator=generator) * torch.rand(700, 1, generator=generator)
weight[5] *= 30
_, plain = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
_, state = functional.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
numbers = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
tensors = {"absmax": plain.absmax, "codes": state.absmax.flatten(), "nested": state.state2.absmax,
           "offset": state.offset.reshape(1), "map": state.state2.code, "numbers": numbers.flatten()}
save_file({name: x.contiguous() for name, x in tensors.items()}, Path(__file__).with_name("nested_absmax.safetensors"))
