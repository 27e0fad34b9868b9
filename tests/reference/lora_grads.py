"""Loss and gradients of all LoRA factors for one batch of 1x64 tokens, with PEFT, f32.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0.
    python lora_grads.py MODEL_DIR --adapter DIR --out FILE.safetensors [--create] [--compare FILE]

--create first makes the adapter in DIR (r 16, alpha 32, all linear layers, both factors random with a
fixed seed), since the gradient of A is zero while B is. FILE gets input_ids [1, 64], loss [1] (mean over the
63 shifted labels = input_ids), and grad.<key in adapter_model.safetensors>.
--compare reads such a file written by ft and reports, over all factors, the largest difference of a
gradient relative to the largest number in it.
"""

import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from pinned import check_versions, largest_difference, load, report, tokenizer_of
from safetensors.torch import load_file, save_file

TOKENS = 64
TEXT = (
    "A river begins as rain on a high slope, gathers in a brook, and cuts its valley over ten thousand years. "
    "Farmers build their villages beside it, because the water that floods their fields in spring leaves behind "
    "the soil that feeds them in autumn. What the river takes from one bank it lays down on the other, so that "
    "no map of it stays true for long, and old bridges sometimes stand alone in the grass."
)


def create(base, folder):
    settings = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(load(base), settings)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()  # a set: its order changes from run to run
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def gradients(base, adapter):
    ids = tokenizer_of(base)(TEXT, add_special_tokens=False, return_tensors="pt").input_ids[:, :TOKENS]
    assert ids.shape[1] == TOKENS
    model = load(base, adapter, trainable=True)
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    tensors = {"input_ids": ids, "loss": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad." + name.replace(".default.", ".")] = parameter.grad
    return tensors


def compare(tensors, path):
    found = load_file(path)
    missing = sorted(set(tensors) ^ set(found))
    assert not missing, f"only in one of the two: {missing[:8]}"
    assert torch.equal(found["input_ids"].long(), tensors["input_ids"]), "the input ids differ"
    worst, where = 0.0, None
    for key in (key for key in tensors if key.startswith("grad.")):
        difference = largest_difference(found[key], tensors[key])[0] / tensors[key].abs().max().item()
        if difference > worst:
            worst, where = difference, key
    return {
        "loss_diff": abs(found["loss"].item() - tensors["loss"].item()),
        "max_relative_diff": worst,
        "in": where,
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("--adapter", type=Path, required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--create", action="store_true")
    p.add_argument("--compare", help="a file of the same form, written by ft")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    check_versions()
    torch.set_num_threads(a.threads)
    if a.create:
        create(a.model, a.adapter)
    tensors = gradients(a.model, a.adapter)
    save_file({key: value.contiguous() for key, value in tensors.items()}, a.out)
    compared = compare(tensors, a.compare) if a.compare else {}
    report(loss=tensors["loss"].item(), factors=len(tensors) - 2, **compared)


if __name__ == "__main__":
    main()
