"""Tiny random models of every architecture, as transformers saves them, and what it computes with them.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. Run from anywhere: python models.py [NAME ...]
Deterministic: the same versions write the same bytes.

Each folder NAME/ holds config.json, the weights, and golden.safetensors:
- input_ids [2, 12], hidden (after the final norm), logits;
- loss [1], the mean over the shifted labels = input_ids, and grad.<parameter> of it for every parameter;
- input_ids_padded [3, 12] (rows with 5, 0 and 1 tokens of padding on the left), attention_mask,
  logits_padded, zero where there is padding; positions count from the first token that is no padding;
- greedy [16]: the tokens that greedy decoding appends to input_ids[0, :6], no token ending it.

Norms and biases, which start as ones and zeros, are random too: a bug in them would hide otherwise.
"""

import importlib.metadata
import itertools
import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden files need {pinned}"

HERE = Path(__file__).parent
VOCAB = 97
PADDING = [5, 0, 1]
# A token of llama_padding's input_ids.
PAD = 92

SMALL = dict(
    vocab_size=VOCAB,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=True,
)
# One layer with two wide heads: eight rotary frequencies, some of which the scaling touches.
ONE_LAYER = SMALL | dict(num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
# The smallest that says anything: one head of eight rotary frequencies.
MINI = SMALL | dict(
    hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1
)
TWO_LAYERS = dict(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=64,
    tie_word_embeddings=False,
)
FALCON = dict(
    vocab_size=VOCAB, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64
)


def rope(theta=10_000.0, kind="default", **rest):
    return {"rope_type": kind, "rope_theta": theta, **rest}


def longrope(context, frequencies=8):
    return rope(
        1000.0,
        "longrope",
        short_factor=[1.0 + 0.5 * i for i in range(frequencies)],
        long_factor=[2.0 + i for i in range(frequencies)],
        original_max_position_embeddings=context,
    )


MODELS = {
    "llama": LlamaConfig(**SMALL),
    # The row of padding gets its gradient from the tied head alone.
    "llama_padding": LlamaConfig(**ONE_LAYER, pad_token_id=PAD),
    "llama_untied_bias": LlamaConfig(
        **SMALL | dict(tie_word_embeddings=False, attention_bias=True, mlp_bias=True, head_dim=12, rms_norm_eps=1e-5)
    ),
    # Wavelengths over 64 are divided by 8, under 16 kept, one lies between: 6.28, 14.9, 35.3, 83.8, ...
    "llama3_rope": LlamaConfig(
        **ONE_LAYER | dict(max_position_embeddings=512),
        rope_parameters=rope(
            1000.0,
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "llama_linear_rope": LlamaConfig(**ONE_LAYER, rope_parameters=rope(1000.0, "linear", factor=4.0)),
    "llama_yarn": LlamaConfig(
        **ONE_LAYER | dict(max_position_embeddings=128),
        rope_parameters=rope(
            1000.0, "yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0, beta_slow=0.5
        ),
    ),
    # Twelve tokens are beyond the context of pretraining, and so is most of what greedy decoding appends.
    "llama_dynamic": LlamaConfig(
        **MINI | dict(max_position_embeddings=8), rope_parameters=rope(1000.0, "dynamic", factor=4.0)
    ),
    # Everything lies beyond the context of pretraining, or everything within it.
    "llama_longrope": LlamaConfig(**MINI, rope_parameters=longrope(4)),
    "llama_longrope_short": LlamaConfig(**MINI, rope_parameters=longrope(24)),
    "mistral": MistralConfig(
        **SMALL | dict(tie_word_embeddings=False, intermediate_size=24), sliding_window=4, rope_parameters=rope(5000.0)
    ),
    "qwen2": Qwen2Config(**SMALL | dict(intermediate_size=24), rope_parameters=rope(100_000.0)),
    # The first layer sees everything, the second a window.
    "qwen2_window": Qwen2Config(
        **SMALL | dict(intermediate_size=16), use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen3": Qwen3Config(
        **SMALL | dict(tie_word_embeddings=False, intermediate_size=24), head_dim=12, rope_parameters=rope(100_000.0)
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCAB,
        n_positions=32,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_inner=48,
        bos_token_id=96,
        eos_token_id=96,
    ),
    "gemma": GemmaConfig(**SMALL | dict(intermediate_size=24, num_key_value_heads=1), head_dim=12),
    # A window in the first layer, none in the second; caps that bite.
    "gemma2": Gemma2Config(
        **SMALL | dict(intermediate_size=24, tie_word_embeddings=False),
        head_dim=12,
        query_pre_attn_scalar=10,
        sliding_window=4,
        attn_logit_softcapping=1.5,
        final_logit_softcapping=4.0,
    ),
    "gemma3": Gemma3TextConfig(
        **SMALL | dict(intermediate_size=16),
        head_dim=8,
        query_pre_attn_scalar=10,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        rope_parameters={"full_attention": rope(50_000.0, "linear", factor=2.0), "sliding_attention": rope(100.0)},
    ),
    # Rotary positions in the second layer alone.
    "smollm3": SmolLM3Config(
        **SMALL | dict(intermediate_size=24), no_rope_layers=[0, 1], rope_parameters=rope(5000.0), pad_token_id=None
    ),
    # A window where positions do not rotate.
    "smollm3_window": SmolLM3Config(
        **SMALL | dict(intermediate_size=16),
        no_rope_layer_interval=2,
        use_sliding_window=True,
        sliding_window=4,
        pad_token_id=None,
    ),
    "olmo2": Olmo2Config(
        **SMALL | dict(tie_word_embeddings=False, intermediate_size=24), rope_parameters=rope(5000.0), pad_token_id=None
    ),
    "granite": GraniteConfig(
        **SMALL | dict(intermediate_size=24, tie_word_embeddings=False),
        embedding_multiplier=3.0,
        residual_multiplier=0.5,
        attention_multiplier=0.2,
        logits_scaling=0.25,
        mlp_bias=True,
    ),
    "phi": PhiConfig(
        **TWO_LAYERS, num_key_value_heads=2, rope_parameters=rope(1000.0, partial_rotary_factor=0.5)
    ),
    "phi_qk_norm": PhiConfig(
        **TWO_LAYERS | dict(num_hidden_layers=1, hidden_act="gelu"), num_key_value_heads=1, qk_layernorm=True
    ),
    "phi3": Phi3Config(
        **TWO_LAYERS | dict(num_attention_heads=4), num_key_value_heads=2, sliding_window=4, pad_token_id=None
    ),
    # As Phi-4-mini: three of four features of a head rotate, the head is tied.
    "phi3_longrope": Phi3Config(
        **TWO_LAYERS | dict(tie_word_embeddings=True, num_hidden_layers=1),
        num_key_value_heads=1,
        original_max_position_embeddings=4,
        rope_parameters=longrope(4, 3) | dict(partial_rotary_factor=0.75),
        pad_token_id=None,
    ),
    "gpt_neox": GPTNeoXConfig(**TWO_LAYERS, rope_parameters=rope(1000.0, partial_rotary_factor=0.5)),
    "gpt_neox_sequential": GPTNeoXConfig(
        **TWO_LAYERS | dict(tie_word_embeddings=True), use_parallel_residual=False, attention_bias=False
    ),
    # As Falcon-RW, with heads whose number is no power of two.
    "falcon_rw": FalconConfig(
        **FALCON | dict(hidden_size=24, num_attention_heads=6),
        alibi=True,
        bias=True,
        multi_query=False,
        parallel_attn=False,
        ffn_hidden_size=24,
    ),
    "falcon_7b": FalconConfig(**FALCON),
    "falcon_40b": FalconConfig(**FALCON, new_decoder_architecture=True, num_kv_heads=2),
    "falcon_11b": FalconConfig(
        **FALCON | dict(num_hidden_layers=1, tie_word_embeddings=False),
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_ln_in_parallel_attn=1,
        ffn_hidden_size=24,
    ),
    "llama_sharded": LlamaConfig(**ONE_LAYER),
    "llama_bf16": LlamaConfig(**ONE_LAYER),
    "llama_f16": LlamaConfig(**ONE_LAYER),
}
V4 = [
    "llama3_rope",
    "llama_yarn",
    "llama_dynamic",
    "llama_longrope",
    "phi",
    "phi3_longrope",
    "gpt_neox",
    "falcon_7b",
]
DTYPES = {"llama_bf16": torch.bfloat16, "llama_f16": torch.float16}


def randomise(model, generator):
    """Weights and biases of deviation 0.2, norms around one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = ("norm" in name or ".ln_" in name) and name.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if norm else 0.2 * noise)


def left_padded(generator):
    ids = torch.randint(1, VOCAB, (len(PADDING), 12), generator=generator)
    mask = torch.ones_like(ids)
    for row, count in enumerate(PADDING):
        ids[row, :count] = 0
        mask[row, :count] = 0
    return ids, mask


def rotates_by_length(config):
    """Whether the rotation of a token depends on the longest position of its pass."""
    return (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "dynamic"


def greedy(model, prompt, count):
    """Greedy tokens; none if they would prove little.

    The whole sequence is read for every one of them, unless keys that stay in the cache differ from keys read again.
    """
    ids = prompt.clone()
    cache = DynamicCache() if rotates_by_length(model.config) else None
    for _ in range(count):
        if cache is None:
            logits = model(input_ids=ids[None], use_cache=False).logits
        else:
            logits = model(input_ids=ids[None, cache.get_seq_length() :], past_key_values=cache).logits
        best = logits[0, -1].topk(2)
        if best.values[0] - best.values[1] < 0.01:
            return None
        ids = torch.cat([ids, best.indices[:1]])
    chosen = ids[len(prompt) :]
    if len(chosen.unique()) < 8:
        return None
    from_cache = model.generate(
        prompt[None], attention_mask=torch.ones_like(prompt)[None], max_new_tokens=count, do_sample=False,
        eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert torch.equal(from_cache[0], ids)
    return chosen


def random_ids(generator):
    return torch.randint(0, VOCAB, (2, 12), generator=generator)


def stored(model, name):
    """The name of a parameter in checkpoints."""
    return name.replace("lm_head.", "embed_out.") if model.config.model_type == "gpt_neox" else name


def project(model, hidden):
    """The head and what the model does to its logits."""
    logits = model.lm_head(hidden) / getattr(model.config, "logits_scaling", 1.0)
    cap = getattr(model.config, "final_logit_softcapping", None)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def golden(model, input_ids, greedy_ids, generator):
    out = model(input_ids=input_ids, labels=input_ids, use_cache=False)
    out.loss.backward()
    tensors = {f"grad.{stored(model, name)}": parameter.grad for name, parameter in model.named_parameters()}
    assert all(grad is not None and grad.abs().max() > 1e-6 for grad in tensors.values())
    with torch.no_grad():
        hidden = model.base_model(input_ids=input_ids, use_cache=False).last_hidden_state
        torch.testing.assert_close(project(model, hidden), out.logits)
        ids, mask = left_padded(generator)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        padded = model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        padded = padded.masked_fill(mask[:, :, None] == 0, 0.0)
        for row, count in enumerate([] if rotates_by_length(model.config) else PADDING):
            alone = model(input_ids=ids[row : row + 1, count:], use_cache=False).logits[0]
            torch.testing.assert_close(padded[row, count:], alone, rtol=1e-4, atol=1e-4)
    return tensors | {
        "input_ids": input_ids,
        "hidden": hidden,
        "logits": out.logits.detach(),
        "loss": out.loss.detach().reshape(1),
        "input_ids_padded": ids,
        "attention_mask": mask,
        "logits_padded": padded,
        "greedy": greedy_ids,
    }


def attention(config):
    """Eager attention, but for Falcon's biases, which it adds twice."""
    return "sdpa" if getattr(config, "alibi", False) else "eager"


def load(folder):
    attn = attention(AutoConfig.from_pretrained(folder))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attn)
    return model.eval()


def write_v4_config(folder, model, input_ids):
    """The same configuration as transformers 4 writes it, and a check that it means the same.

    What can lie beside the scaling lies there.
    """
    config = json.loads((folder / "config.json").read_text())
    scaling = config.pop("rope_parameters")
    names = {key: key for key in ["rope_theta", "original_max_position_embeddings", "partial_rotary_factor"]}
    if config["model_type"] == "gpt_neox":
        names |= {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
    for key, name in names.items():
        if key in scaling:
            config[name] = scaling.pop(key)
    config["rope_scaling"] = scaling if scaling["rope_type"] != "default" else None
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.46.0"
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config_v4.json").write_text(text)
    with tempfile.TemporaryDirectory() as temporary, torch.no_grad():
        shutil.copy(folder / "config_v4.json", Path(temporary) / "config.json")
        shutil.copy(folder / "model.safetensors", temporary)
        again = load(temporary)
        assert torch.equal(again(input_ids).logits, model(input_ids).logits)


def scaling_acts(model, input_ids):
    """Fails if the rotary scaling were too weak for the golden logits to show it."""
    part = {key: value for key, value in model.config.rope_parameters.items() if key == "partial_rotary_factor"}
    config = type(model.config)(**model.config.to_dict() | {"rope_parameters": rope(1000.0) | part})
    plain = type(model)._from_config(config, attn_implementation="eager").eval()
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        difference = (plain(input_ids).logits - model(input_ids).logits).abs().max().item()
    assert difference > 0.05, f"without scaling the logits differ by {difference} only"


def random_model(name, config):
    """A random model, ids for it, what greedy decoding makes of them, and the generator of what follows.

    The first seed is taken whose greedy tokens are neither monotonous nor close calls.
    """
    for seed in itertools.count():
        generator = torch.Generator().manual_seed(1000 * zlib.crc32(name.encode()) + seed)
        model = AutoModelForCausalLM.from_config(config, attn_implementation=attention(config)).eval()
        randomise(model, generator)
        dtype = DTYPES.get(name, torch.float32)
        model.to(dtype).float()
        input_ids = random_ids(generator)
        with torch.no_grad():
            greedy_ids = greedy(model, input_ids[0, :6], 16)
        if greedy_ids is not None:
            return model.to(dtype), input_ids, greedy_ids, generator


def write(name, config):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    model, input_ids, greedy_ids, generator = random_model(name, config)
    shards = {"max_shard_size": "12KB"} if name == "llama_sharded" else {}
    model.save_pretrained(folder, **shards)
    (folder / "generation_config.json").unlink()

    model = load(folder)
    assert name != "llama_padding" or (input_ids == PAD).any()
    tensors = golden(model, input_ids, greedy_ids, generator)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    scaling = getattr(config, "rope_parameters", None) or {}
    if scaling.get("rope_type", "default") != "default":
        scaling_acts(model, input_ids)
    if name in V4:
        write_v4_config(folder, model, input_ids)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{name}: loss {tensors['loss'].item():.4f}, {size / 1024:.0f} KiB, greedy {greedy_ids.tolist()}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        write(chosen, MODELS[chosen])
