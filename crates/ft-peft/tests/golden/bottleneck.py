"""Bottleneck adapters as AdapterHub's package saves them, and what it computes with them.

torch 2.15.0, transformers 4.51.3, adapters 1.2.0, safetensors 0.8.0 (an environment of its own: the other scripts need a later
transformers). Run from anywhere: python bottleneck.py
Deterministic: the same versions write the same bytes.

The bases are those of methods/. bottleneck/BASE/CASE/ holds adapter_config.json and adapter.safetensors, and
golden.safetensors as in methods/: output, loss, and grad.<key in the adapter's file>. Noise is added to all tensors, so that
none is zero.
"""

import json
import shutil
import sys
import zlib

from golden_files import HERE, check_versions, write_json

# The script beside this one has the package's name.
sys.path.pop(0)

import adapters
import adapters.models.llama.modeling_llama as llama
import torch
from adapters import BnConfig, DoubleSeqBnConfig, ParBnConfig, SeqBnConfig
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

check_versions({"torch": "2.15.0", "transformers": "4.51.3", "adapters": "1.2.0", "safetensors": "0.8.0"})

BASES, OUT = HERE / "methods", HERE / "bottleneck"
CASES = {
    "houlsby": DoubleSeqBnConfig(reduction_factor=4),
    "pfeiffer": SeqBnConfig(reduction_factor=3),
    "parallel": ParBnConfig(),
    "attention": BnConfig(
        mh_adapter=True,
        output_adapter=False,
        reduction_factor=5.0,
        non_linearity="gelu",
        original_ln_before=True,
        scaling=0.5,
    ),
}


# Llama's attention of adapters 1.2.0 transposes heads and tokens once more than transformers 4.51.3 needs, which mixes the
# tokens up. Undone here; see the assertion in `write`.
attention = llama.eager_attention_forward


def transposed(*args, **kwargs):
    output, weights = attention(*args, **kwargs)
    return output.transpose(1, 2), weights


llama.eager_attention_forward = transposed


def load_base(name):
    kind, extra = (AutoModel, {"add_pooling_layer": False}) if name == "bert" else (AutoModelForCausalLM, {})
    model = kind.from_pretrained(BASES / name, torch_dtype=torch.float32, attn_implementation="eager", **extra)
    return model.eval()


def compute(model, inputs):
    ids = inputs["input_ids"]
    if "weights" in inputs:
        output = model(input_ids=ids).last_hidden_state
        return output, (output * inputs["weights"]).sum()
    out = model(input_ids=ids, labels=ids, use_cache=False)
    return out.logits, out.loss


def write(name, case, config):
    seed = zlib.crc32(f"{name}/{case}".encode())
    torch.manual_seed(seed)
    folder = OUT / name / case
    folder.mkdir(parents=True)
    inputs = load_file(BASES / name / "inputs.safetensors")
    model = load_base(name)
    base = compute(model, inputs)[0]
    adapters.init(model)
    torch.testing.assert_close(compute(model, inputs)[0], base)
    model.add_adapter("task", config=config)
    model.train_adapter("task")
    model.eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape))
    model.save_adapter(str(folder), "task", use_safetensors=True)
    output, loss = compute(model, inputs)
    loss.backward()
    on_disk = load_file(folder / "adapter.safetensors")
    save_file(on_disk, folder / "adapter.safetensors", {"format": "pt"})
    tensors = {"output": output, "loss": loss.reshape(1)}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert key in on_disk, key
            tensors["grad." + key] = parameter.grad
    assert len(tensors) == len(on_disk) + 2
    save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, folder / "golden.safetensors")
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    settings["model_name"] = name
    write_json(path, settings)
    for other in set(folder.iterdir()) - {path, folder / "adapter.safetensors", folder / "golden.safetensors"}:
        other.unlink()
    change = (output - base).abs().max().item()
    assert change > 0.1, change
    print(f"{name}/{case}: loss {loss.item():.4f}, changes the output by up to {change:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    for name in ("llama", "gpt2", "bert"):
        for case, config in CASES.items():
            write(name, case, config)
