"""Tiny base models, and for each method of PEFT adapters as it saves them with what it computes with them.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python methods.py [CASE ...]
Deterministic: the same versions write the same bytes. With names of cases (lora, llama/lora) only these are written; the
bases never change.

methods/BASE/ holds a base (llama with grouped heads, gpt2 whose layers are Conv1D, bert): config.json,
model.safetensors, and inputs.safetensors: input_ids [2, 7], and for bert weights [2, 7, width].

methods/BASE/CASE/ holds adapter_config.json and adapter_model.safetensors, and golden.safetensors: output (logits; bert: last
hidden states), loss [1] (mean over the shifted labels = input_ids; bert: the sum of output times weights), grad.<key in the
adapter's file> for every tensor that trains, and merged: the output after merge_and_unload. Noise is added to all tensors that
train, so that none is zero.

To add a case, add a line to CASES.
"""

import copy
import shutil
import sys
import warnings
import zlib

import peft
import torch
from golden_files import HERE, check_versions, load_base, randomise, save_adapter
from peft import PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig
from transformers.utils.logging import disable_progress_bar

check_versions()

FOLDER = HERE / "methods"
VOCAB = 40

BASES = {
    "llama": LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_positions=16, n_embd=16, n_layer=2, n_head=4, n_inner=24, bos_token_id=1, eos_token_id=2
    ),
    "bert": BertConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=24,
        max_position_embeddings=16,
    ),
}

# All linear layers of a base but the output layer.
ALL = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "gpt2": ["c_attn", "c_proj", "c_fc"],
    "bert": ["query", "key", "value", "dense"],
}
ATTENTION = {"llama": ["q_proj", "v_proj"], "gpt2": ["c_attn"], "bert": ["query", "value"]}

# (name, PEFT's class of settings, bases, settings). Without target_modules: all linear layers; None: PEFT's default.
EVERY = ("llama", "gpt2", "bert")
LINEAR = ("llama", "bert")
CASES = [
    ("lora", "LoraConfig", EVERY, dict(r=4, lora_alpha=8)),
    ("lora_rslora", "LoraConfig", EVERY, dict(r=4, use_rslora=True, rank_pattern={"v_proj|c_fc|value": 2}, alpha_pattern={"q_proj|c_attn|query": 3})),
    ("ia3", "IA3Config", EVERY, dict(target_modules=None)),
    ("ia3_outputs", "IA3Config", EVERY, dict(feedforward_modules=[], init_ia3_weights=False)),
    ("ia3_inputs", "IA3Config", LINEAR, dict(feedforward_modules=["up_proj", "o_proj", "dense"], target_modules=["up_proj", "o_proj", "k_proj", "dense", "value"])),
    ("ln_tuning", "LNTuningConfig", ("llama", "gpt2"), dict(target_modules=None)),
    ("ln_tuning_some", "LNTuningConfig", EVERY, dict(target_modules=["norm", "input_layernorm", "ln_2", "LayerNorm"])),
    ("vera", "VeraConfig", EVERY, dict(r=8)),
    ("vera_unsaved", "VeraConfig", EVERY, dict(r=5, projection_prng_key=1 << 40 | 9, save_projection=False, d_initial=0.3, target_modules=ATTENTION)),
    ("loha", "LoHaConfig", LINEAR, dict(r=2)),
    ("loha_ranks", "LoHaConfig", LINEAR, dict(r=5, alpha=3, rank_pattern={"q_proj|query": 2}, alpha_pattern={"up_proj|value": 7}, init_weights=False)),
    ("lokr", "LoKrConfig", LINEAR, dict(r=2, alpha=4)),
    ("lokr_whole", "LoKrConfig", LINEAR, dict(r=8, init_weights="lycoris")),
    ("lokr_both", "LoKrConfig", LINEAR, dict(r=1, alpha=2, decompose_both=True, decompose_factor=4, rank_pattern={"up_proj|key": 2})),
    ("fourierft", "FourierFTConfig", EVERY, dict(n_frequency=40, target_modules=ATTENTION)),
    ("fourierft_pattern", "FourierFTConfig", EVERY, dict(n_frequency=9, scaling=60.0, random_loc_seed=5, init_weights=True, n_frequency_pattern={"down_proj": 256, "mlp.c_proj": 3, "key": 256})),
    ("miss", "MissConfig", LINEAR, dict(r=4)),
    ("miss_padded", "MissConfig", LINEAR, dict(r=5, init_weights=False)),
    ("miss_bat", "MissConfig", LINEAR, dict(r=4, init_weights="bat")),
    ("miss_mini", "MissConfig", LINEAR, dict(r=6, init_weights="mini", mini_r=4)),
    ("oft", "OFTConfig", LINEAR, dict(oft_block_size=4)),
    ("oft_exact", "OFTConfig", LINEAR, dict(r=2, oft_block_size=0, use_cayley_neumann=False)),
    ("oft_shared", "OFTConfig", LINEAR, dict(oft_block_size=7, block_share=True, num_cayley_neumann_terms=3)),
    ("oft_coft", "OFTConfig", LINEAR, dict(oft_block_size=8, coft=True, eps=0.7, num_cayley_neumann_terms=8)),
    ("boft", "BOFTConfig", LINEAR, dict()),
    ("boft_butterfly", "BOFTConfig", LINEAR, dict(boft_block_size=0, boft_block_num=4, boft_n_butterfly_factor=3, init_weights=False)),
    ("hra", "HRAConfig", LINEAR, dict(r=4)),
    ("hra_gram_schmidt", "HRAConfig", LINEAR, dict(r=3, apply_GS=True)),
    # The orthogonality is no part of the function.
    ("adalora", "AdaLoraConfig", EVERY, dict(init_r=4, target_r=2, total_step=10, lora_alpha=6, orth_reg_weight=0.0)),
]  # fmt: skip


