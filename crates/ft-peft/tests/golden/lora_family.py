"""LoRA's relatives as PEFT saves them, and what PEFT computes with them: DoRA, PiSSA, OLoRA, other initialisations.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python lora_family.py
The bases are those of adapters.py (peft_llama, peft_gpt2) and ft-core's tiny BERT.

lora_family/CASE/: adapter_config.json and adapter_model.safetensors as PEFT writes them, and golden.safetensors with
input_ids [2, 12], logits, logits_merged (merge_and_unload), loss [1] and grad.<key in adapter_model.safetensors> of that
loss. Of BERT the last hidden states stand for the logits, and the mean of their squares for the loss.

lora_family/beside.safetensors: logits and logits_merged of peft_llama with its plain adapter and dora_llama both active.
lora_family/selection.json: names that PEFT chooses for settings of target_modules and its relatives.
"""

import copy
import json
import shutil

import torch
from golden_files import BERT, HERE, check_versions, load_base, save_adapter
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM

check_versions()

OUT = HERE / "lora_family"
ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SOME = ["q_proj", "v_proj", "down_proj"]
GPT2 = ["c_attn", "c_proj", "c_fc"]


def base_of(folder):
    return load_base(folder, AutoModel if folder == BERT else AutoModelForCausalLM)


def outputs(model, input_ids):
    """The logits and a loss; of an encoder its hidden states and the mean of their squares."""
    if hasattr(model, "lm_head"):
        out = model(input_ids=input_ids, labels=input_ids, use_cache=False)
        return out.logits, out.loss
    hidden = model(input_ids=input_ids).last_hidden_state
    # The final norm makes the mean of all squares a constant.
    return hidden, (hidden * torch.linspace(-1, 1, hidden.numel()).reshape(hidden.shape)).pow(2).mean()


