"""What trains beside an adapter's factors, as PEFT saves it, and what PEFT computes with it.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python extras.py
Deterministic: the same versions write the same bytes.

extras/CASE/: adapter_config.json, adapter_model.safetensors, and golden.safetensors with input_ids [2, 9], logits (of an
encoder the hidden states), loss [1] (mean over the shifted labels = input_ids; of an encoder the sum of squares),
logits_merged where PEFT merges, and grad.<key in adapter_model.safetensors> of that loss for all tensors that train.
BASES has the folder of each case's base model. BitFit is no method of PEFT: its cases are computed on the base alone.
"""

import copy
import shutil
import warnings

import torch
from adapters import VOCAB
from golden_files import BERT, HERE, check_versions, load_base, save_adapter, write_json
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel

check_versions()

FOLDER = HERE / "extras"
BASES = {
    "llama": HERE / "peft_embeddings" / "untied",
    "tied": HERE / "peft_embeddings" / "tied",
    "gpt2": HERE / "peft_gpt2",
    "bert": BERT,
}


def lora(**settings):
    return LoraConfig(r=3, lora_alpha=6, **settings)


CASES = {
    "llama_modules": lora(target_modules=["q_proj"], modules_to_save=["lm_head", "mlp"]),
    "llama_embedding": lora(target_modules=["q_proj", "embed_tokens"]),
    "llama_head": lora(target_modules=["v_proj", "lm_head"]),
    "llama_tokens": lora(target_modules=["q_proj"], trainable_token_indices=[3, 50, 7]),
    "llama_tokens_of_layers": lora(target_modules=["q_proj"],
                                   trainable_token_indices={"embed_tokens": [1, 2], "lm_head": [5, 6, 96]}),
    "llama_trainable_tokens": TrainableTokensConfig(token_indices=[3, 50, 7]),
    "tied_embedding": lora(target_modules=["q_proj", "embed_tokens"]),
    "tied_tokens": lora(target_modules=["q_proj"], trainable_token_indices=[3, 50, 7]),
    "tied_trainable_tokens": TrainableTokensConfig(token_indices=[3, 50, 7]),
    "gpt2_modules": lora(target_modules=["c_attn"], modules_to_save=["wpe", "ln_f"], fan_in_fan_out=True),
    "gpt2_bias_all": lora(target_modules=["c_attn", "mlp.c_proj"], bias="all", fan_in_fan_out=True),
    "gpt2_bias_only": lora(target_modules=["c_attn", "mlp.c_proj"], bias="lora_only", fan_in_fan_out=True),
    "gpt2_lora_bias": lora(target_modules=["c_attn", "mlp.c_fc"], lora_bias=True, fan_in_fan_out=True),
    "bert_bias_all": lora(target_modules=["query", "output.dense"], bias="all"),
    "bert_embedding": lora(target_modules=["query", "word_embeddings"]),
    "bert_trainable_tokens": TrainableTokensConfig(token_indices=[3, 7], target_modules=["word_embeddings"]),
}  # fmt: skip
# Where PEFT does not merge, or merges to something else.
UNMERGED = {"tied_embedding"}


def base_of(kind):
    if kind == "bert":
        return load_base(BERT, AutoModel, add_pooling_layer=False)
    return load_base(BASES[kind])


def run(kind, model, input_ids):
    if kind == "bert":
        hidden = model(input_ids=input_ids).last_hidden_state
        return hidden, hidden.square().sum()
    out = model(input_ids=input_ids, labels=input_ids, use_cache=False)
    return out.logits, out.loss


def on_disk(name, keys):
    """The key in the file of a parameter of PEFT's model, if it is there."""
    name = name.removeprefix("base_model.model.") if not name.startswith("base_model.model.") else name
    for key in [name, name.replace(".default", ""), name.replace(".modules_to_save.default", "")]:
        if key in keys:
            return key
    return None


def write(case, config, generator):
    kind = case.split("_")[0]
    folder = FOLDER / case
    model = get_peft_model(base_of(kind), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, folder, kind, base=BASES[kind])

    input_ids = torch.randint(1, VOCAB if kind != "bert" else 61, (2, 9), generator=generator)
    # Tokens whose rows train, and the padding of the encoder.
    input_ids[0, :4] = torch.tensor([3, 1, 50 if kind != "bert" else 7, 3])
    if kind == "bert":
        input_ids[1, 7:] = 0
    loaded = PeftModel.from_pretrained(base_of(kind), folder, is_trainable=True).eval()
    logits, loss = run(kind, loaded, input_ids)
    loss.backward()
    torch.testing.assert_close(logits, run(kind, model.eval(), input_ids)[0])
    tensors = {"input_ids": input_ids, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    keys = set(load_file(folder / "adapter_model.safetensors"))
    for name, parameter in loaded.named_parameters():
        if parameter.requires_grad:
            key = on_disk(name, keys)
            assert key, f"{case}: {name} trains and is not in the file"
            tensors["grad." + key] = parameter.grad
    if case not in UNMERGED:
        merged = copy.deepcopy(loaded).merge_and_unload()
        with torch.no_grad():
            tensors["logits_merged"] = run(kind, merged, input_ids)[0]
        torch.testing.assert_close(tensors["logits_merged"], tensors["logits"], rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        change = (run(kind, base_of(kind), input_ids)[0] - logits).abs().max().item()
    assert change > 0.2, f"{case}: changes the logits by {change} only"
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    print(f"{case}: loss {loss.item():.4f}, changes logits by up to {change:.2f}; {len(keys)} keys:")
    print("   ", ", ".join(sorted(key.removeprefix("base_model.model.") for key in keys if "layers.0.self_attn" not in key)))


def write_bitfit(kind, generator):
    """Biases on the base itself; those that it lacks are zeros at the beginning."""
    folder = FOLDER / f"{kind}_bitfit"
    folder.mkdir()
    model = base_of(kind)
    head = model.get_output_embeddings() if kind != "bert" else None
    for module in model.modules():
        if isinstance(module, torch.nn.Linear) and module.bias is None and module is not head:
            module.bias = torch.nn.Parameter(torch.zeros(module.out_features))
    model.requires_grad_(False)
    adapter = {}
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):
            parameter.requires_grad_()
            with torch.no_grad():
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
            adapter["base_model.model." + name] = parameter.detach().clone()
    input_ids = torch.randint(1, VOCAB if kind != "bert" else 61, (2, 9), generator=generator)
    logits, loss = run(kind, model, input_ids)
    loss.backward()
    tensors = {"input_ids": input_ids, "logits": logits.detach(), "loss": loss.detach().reshape(1)}
    tensors["logits_merged"] = logits.detach().clone()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors["grad.base_model.model." + name] = parameter.grad
    save_file(adapter, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    save_file(tensors, folder / "golden.safetensors")
    config = {"peft_type": "BITFIT", "add_missing": True, "target_modules": ".*", "base_model_name_or_path": kind}
    write_json(folder / "adapter_config.json", config)
    print(f"{folder.name}: loss {loss.item():.4f}, {len(adapter)} biases")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for seed, (case, config) in enumerate(CASES.items()):
        torch.manual_seed(seed)
        write(case, config, torch.Generator().manual_seed(seed))
    for seed, kind in enumerate(["llama", "gpt2", "bert"]):
        write_bitfit(kind, torch.Generator().manual_seed(100 + seed))