class BlockDiagonal:
    """What PEFT's CUDA extension for BOFT does. Without it, PEFT makes one butterfly factor, whatever the settings say."""

    @staticmethod
    def forward(blocks):
        return [torch.stack([torch.block_diag(*factor) for factor in blocks])]

    @staticmethod
    def backward(grad, blocks):
        size = blocks.shape[-1]
        starts = range(0, grad.shape[-1], size)
        return [torch.stack([grad[:, i : i + size, i : i + size] for i in starts], dim=1)]


peft.tuners.boft.layer.get_fbd_cuda = lambda: BlockDiagonal


def class_of(name):
    """The class of a base, and its settings: BERT's pooler is no part of the encoder."""
    return (AutoModel, {"add_pooling_layer": False}) if name == "bert" else (AutoModelForCausalLM, {})


def base_of(name):
    kind, extra = class_of(name)
    return load_base(FOLDER / name, kind, **extra)


def write_base(name):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    config, folder = BASES[name], FOLDER / name
    kind, extra = class_of(name)
    model = kind.from_config(config, attn_implementation="eager", **extra)
    randomise(model, generator)
    if name == "bert":
        with torch.no_grad():
            model.embeddings.word_embeddings.weight[config.pad_token_id] = 0
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    inputs = {"input_ids": torch.randint(3, VOCAB, (2, 7), generator=generator)}
    if name == "bert":
        inputs["weights"] = torch.randn(2, 7, config.hidden_size, generator=generator)
    save_file(inputs, folder / "inputs.safetensors")


def compute(model, inputs):
    """The output and the loss."""
    ids = inputs["input_ids"]
    if "weights" in inputs:
        output = model(input_ids=ids).last_hidden_state
        return output, (output * inputs["weights"]).sum()
    out = model(input_ids=ids, labels=ids, use_cache=False)
    return out.logits, out.loss


def settings_of(name, settings):
    settings = {"target_modules": ALL} | settings
    if isinstance(settings["target_modules"], dict):
        settings["target_modules"] = settings["target_modules"][name]
    # Names of the other bases are left out.
    present = {module.rsplit(".", 1)[-1] for module, _ in base_of(name).named_modules()}
    for key in ("target_modules", "feedforward_modules"):
        if isinstance(settings.get(key), list):
            settings[key] = [module for module in settings[key] if module in present]
    if pattern := settings.get("n_frequency_pattern"):
        settings["n_frequency_pattern"] = {key: n for key, n in pattern.items() if key.rsplit(".", 1)[-1] in present}
    return settings


def write_adapter(folder, name, kind, settings, generator):
    task = "FEATURE_EXTRACTION" if name == "bert" else "CAUSAL_LM"
    model = get_peft_model(base_of(name), getattr(peft, kind)(task_type=task, **settings_of(name, settings)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    save_adapter(model, folder, name, save_embedding_layers=False)


def golden(folder, name, inputs):
    model = PeftModel.from_pretrained(base_of(name), folder, is_trainable=True).eval()
    output, loss = compute(model, inputs)
    loss.backward()
    tensors = {"output": output, "loss": loss.reshape(1)}
    # The key of a parameter is that of the tensor in the same memory.
    keys = {tensor.data_ptr(): key for key, tensor in get_peft_model_state_dict(model).items()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            tensors["grad." + keys[parameter.data_ptr()]] = parameter.grad
    on_disk = load_file(folder / "adapter_model.safetensors")
    for key in tensors:
        assert not key.startswith("grad.") or key.removeprefix("grad.") in on_disk, key
    with torch.no_grad():
        tensors["merged"] = compute(copy.deepcopy(model).merge_and_unload(), inputs)[0]
    torch.testing.assert_close(tensors["merged"], output, rtol=1e-3, atol=1e-3)
    tensors = {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}
    save_file(tensors, folder / "golden.safetensors")
    return tensors


def write(case, kind, name, settings):
    seed = zlib.crc32(f"{name}/{case}".encode())
    # PEFT draws from the global generator.
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    folder = FOLDER / name / case
    shutil.rmtree(folder, ignore_errors=True)
    inputs = load_file(FOLDER / name / "inputs.safetensors")
    write_adapter(folder, name, kind, settings, generator)
    tensors = golden(folder, name, inputs)
    with torch.no_grad():
        change = (tensors["output"] - compute(base_of(name), inputs)[0]).abs().max().item()
    assert change > 0.1, f"{name}/{case} changes the output by {change} only"
    print(f"{name}/{case}: loss {tensors['loss'].item():.4f}, changes the output by up to {change:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    disable_progress_bar()
    wanted = sys.argv[1:]
    for name in BASES:
        if not (FOLDER / name / "model.safetensors").is_file():
            write_base(name)
    for case, kind, names, settings in CASES:
        for name in names:
            if not wanted or case in wanted or f"{name}/{case}" in wanted:
                write(case, kind, name, settings)
