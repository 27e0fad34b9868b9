"""Loads adapters that ft wrote in PEFT, and compares outputs and tensors. The versions are those of methods.py.

    FT_WRITE_ADAPTERS=DIR cargo test -p ft-peft --test it -- --ignored for_peft
    python into_peft.py DIR
    python check_written.py DIR

Last run on 2026-11-30: 80 adapters, worst difference 3.9e-6 of the largest number.

DIR/BASE/CASE/ holds an adapter for a base of methods/, and output.safetensors with what ft computes for the base's inputs.
"""

import sys
import warnings
from pathlib import Path

import torch
from methods import FOLDER, base_of, compute
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers.utils.logging import disable_progress_bar

torch.set_num_threads(1)
warnings.simplefilter("ignore")
disable_progress_bar()
worst, count = 0.0, 0
for folder in sorted(path.parent for path in Path(sys.argv[1]).glob("*/*/adapter_config.json")):
    name = folder.parent.name
    prompts = PeftConfig.from_pretrained(folder).is_prompt_learning
    # An AdaLoRA adapter that does not train computes no loss in PEFT. Networks of prompts are not in files.
    model = PeftModel.from_pretrained(base_of(name), folder, is_trainable=not prompts).eval()
    written, read = load_file(folder / "adapter_model.safetensors"), get_peft_model_state_dict(model)
    assert written.keys() == read.keys(), (folder, written.keys() ^ read.keys())
    for key, tensor in written.items():
        assert torch.equal(tensor, read[key]), (folder, key)
    with torch.no_grad():
        inputs = load_file(FOLDER / name / "inputs.safetensors")
        if prompts:
            # A prefix is a cache, and the logits of a prompt have its places too.
            ids = inputs["input_ids"]
            output = model(input_ids=ids, use_cache=True).logits[:, -ids.shape[1] :]
        else:
            output = compute(model, inputs)[0]
    expected = load_file(folder / "output.safetensors")["output"]
    off = ((output - expected).abs().max() / expected.abs().max()).item()
    print(f"{name}/{folder.name}: differs by {off:.1e} of the largest number")
    assert off < 1e-4
    worst, count = max(worst, off), count + 1
assert count > 0, f"{sys.argv[1]} has no adapters"
print(f"{count} adapters, worst difference {worst:.1e}")
