"""What the scripts here share: the versions they were written for, and loading of models in f32."""

import importlib.metadata
import json
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PINNED = {"torch": "2.15.0", "transformers": "5.23.0", "peft": "0.21.2", "safetensors": "0.8.0"}


def check_versions():
    """Warns on stderr where a version differs from that of the committed numbers."""
    for package, pinned in PINNED.items():
        found = importlib.metadata.version(package).split("+")[0]
        if found != pinned:
            print(f"warning: {package} {found} is installed, the references were made with {pinned}", file=sys.stderr)


def load(folder, adapter=None, trainable=False):
    """The model in f32, with PEFT's adapter if one is given, and without dropout."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter, is_trainable=trainable)
    return model.eval()


def tokenizer_of(folder):
    return AutoTokenizer.from_pretrained(folder)


def largest_difference(a, b):
    """The largest absolute difference, and where it is; NaN counts as infinite."""
    assert a.shape == b.shape, f"the shapes differ: {list(a.shape)} and {list(b.shape)}"
    difference = (a.float() - b.float()).abs().nan_to_num(nan=float("inf"))
    place = torch.unravel_index(difference.argmax(), difference.shape)
    return difference.max().item(), [int(index) for index in place]


def report(**fields):
    """The script's result: one JSON object as the last line of stdout."""
    print(json.dumps(fields))
