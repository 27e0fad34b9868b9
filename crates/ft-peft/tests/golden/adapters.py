"""Tiny base models with LoRA adapters as PEFT saves them, and what PEFT computes with them.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python adapters.py
Deterministic: the same versions write the same bytes. (Not called peft.py: that would hide the package.)

- peft_llama/: config.json, model.safetensors (untied Llama); adapter/ (r 4, alpha 8, all seven linear
  layers) and adapter_rslora/ (the same settings with use_rslora, other factors)
- peft_gpt2/: GPT-2, whose layers are Conv1D; adapter/ on c_attn, c_proj and c_fc (fan_in_fan_out)

golden.safetensors beside the base: input_ids [2, 12], logits_base, and for `adapter`: logits,
logits_merged (merge_and_unload), loss [1] (mean over the shifted labels = input_ids), and
grad.<key in adapter_model.safetensors> of that loss for all factors. For `adapter_rslora` the same
with `rslora.` before the name. Both factors are random: with PEFT's zero B nothing would show.
"""

import copy
import shutil

import torch
from golden_files import HERE, check_versions, load_base, randomise, save_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

check_versions()

VOCAB = 97

LLAMA = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
GPT2 = GPT2Config(
    vocab_size=VOCAB, n_positions=32, n_embd=32, n_layer=2, n_head=4, n_inner=48, bos_token_id=96, eos_token_id=96
)
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def write_base(name, config, generator):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomise(model, generator)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    return folder


def write_adapter(folder, base, settings, generator):
    model = get_peft_model(load_base(base), LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, folder, base.name, save_embedding_layers=False)


def golden(base, adapter, input_ids, prefix):
    model = PeftModel.from_pretrained(load_base(base), adapter, is_trainable=True).eval()
    out = model(input_ids=input_ids, labels=input_ids, use_cache=False)
    out.loss.backward()
    tensors = {"logits": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad." + name.replace(".default.", ".")] = parameter.grad
    on_disk = {f"grad.{key}" for key in load_file(adapter / "adapter_model.safetensors")}
    assert on_disk == {key for key in tensors if key.startswith("grad.")}
    with torch.no_grad():
        merged = copy.deepcopy(model).merge_and_unload()
        tensors["logits_merged"] = merged(input_ids, use_cache=False).logits
    torch.testing.assert_close(tensors["logits_merged"], tensors["logits"], rtol=1e-4, atol=1e-4)
    return {prefix + key: value.contiguous() for key, value in tensors.items()}


def write(name, config, adapters, seed):
    generator = torch.Generator().manual_seed(seed)
    base = write_base(name, config, generator)
    input_ids = torch.randint(0, VOCAB, (2, 12), generator=generator)
    with torch.no_grad():
        tensors = {"input_ids": input_ids, "logits_base": load_base(base)(input_ids, use_cache=False).logits}
    for folder, prefix, settings in adapters:
        write_adapter(base / folder, base, settings, generator)
        tensors |= golden(base, base / folder, input_ids, prefix)
        change = (tensors[prefix + "logits"] - tensors["logits_base"]).abs().max().item()
        assert change > 0.5, f"the adapter changes the logits by {change} only"
        print(f"{name}/{folder}: loss {tensors[prefix + 'loss'].item():.4f}, changes logits by up to {change:.2f}")
    save_file(tensors, base / "golden.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    plain = {"target_modules": ALL_LINEAR}
    write(
        "peft_llama",
        LLAMA,
        [("adapter", "", plain), ("adapter_rslora", "rslora.", plain | {"use_rslora": True})],
        seed=1,
    )
    gpt2 = {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}
    write("peft_gpt2", GPT2, [("adapter", "", gpt2)], seed=2)
