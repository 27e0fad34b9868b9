"""Reads folders with packed weights that ft wrote, and compares every number with ft's.

    FT_TEST_PACKED_DIR=DIR cargo test -p ft-quant --test it a_written_folder
    python packed_folders.py DIR

bitsandbytes, hqq and compressed-tensors unpack their own weights; the layouts of GPTQ and AWQ are unpacked here, number by number, as
AutoGPTQ's and AutoAWQ's layers do. transformers loads the folders of the first two as models, except for those with zero points:
it has no place for the packed ones of compressed-tensors 0.19. Needs bitsandbytes 0.50.2,
compressed-tensors 0.19.0, hqq 0.2.8.post1, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file


def fields(words, bits, count):
    """The first `count` fields of each row of 32-bit words, lowest bits first."""
    at = torch.arange(count) * bits
    wide = words.long() & 0xFFFFFFFF
    wide = torch.cat([wide, torch.zeros(len(wide), 1, dtype=torch.long)], 1)
    both = wide[:, at // 32] | wide[:, at // 32 + 1] << 32
    # The highest bit of the upper word is never needed, since fields have at most 8 bits.
    return both >> at % 32 & 2**bits - 1


def gptq(t, settings):
    bits, out = settings["bits"], t["scales"].shape[1]
    q = fields(t["qweight"].T, bits, len(t["g_idx"]))
    zero = fields(t["qzeros"], bits, out) + (settings["checkpoint_format"] == "gptq")
    group = t["g_idx"].long()
    return (q - zero.T[:, group]).float() * t["scales"].T[:, group].float()


def awq(t, settings):
    # AutoAWQ's reverse order: which nibble has each of eight columns.
    nibbles = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])

    def unpack(words):
        q = words[..., None] >> nibbles * 4 & 15
        return q.flatten(1)

    group = torch.arange(len(t["qweight"])) // settings["group_size"]
    q, zero = unpack(t["qweight"]), unpack(t["qzeros"])
    return ((q - zero[group]).float() * t["scales"].float()[group]).T


def bitsandbytes(t, settings):
    from bitsandbytes import functional

    weight = t.pop("weight")
    state = functional.QuantState.from_dict({f"weight.{name}" if not name.startswith("weight") else name: x for name, x in t.items()},
                                            device=torch.device("cpu"))
    state.dtype = torch.float32
    return functional.dequantize_4bit(weight, state)


def hqq(t, settings):
    from hqq.core.quantize import HQQLinear

    layer = HQQLinear(None, None, device="cpu", initialize=False)
    layer.load_state_dict(t)
    layer.meta |= {name: layer.meta[name].float() for name in ["scale", "zero"]} | {"compute_dtype": torch.float32}
    return layer.dequantize()


def compressed_tensors(t, settings):
    from compressed_tensors.compressors.naive_quantized.base import IntQuantizationCompressor
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationConfig

    scheme = next(iter(QuantizationConfig.model_validate(settings).config_groups.values()))
    t["weight_scale"] = t["weight_scale"].float()
    compressor = IntQuantizationCompressor if settings["format"] == "int-quantized" else PackedQuantizationCompressor
    return compressor.decompress(t, scheme)["weight"]


READERS = {"gptq": (gptq, "qweight"), "awq": (awq, "qweight"), "bitsandbytes": (bitsandbytes, "weight.absmax"), "hqq": (hqq, "W_q"),
           "compressed-tensors": (compressed_tensors, "weight_scale")}

for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/config.json")):
    config = json.loads((folder / "config.json").read_text())
    settings, tensors = config["quantization_config"], load_file(folder / "model.safetensors")
    read, mark = READERS[settings["quant_method"]]
    expected, count = load_file(folder / "dense.safetensors"), 0
    for name in [name for name in tensors if name.endswith("." + mark)]:
        path = name[: -len(mark) - 1]
        parts = {key[len(path) + 1:]: x for key, x in tensors.items() if key.startswith(path + ".")}
        found = read(parts, settings)
        assert torch.equal(found, expected[path + ".weight"]), f"{folder.name}: {path} differs"
        count += 1
    assert count == len(expected), f"{folder.name}: {count} of {len(expected)} matrices"
    line = f"{folder.name}: {count} matrices are equal"
    if any(name.endswith((".weight_scale", ".weight.absmax")) for name in tensors) and not any("zero_point" in name for name in tensors):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", dtype=torch.float32)
        logits = model(torch.arange(0, 36, 3)[None]).logits
        assert logits.isfinite().all()
        line += ", loaded by transformers"
    print(line)
