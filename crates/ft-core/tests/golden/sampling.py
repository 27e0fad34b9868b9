"""Logits after transformers' logits processors: writes sampling.safetensors.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. Run from anywhere: python sampling.py
Deterministic: the same versions write the same bytes.

logits [1, 50] and previous [1, 9] (ids seen so far, some twice) go in. Out of one processor each come
temperature_0.7, top_k_5, top_k_5_ties, top_p_0.8, top_p_0.05 (one token is left), min_p_0.1 and
repetition_penalty_1.3; chain is what `generate` does with all of them: the penalty 1.3, temperature
0.7, top-k 20, top-p 0.9, min-p 0.05, in this order. Tokens that are out are -inf. logits_ties has the
fifth place shared by two tokens.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"


def order_of_generate():
    """The names of the processors that `generate` would build, in its order."""
    tiny = GPT2Config(vocab_size=50, n_positions=8, n_embd=4, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(tiny)
    config = GenerationConfig(
        do_sample=True, repetition_penalty=1.3, temperature=0.7, top_k=20, top_p=0.9, min_p=0.05
    )
    processors = model._get_logits_processor(config, input_ids_seq_length=4, device="cpu")
    return [type(processor) for processor in processors]


torch.set_num_threads(1)
generator = torch.Generator().manual_seed(11)
logits = 1.2 * torch.randn(1, 50, generator=generator)
previous = torch.randint(0, 50, (1, 9), generator=generator)
# Seen twice; and among those seen the best token and one with a negative logit.
previous[0, 1] = previous[0, 0]
previous[0, 2] = logits.argmax()
previous[0, 3] = logits.argmin()
best = logits[0].topk(6).indices
logits_ties = logits.clone()
logits_ties[0, best[5]] = logits[0, best[4]]

chain = [
    RepetitionPenaltyLogitsProcessor(1.3),
    TemperatureLogitsWarper(0.7),
    TopKLogitsWarper(20),
    TopPLogitsWarper(0.9),
    MinPLogitsWarper(0.05),
]
assert [type(processor) for processor in chain] == order_of_generate()
tensors = {
    "logits": logits,
    "logits_ties": logits_ties,
    "previous": previous,
    "temperature_0.7": TemperatureLogitsWarper(0.7)(previous, logits),
    "top_k_5": TopKLogitsWarper(5)(previous, logits),
    "top_k_5_ties": TopKLogitsWarper(5)(previous, logits_ties),
    "top_p_0.8": TopPLogitsWarper(0.8)(previous, logits),
    "top_p_0.05": TopPLogitsWarper(0.05)(previous, logits),
    "min_p_0.1": MinPLogitsWarper(0.1)(previous, logits),
    "repetition_penalty_1.3": RepetitionPenaltyLogitsProcessor(1.3)(previous, logits),
}
scores = logits
for processor in chain:
    scores = processor(previous, scores)
tensors["chain"] = scores
save_file({key: value.contiguous() for key, value in tensors.items()}, Path(__file__).parent / "sampling.safetensors")
for key, value in tensors.items():
    print(f"{key}: {int(value.isfinite().sum())} of {value.numel()} finite")
