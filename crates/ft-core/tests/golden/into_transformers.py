"""Loads sequence classifiers that ft wrote in transformers, and compares scores. The versions are those of models.py.

    FT_TEST_INTO_TRANSFORMERS=DIR cargo test -p ft-core --test it classifiers_are_written_for_transformers
    python into_transformers.py DIR

DIR/NAME/ holds a model with a head that is drawn, and scores.safetensors with what ft computes for four tokens. Weights
are an error if a key is missing or left over. transformers has no such class for Granite.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification

worst, count = 0.0, 0
for folder in sorted(Path(sys.argv[1]).iterdir()):
    config = AutoConfig.from_pretrained(folder)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        print(f"{folder.name}: transformers has no class")
        continue
    attention = "sdpa" if getattr(config, "alibi", False) else "eager"
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True
    )
    assert not any(info[key] for key in ["missing_keys", "unexpected_keys", "mismatched_keys"]), (folder, info)
    written = json.loads((folder / "config.json").read_text())["architectures"]
    assert written == [type(model).__name__], (written, type(model).__name__)
    with torch.no_grad():
        scores = model.eval()(input_ids=torch.tensor([[3, 14, 15, 9]])).logits
    expected = load_file(folder / "scores.safetensors")["scores"]
    off = ((scores - expected).abs().max() / expected.abs().max()).item()
    print(f"{folder.name}: {type(model).__name__} differs by {off:.1e} of the largest number")
    assert off < 1e-4
    worst, count = max(worst, off), count + 1
assert count > 0, f"{sys.argv[1]} has no classifiers"
print(f"{count} classifiers, worst difference {worst:.1e}")
