"""Which types llama.cpp's quantizer gives the tensors of models: writes mixes.json.

gguf 0.19.0, llama-cpp-python 0.3.36.   Run from anywhere: python mixes.py

A list of models: architecture, blocks, queries_per_key, has_output, shapes (of tensors outside of blocks, and of a block's, outermost
dimension first) and for each mix the types of the same tensors, in a block's case one for each block.
"""

import ctypes
import importlib.metadata
import json
import os
import tempfile
from pathlib import Path

import gguf
import llama_cpp
import numpy as np

PINNED = {"gguf": "0.19.0", "llama-cpp-python": "0.3.36"}
for package, pinned in PINNED.items():
    found = importlib.metadata.version(package)
    assert found == pinned, f"{package} {found} is installed, the golden files need {pinned}"

MIXES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
         "Q5_K_M", "Q6_K"]
FTYPE = {name: getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{name}") for name in MIXES}


def model(architecture, blocks, heads, kv_heads, width=256, inner=512, output=False, only=None):
    rows = 32 * kv_heads
    separate = {"attn_q": [256, width], "attn_k": [rows, width], "attn_v": [rows, width], "attn_output": [width, 256],
                "ffn_gate": [inner, width], "ffn_up": [inner, width], "ffn_down": [width, inner]}
    fused = {"attn_qkv": [256 + 2 * rows, width], "attn_output": [width, 256], "ffn_up": [inner, width], "ffn_down": [width, inner]}
    block = separate if architecture == "llama" else fused
    top = {"token_embd.weight": [64, width]} | ({"output.weight": [64, width]} if output else {})
    top |= {"position_embd.weight": [64, width]} if architecture == "gpt2" else {}
    return dict(architecture=architecture, blocks=blocks, heads=heads, kv_heads=kv_heads, width=width, inner=inner, top=top,
                block={name: shape for name, shape in block.items() if only is None or name == only})


MODELS = [
    model("llama", 16, 8, 2),
    model("llama", 10, 3, 1, width=576, inner=1536, output=True),
    model("llama", 24, 8, 8, output=True),
    model("llama", 80, 8, 1, only="attn_v"),
    model("gpt2", 12, 8, 8),
    model("falcon", 32, 8, 1, output=True),
]


def write(path, m):
    writer = gguf.GGUFWriter(path, m["architecture"])
    writer.add_context_length(64)
    writer.add_embedding_length(m["width"])
    writer.add_block_count(m["blocks"])
    writer.add_feed_forward_length(m["inner"])
    writer.add_head_count(m["heads"])
    writer.add_head_count_kv(m["kv_heads"])
    writer.add_layer_norm_eps(1e-5)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(64)
    writer.add_file_type(1)
    shapes = dict(m["top"])
    for block in range(m["blocks"]):
        shapes |= {f"blk.{block}.{name}.weight": shape for name, shape in m["block"].items()}
    numbers = np.random.default_rng(1)
    for name, shape in shapes.items():
        # llama.cpp's converter leaves positions in 32 bits.
        kind = np.float32 if name.startswith("position") else np.float16
        writer.add_tensor(name, numbers.standard_normal(shape).astype(kind))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@llama_cpp.llama_log_callback
def silent(level, text, data):
    pass


llama_cpp.llama_log_set(silent, ctypes.c_void_p())
found = []
for m in MODELS:
    with tempfile.TemporaryDirectory() as folder:
        source, target = os.path.join(folder, "source.gguf"), os.path.join(folder, "target.gguf")
        write(source, m)
        types = {}
        for mix in MIXES:
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype, params.nthread = FTYPE[mix], 2
            assert llama_cpp.llama_model_quantize(source.encode(), target.encode(), params) == 0, mix
            of = {one.name: one.tensor_type.name for one in gguf.GGUFReader(target).tensors}
            blocks = {name: [of[f"blk.{i}.{name}.weight"] for i in range(m["blocks"])] for name in m["block"]}
            types[mix] = {"top": {name: of[name] for name in m["top"]}, "block": blocks}
    found.append({"architecture": m["architecture"], "blocks": m["blocks"], "queries_per_key": m["heads"] // m["kv_heads"],
                  "has_output": "output.weight" in m["top"], "shapes": {"top": m["top"], "block": m["block"]}, "types": types})
path = Path(__file__).with_name("mixes.json")
path.write_text("[\n" + ",\n".join(json.dumps(one) for one in found) + "\n]\n")
print(path.stat().st_size, "bytes")
