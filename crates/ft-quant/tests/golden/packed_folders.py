"""Small Llamas with packed weights, as GPTQ, AWQ, bitsandbytes, HQQ and compressed-tensors have them: writes packed/NAME/.

bitsandbytes 0.50.2, compressed-tensors 0.19.0, hqq 0.2.8.post1, torch 2.15.0, transformers 5.23.0, safetensors 0.8.0.
Run from anywhere: python packed_folders.py [NAME ...]   Deterministic: the same versions write the same bytes.

bitsandbytes, hqq and compressed-tensors pack their own weights. GPTQ's and AWQ's layouts are packed here, number by number, as
AutoGPTQ's `QuantLinear.pack` and AutoAWQ's `WQLinear_GEMM.from_linear` do.

NAME/config.json, model.safetensors   the folder
NAME/expected.safetensors             logits [1, 12, vocab] in f32 of the dequantized model for the ids 0, 3, 6, ...; the
                                      dequantized k_proj
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

PINNED = {"bitsandbytes": "0.50.2", "compressed-tensors": "0.19.0", "hqq": "0.2.8.post1", "torch": "2.15.0", "transformers": "5.23.0", "safetensors": "0.8.0"}
for package, pinned in PINNED.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden files need {pinned}"

torch.set_num_threads(1)
FOLDER = Path(__file__).with_name("packed")
SIZES = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
             vocab_size=40, max_position_embeddings=64, tie_word_embeddings=False)


def model():
    torch.manual_seed(1)
    made = LlamaForCausalLM(LlamaConfig(**SIZES, initializer_range=0.2)).float().eval()
    # Numbers of 16 bits, since that is what the folders have.
    made.load_state_dict({name: x.half().float() for name, x in made.state_dict().items()})
    return made


def grid(w, bits, group, symmetric, lowest=1):
    """Integers, scales of 16 bits and integer zero points from `lowest`, of `w` [out, in]."""
    out, cols = w.shape
    top, parts = 2**bits - 1, w.reshape(out, -1, group)
    low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
    if symmetric:
        high = torch.maximum(high, -low)
        low = -high
    scale = ((high - low) / top).half().float()
    zero = torch.full_like(scale, 2 ** (bits - 1)) if symmetric else (-low / scale).round().clamp(lowest, top)
    q = ((parts / scale[..., None]).round() + zero[..., None]).clamp(0, top)
    return q.reshape(out, cols).to(torch.int64), scale, zero.to(torch.int64)


def dense(q, scale, zero, group_of):
    return (q - zero[:, group_of]).float() * scale[:, group_of]


def words(fields, bits):
    """Fields [n, k] as 32-bit words [ceil(n·bits/32), k], lowest bits first along n."""
    count = -(-len(fields) * bits // 32)
    packed = np.zeros((count, fields.shape[1]), dtype=np.uint64)
    for i, row in enumerate(fields.numpy().astype(np.uint64)):
        at = i * bits
        packed[at // 32] |= row << np.uint64(at % 32) & np.uint64(0xFFFFFFFF)
        if at % 32 + bits > 32:
            packed[at // 32 + 1] |= row >> np.uint64(32 - at % 32)
    return torch.from_numpy(packed.astype(np.uint32).view(np.int32))


def gptq(w, bits=4, group=32, symmetric=False, version=1, order=None):
    """`order` are the columns in the order in which they were rounded; groups are neighbours in that order."""
    cols = w.shape[1]
    if version == 2:
        # A group without negative numbers has a zero point of 0, which version 1 does not have.
        w = w.clone()
        w[0, :group] = w[0, :group].abs()
    order = torch.arange(cols) if order is None else order
    q, scale, zero = grid(w[:, order], bits, group, symmetric, lowest=2 - version)
    back = order.argsort()
    q, g_idx = q[:, back], (torch.arange(cols) // group)[back]
    tensors = {"qweight": words(q.T, bits), "qzeros": words(zero - int(version == 1), bits).T, "scales": scale.T.half(),
               "g_idx": g_idx.int()}
    return tensors, dense(q, scale, zero, g_idx)


def awq(w, group=32):
    q, scale, zero = grid(w, 4, group, False, lowest=0)

    def pack(fields):  # [k, out] -> [k, out/8]
        packed = np.zeros((fields.shape[0], fields.shape[1] // 8), dtype=np.uint32)
        for col in range(packed.shape[1]):
            for i, column in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
                packed[:, col] |= fields[:, col * 8 + column].numpy().astype(np.uint32) << np.uint32(i * 4)
        return torch.from_numpy(packed.view(np.int32))

    tensors = {"qweight": pack(q.T), "qzeros": pack(zero.T), "scales": scale.T.half()}
    return tensors, dense(q, scale, zero, torch.arange(w.shape[1]) // group)


def bitsandbytes(w, kind="nf4", double=False, block=64):
    from bitsandbytes import functional

    codes, state = functional.quantize_4bit(w.half(), blocksize=block, quant_type=kind, compress_statistics=double)
    tensors = {"weight": codes} | {f"weight.{name}": x for name, x in state.as_dict(packed=True).items()}
    state.dtype = torch.float32
    return tensors, functional.dequantize_4bit(codes, state)


def bitsandbytes_8(w):
    scale = w.abs().amax(1)
    q = (w * (127 / scale)[:, None]).round().to(torch.int8)
    return {"weight": q, "SCB": scale, "weight_format": torch.tensor(0, dtype=torch.uint8)}, q.float() * (scale / 127)[:, None]


def hqq(w, bits=4, group=32):
    from hqq.core.quantize import HQQLinear, hqq_base_quant_config

    config = hqq_base_quant_config(nbits=bits, group_size=group, axis=1)
    config["weight_quant_params"]["round_zero"] = False
    layer = HQQLinear.from_weights(w.clone(), None, config, compute_dtype=torch.float16, device="cpu")
    state = {name: x.data for name, x in layer.state_dict().items() if x is not None}
    layer.meta |= {name: layer.meta[name].float() for name in ["scale", "zero"]} | {"compute_dtype": torch.float32}
    return state, layer.dequantize()


def hqq_config(bits=4, group=32):
    weights = {"nbits": bits, "channel_wise": True, "group_size": group, "optimize": True, "round_zero": False, "axis": 1,
               "view_as_float": False}
    return {"quant_method": "hqq", "skip_modules": ["lm_head"], "quant_config": {
        "weight_quant_params": weights, "scale_quant_params": None, "zero_quant_params": None, "offload_meta": False}}


def compressed(w, bits=4, group=32, symmetric=False):
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=symmetric, **strategy)
    _, scale, zero = grid(w, bits, group or w.shape[1], symmetric, lowest=0)
    state = {"weight": w, "weight_scale": scale}
    if not symmetric:
        state["weight_zero_point"] = (zero - 2 ** (bits - 1)).to(torch.int8)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    packed = PackedQuantizationCompressor.compress(state, scheme)
    back = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
    packed["weight_scale"] = packed["weight_scale"].half()
    return packed, back


def compressed_config(bits=4, group=32, symmetric=False):
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel", "group_size": None}
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, **strategy}
    return {"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}}


W8A8 = {"weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"},
        "input_activations": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}}


def int_quantized(w):
    from compressed_tensors.compressors.naive_quantized.base import IntQuantizationCompressor
    from compressed_tensors.quantization import QuantizationScheme

    scheme = QuantizationScheme(targets=["Linear"], **W8A8)
    _, scale, _ = grid(w, 8, w.shape[1], True)
    packed = IntQuantizationCompressor.compress({"weight": w, "weight_scale": scale}, scheme)
    back = IntQuantizationCompressor.decompress(packed, scheme)["weight"]
    packed["weight_scale"] = packed["weight_scale"].half()
    return packed, back


def int_quantized_config():
    return {"quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], **W8A8}}}


def gptq_config(bits=4, group=32, symmetric=False, **others):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": False, **others}


def shuffled(w):
    return torch.randperm(w.shape[1], generator=torch.Generator().manual_seed(w.shape[0]))


BNB = {"quant_method": "bitsandbytes", "load_in_4bit": True}
CASES = {
    "gptq": (gptq, gptq_config(checkpoint_format="gptq")),
    "gptq_v2": (lambda w: gptq(w, version=2), gptq_config(checkpoint_format="gptq_v2")),
    "gptq_desc_act": (lambda w: gptq(w, order=shuffled(w)), gptq_config(desc_act=True)),
    "gptq_3": (lambda w: gptq(w, bits=3, group=64), gptq_config(bits=3, group=64)),
    "gptq_8": (lambda w: gptq(w, bits=8, symmetric=True), gptq_config(bits=8, symmetric=True)),
    "awq": (awq, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}),
    "nf4": (bitsandbytes, BNB | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": False}),
    "nf4_nested": (lambda w: bitsandbytes(w, double=True), BNB | {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}),
    "fp4": (lambda w: bitsandbytes(w, "fp4", block=128), BNB | {"bnb_4bit_quant_type": "fp4"}),
    "bnb_8": (bitsandbytes_8, {"quant_method": "bitsandbytes", "load_in_8bit": True}),
    "hqq": (hqq, hqq_config()),
    "hqq_3": (lambda w: hqq(w, 3, 64), hqq_config(3, 64)),
    "pack_quantized": (compressed, compressed_config()),
    "pack_quantized_8": (lambda w: compressed(w, 8, None, True), compressed_config(8, None, True)),
    "int_quantized": (int_quantized, int_quantized_config()),
}

for name in sys.argv[1:] or CASES:
    pack, settings = CASES[name]
    made, tensors, expected = model(), {}, {}
    for path, module in made.named_modules():
        if isinstance(module, torch.nn.Linear) and path != "lm_head":
            packed, weight = pack(module.weight.data)
            tensors |= {f"{path}.{end}": x.contiguous().clone() for end, x in packed.items()}
            if name == "gptq" and path.endswith("q_proj"):
                # AutoGPTQ adds a bias of zeros.
                tensors[f"{path}.bias"] = torch.zeros(len(weight), dtype=torch.float16)
            module.weight.data = weight.float().clone()
            if path.endswith("k_proj"):
                expected["k_proj"] = module.weight.data
        elif path:
            tensors |= {f"{path}.{end}": x.half() for end, x in module.named_parameters(recurse=False)}
    with torch.no_grad():
        expected["logits"] = made(torch.arange(0, 36, 3)[None]).logits
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads(made.config.to_json_string(use_diff=False))
    config = {key: config[key] for key in [*SIZES, "model_type", "rms_norm_eps", "hidden_act", "bos_token_id", "eos_token_id"]}
    config |= {"architectures": ["LlamaForCausalLM"], "rope_theta": 10000.0, "quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_file(expected, folder / "expected.safetensors")
    print(name, sum(x.numel() * x.element_size() for x in tensors.values()))
