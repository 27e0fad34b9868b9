"""Prompt methods as PEFT saves them, and what PEFT computes with them.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run after adapters.py, from anywhere: python prompts.py
Deterministic: the same versions write the same bytes.

prompts/BASE-CASE/ is an adapter on the base model peft_BASE of adapters.py: adapter_config.json and
adapter_model.safetensors, with one key: prompt_embeddings. Cases: prompt, p_tuning, prefix and projected (prefix tuning with a
projection). Llama has grouped heads; on GPT-2 positions are learned.

prompts/BASE.safetensors: input_ids [2, 12], and for each CASE
- CASE.logits (those of the tokens alone), CASE.loss [1] (mean over the shifted labels = input_ids; with prompt tuning and
  p-tuning PEFT's own loss has one term more a row: the last virtual token predicts the first token),
- CASE.grad.NAME of that loss for all tensors that train, by their names in PEFT's encoder,
- CASE.start.NAME: their values, where a network computes the virtual tokens,
- CASE.generated.0, CASE.generated.1: the greedy continuation of the first 7 tokens of the first row by 8, and of
  the first 3 of the second.
"""

import shutil

import torch
from golden_files import HERE, check_versions, load_base, save_adapter
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import save_file

check_versions()

VOCAB = 97
TOKENS = 5

CASES = {
    "prompt": PromptTuningConfig,
    "p_tuning": lambda **common: PromptEncoderConfig(encoder_hidden_size=12, **common),
    "prefix": PrefixTuningConfig,
    "projected": lambda **common: PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=12, **common),
}


def write_case(base, case, config, input_ids, generator):
    model = load_base(HERE / f"peft_{base}")
    with torch.no_grad():
        before = model(input_ids).logits
    model = get_peft_model(model, config(num_virtual_tokens=TOKENS, task_type="CAUSAL_LM")).eval()
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    prefix = case in ("prefix", "projected")
    logits = model(input_ids=input_ids, use_cache=prefix).logits
    logits = logits if prefix else logits[:, TOKENS:]
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), input_ids[:, 1:].flatten())
    loss.backward()
    logits = logits.detach()
    assert logits.shape == before.shape
    change = (logits - before).abs().max().item()
    assert change > 0.3, f"the adapter changes the logits by {change} only"
    tensors = {"logits": logits, "loss": loss.detach().reshape(1)}
    computed = case in ("p_tuning", "projected")
    for name, parameter in encoder.named_parameters():
        name = name if computed else "prompt_embeddings"
        tensors[f"grad.{name}"] = parameter.grad
        if computed:
            tensors[f"start.{name}"] = parameter.detach()
    for row, length in enumerate([7, 3]):
        prompt = input_ids[row : row + 1, :length]
        mask = torch.ones_like(prompt)
        text = model.generate(
            input_ids=prompt, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        tensors[f"generated.{row}"] = text[0, length:]
        assert len(tensors[f"generated.{row}"]) == 8

    save_adapter(model, HERE / "prompts" / f"{base}-{case}", f"peft_{base}")
    print(f"{base}-{case}: loss {loss.item():.4f}, changes logits by up to {change:.2f}")
    return {f"{case}.{key}": value.contiguous() for key, value in tensors.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    shutil.rmtree(HERE / "prompts", ignore_errors=True)
    for seed, base in enumerate(["llama", "gpt2"]):
        generator = torch.Generator().manual_seed(11 + seed)
        input_ids = torch.randint(0, VOCAB, (2, 12), generator=generator)
        tensors = {"input_ids": input_ids}
        for case, config in CASES.items():
            tensors |= write_case(base, case, config, input_ids, generator)
        save_file(tensors, HERE / "prompts" / f"{base}.safetensors")
