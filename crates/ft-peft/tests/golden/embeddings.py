"""Adapters that PEFT saves together with weights of the base, and what PEFT computes with them.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python embeddings.py
Deterministic: the same versions write the same bytes.

peft_embeddings/ holds untied/ and tied/, each a one-layer Llama: config.json, model.safetensors, and adapters:

- untied/head: factors on lm_head, whose base weight PEFT saves too (`lm_head.base_layer.weight`)
- untied/resized, tied/resized: three more tokens in embedding and head, which PEFT saves by itself
- untied/trained, tied/trained: modules_to_save; the tied one with ensure_weight_tying

input_ids.safetensors: input_ids [2, 9]. logits.safetensors beside every adapter: logits [2, 9, vocabulary] of
`PeftModel.from_pretrained` on the base, which for `resized` is resized first.
"""

import copy
import shutil

import torch
from adapters import LLAMA, VOCAB
from golden_files import HERE, check_versions, load_base, randomise, save_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

check_versions()

FOLDER = HERE / "peft_embeddings"
NEW_VOCAB = VOCAB + 3
ADAPTERS = {
    "untied": {
        "head": dict(target_modules=["q_proj", "lm_head"]),
        "resized": dict(target_modules=["q_proj"]),
        "trained": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]),
    },
    "tied": {
        "resized": dict(target_modules=["q_proj"]),
        "trained": dict(target_modules=["q_proj"], modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    },
}
# The keys of every adapter's file that are not those of q_proj.
KEYS = {
    ("untied", "head"): ["lm_head.base_layer.weight", "lm_head.lora_A.weight", "lm_head.lora_B.weight"],
    **{(base, name): ["lm_head.weight", "model.embed_tokens.weight"]
       for base in ADAPTERS for name in ("resized", "trained")},
}  # fmt: skip


def write_base(name, generator):
    config = copy.deepcopy(LLAMA)
    config.num_hidden_layers = 1
    config.tie_word_embeddings = name == "tied"
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, generator)
    model.save_pretrained(FOLDER / name)
    (FOLDER / name / "generation_config.json").unlink()


def base_for(base, name):
    model = load_base(FOLDER / base)
    if name == "resized":
        model.resize_token_embeddings(NEW_VOCAB)
    return model


def write_adapter(base, name, settings, input_ids, generator):
    model = get_peft_model(base_for(base, name), LoraConfig(r=2, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            changed = "modules_to_save" in key or name == "resized" and ("embed_tokens" in key or "lm_head" in key)
            if "lora_" in key:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
            elif changed:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
        trained = model.eval()(input_ids).logits
    folder = FOLDER / base / name
    # PEFT reads the vocabulary of the base.
    save_adapter(model, folder, base, base=FOLDER / base)

    keys = load_file(folder / "adapter_model.safetensors")
    extra = sorted(key.removeprefix("base_model.model.") for key in keys if "q_proj" not in key)
    assert extra == KEYS[base, name], extra
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base_for(base, name), folder).eval()(input_ids).logits
        plain = load_base(FOLDER / base)(input_ids).logits
    torch.testing.assert_close(logits, trained)
    change = (logits[..., :VOCAB] - plain).abs().max().item()
    assert change > 0.2, f"the adapter changes the logits by {change} only"
    save_file({"logits": logits.contiguous()}, folder / "logits.safetensors")
    print(f"{base}/{name}: changes logits by up to {change:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    generator = torch.Generator().manual_seed(3)
    input_ids = torch.randint(0, VOCAB, (2, 9), generator=generator)
    for base, adapters in ADAPTERS.items():
        write_base(base, generator)
        for name, settings in adapters.items():
            # transformers draws the new rows from the global generator.
            torch.manual_seed(3)
            write_adapter(base, name, settings, input_ids, generator)
    save_file({"input_ids": input_ids}, FOLDER / "input_ids.safetensors")
