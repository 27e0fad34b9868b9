"""The maps, codes and steps of bitsandbytes' 8-bit AdamW on a CPU.

torch 2.15.0, safetensors 0.8.0, bitsandbytes 0.50.2; run here: python adamw_8bit.py
Quantization is that of the "default" backend, which takes the nearest code, as on a GPU; the compiled
one for CPUs takes a neighbour of it for small numbers.
"""
import bitsandbytes.backends.cpu.ops as cpu
import bitsandbytes.functional as F
import torch
from safetensors.torch import save_file

QUANTIZE = torch.ops.bitsandbytes.quantize_blockwise.default
DEFAULT = torch._C.DispatchKey.CompositeExplicitAutograd


def quantize(x, code):
    return QUANTIZE._op_dk(DEFAULT, x, code, 256)


def requantize(x, code, absmax, out, blocksize):
    codes, maxima = quantize(x, code)
    out.copy_(codes)
    absmax.copy_(maxima)


cpu._quant_blockwise_fp32_direct = requantize

torch.manual_seed(0)
maps = {"signed": F.create_dynamic_map(True), "unsigned": F.create_dynamic_map(False)}
golden = {f"{name}.map": values for name, values in maps.items()}

# Numbers of all sizes, a block of zeros, and a last block that is not full.
x = torch.randn(1100) * 10 ** (-8 * torch.rand(1100))
x[256:512] = 0
golden["x"] = x
for name, values in maps.items():
    codes, absmax = quantize(x if name == "signed" else x.abs(), values)
    golden |= {f"{name}.codes": codes, f"{name}.absmax": absmax}
    golden[f"{name}.x"] = torch.ops.bitsandbytes.dequantize_blockwise(codes, absmax, values, 256, torch.float32)

# Gradients of one size within a block: no second moment is rounded to 0, where ft differs on purpose.
NUMBERS, STEPS = 4099, 4
blocks = -(-NUMBERS // 256)
size = 10 ** torch.linspace(-4, 1, blocks).repeat_interleave(256)[:NUMBERS]
param = torch.randn(NUMBERS)
gradients = torch.randn(STEPS, NUMBERS).sign() * (0.1 + torch.rand(STEPS, NUMBERS)) * size
golden |= {"param.0": param.clone(), "gradients": gradients}
codes = [torch.zeros(NUMBERS, dtype=torch.uint8) for _ in range(2)]
absmax = [torch.zeros(blocks) for _ in range(2)]
for step in range(STEPS):
    cpu._optimizer_update_8bit_blockwise_cpu(
        "adam", gradients[step], param, codes[0], codes[1], 0.9, 0.999, 0.0, 0.0, 1e-8, step + 1, 0.01,
        maps["signed"], maps["unsigned"], absmax[0], absmax[1], 0.1, 0.5,
    )
    assert (codes[1] > 0).all()
golden["param"] = param
for name, codes, absmax in zip(("first", "second"), codes, absmax):
    golden |= {f"{name}.codes": codes, f"{name}.absmax": absmax}
save_file(golden, "adamw_8bit.safetensors")
print({name: list(value.shape) for name, value in golden.items()})
