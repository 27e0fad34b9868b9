"""What a folder's generation_config.json does to greedy decoding in transformers: writes generation.safetensors.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. Run from anywhere: python generation.py
Deterministic: the same versions write the same bytes.

For the model in llama/: prompt [6] goes in; penalty_1.3 [16] is what `generate` appends with a generation configuration
of repetition_penalty 1.3 and do_sample=False. No token ends it.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GenerationConfig

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

HERE = Path(__file__).parent
torch.set_num_threads(1)
model = AutoModelForCausalLM.from_pretrained(HERE / "llama")
golden = load_file(HERE / "llama" / "golden.safetensors")
prompt = golden["input_ids"][0, :6]
model.generation_config = GenerationConfig(
    repetition_penalty=1.3, do_sample=False, pad_token_id=0, eos_token_id=None
)
out = model.generate(prompt[None], max_new_tokens=16)
penalty = out[0, 6:].contiguous()
assert penalty.tolist() != golden["greedy"].tolist(), "the penalty must matter"
save_file({"prompt": prompt.contiguous(), "penalty_1.3": penalty}, HERE / "generation.safetensors")
print(penalty.tolist(), golden["greedy"].tolist())