def write_adapter(folder, base, settings, generator):
    settings = {"r": 4, "lora_alpha": 8} | settings
    if base != BERT:
        settings["task_type"] = "CAUSAL_LM"
    torch.manual_seed(0)
    model = get_peft_model(base_of(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) if "lora_" in name else None
            if "lora_magnitude" in name:
                parameter.mul_(1 + 0.2 * noise)
            elif noise is not None:
                parameter.add_(0.2 * noise)
    save_adapter(model, folder, base.name, save_embedding_layers=False)


def golden(base, adapter, input_ids):
    model = PeftModel.from_pretrained(base_of(base), adapter, is_trainable=True).eval()
    logits, loss = outputs(model.base_model.model, input_ids)
    loss.backward()
    tensors = {"input_ids": input_ids, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            name = name.replace(".default.", ".").replace("magnitude_vector.weight", "magnitude_vector")
            tensors["grad." + name] = parameter.grad
    on_disk = {f"grad.{key}" for key in load_file(adapter / "adapter_model.safetensors")}
    trained = {key for key in tensors if key.startswith("grad.")}
    assert trained <= on_disk, trained - on_disk
    with torch.no_grad():
        merged = copy.deepcopy(model).merge_and_unload()
        tensors["logits_merged"] = outputs(merged, input_ids)[0]
    torch.testing.assert_close(tensors["logits_merged"], tensors["logits"], rtol=1e-4, atol=1e-4)
    return {key: value.contiguous() for key, value in tensors.items()}


def case(name, base, settings, seed):
    base = BERT if base == "bert" else HERE / base
    generator = torch.Generator().manual_seed(seed)
    folder = OUT / name
    input_ids = torch.randint(0, base_of(base).config.vocab_size, (2, 12), generator=generator)
    write_adapter(folder, base, settings, generator)
    tensors = golden(base, folder, input_ids)
    save_file(tensors, folder / "golden.safetensors")
    with torch.no_grad():
        change = (tensors["logits"] - outputs(base_of(base), input_ids)[0]).abs().max().item()
    assert change > 0.1, f"the adapter changes the output by {change} only"
    print(f"{name}: loss {tensors['loss'].item():.4f}, changes the output by up to {change:.2f}")


def beside():
    """A plain adapter and DoRA on the same layers."""
    input_ids = load_file(OUT / "dora_llama/golden.safetensors")["input_ids"]
    model = PeftModel.from_pretrained(base_of(HERE / "peft_llama"), HERE / "peft_llama/adapter", "plain")
    model.load_adapter(OUT / "dora_llama", "dora")
    tensors = {}
    for order in (["plain", "dora"], ["dora", "plain"]):
        model.base_model.set_adapter(order)
        model.eval()
        with torch.no_grad():
            name = "_".join(order)
            tensors[name] = model(input_ids, use_cache=False).logits
            merged = copy.deepcopy(model).merge_and_unload()
            merged = merged(input_ids, use_cache=False).logits
        torch.testing.assert_close(merged, tensors[name], rtol=1e-4, atol=1e-4)
    save_file(tensors, OUT / "beside.safetensors")


def selections():
    cases = [
        ("peft_llama", {"target_modules": ["q_proj", "mlp.up_proj"]}),
        ("peft_llama", {"target_modules": "all-linear"}),
        ("peft_llama", {"target_modules": "all-linear", "exclude_modules": ["o_proj", "down_proj"]}),
        ("peft_llama", {"target_modules": r".*\.1\..*(q|k)_proj|lm_head"}),
        ("peft_llama", {"target_modules": ["q_proj", "v_proj"], "layers_to_transform": 1}),
        ("peft_llama", {"target_modules": ["q_proj", "up_proj"], "layers_to_transform": [0], "layers_pattern": "layers"}),
        ("peft_llama", {"target_modules": ["q_proj", "v_proj"], "exclude_modules": r".*layers\.0\..*"}),
        ("peft_llama", {"target_modules": ["lm_head", "o_proj"], "layers_to_transform": [0, 1]}),
        ("peft_llama", {"target_modules": ["model.layers.0.self_attn.q_proj", "k_proj"], "layers_to_transform": [1]}),
        ("peft_gpt2", {"target_modules": ["c_proj"], "layers_to_transform": [1], "layers_pattern": ["h"]}),
        ("peft_gpt2", {"target_modules": ["c_attn", "mlp.c_proj"], "exclude_modules": ["h.1.attn.c_attn"]}),
    ]
    found = []
    for base, settings in cases:
        model = get_peft_model(base_of(HERE / base), LoraConfig(**settings))
        names = [name.removeprefix("base_model.model.") for name, module in model.named_modules() if hasattr(module, "lora_A")]
        found.append({"base": base, "settings": settings, "chosen": sorted(names)})
    (OUT / "selection.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    dora = {"use_dora": True}
    conv = {"target_modules": GPT2, "fan_in_fan_out": True}
    case("dora_llama", "peft_llama", dora | {"target_modules": ALL_LINEAR}, 1)
    case("dora_gpt2", "peft_gpt2", dora | conv, 2)
    case("dora_bert", "bert", dora | {"target_modules": ["query", "value", "output.dense"]}, 3)
    patterns = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.down_proj": 3}, "use_rslora": True}
    case("dora_patterns", "peft_llama", dora | patterns | {"target_modules": SOME}, 4)
    case("pissa_llama", "peft_llama", {"init_lora_weights": "pissa", "target_modules": ALL_LINEAR}, 5)
    case("pissa_gpt2", "peft_gpt2", {"init_lora_weights": "pissa"} | conv, 6)
    case("pissa_dora", "peft_llama", dora | patterns | {"init_lora_weights": "pissa", "target_modules": SOME}, 7)
    case("olora_llama", "peft_llama", {"init_lora_weights": "olora", "target_modules": SOME}, 8)
    case("orthogonal_llama", "peft_llama", {"init_lora_weights": "orthogonal", "target_modules": SOME}, 9)
    case("mica_llama", "peft_llama", {"init_lora_weights": "mica", "target_modules": SOME}, 10)
    case("random_llama", "peft_llama", {"init_lora_weights": False, "target_modules": SOME}, 11)
    beside()
    selections()
