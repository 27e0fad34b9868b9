"""Adapters that ft wrote, in PEFT: the same logits from the same base.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0.
    FT_WRITE_ADAPTERS=DIR cargo test -p ft-peft --test it -- --ignored for_peft
    python check_written.py DIR

Last run on 2026-11-30: 39 adapters, worst difference 1.6e-5 of the largest logit.

DIR/CASE/ is an adapter's folder with ft.safetensors beside it: input_ids, and logits that ft computes. The base is the folder
of that name here. Fails if a number differs by more than 1e-4 of the largest, or if PEFT warns of missing or unknown keys.
"""

import sys
import warnings
from pathlib import Path

import torch
from golden_files import HERE, load_base
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file


def check(folder):
    config = PeftConfig.from_pretrained(folder)
    model = load_base(HERE / config.base_model_name_or_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(missing|unexpected).*")
        model = PeftModel.from_pretrained(model, folder).eval()
    expected = load_file(folder / "ft.safetensors")
    with torch.no_grad():
        logits = model(input_ids=expected["input_ids"].long(), use_cache=False).logits
    scale = logits.abs().max().item()
    difference = (logits - expected["logits"]).abs().max().item() / scale
    print(f"{folder.name}: differs by {difference:.1e} of the largest logit, {scale:.1f}")
    return difference <= 1e-4


if __name__ == "__main__":
    torch.set_num_threads(1)
    folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/adapter_config.json"))
    assert folders, "no adapters there"
    results = [check(folder) for folder in folders]
    sys.exit(not all(results))
