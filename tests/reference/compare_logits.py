"""Logits that ft wrote against those of transformers, with or without PEFT's adapter, f32.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0.
    python compare_logits.py MODEL_DIR FILE.safetensors [--adapter DIR] [--tolerance 2e-3]

FILE holds input_ids [batch, seq] and logits [batch, seq, vocab], or several such pairs with a prefix
(text0.input_ids, text0.logits, ...). Fails if any number differs by more than the tolerance.
"""

import argparse
import sys

import torch
from pinned import check_versions, largest_difference, load, report
from safetensors.torch import load_file


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("file")
    p.add_argument("--adapter")
    p.add_argument("--tolerance", type=float, default=2e-3)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    check_versions()
    torch.set_num_threads(a.threads)
    tensors = load_file(a.file)
    prefixes = sorted(key.removesuffix("logits") for key in tensors if key.endswith("logits"))
    assert prefixes, f"{a.file} holds no logits, but {sorted(tensors)}"
    model = load(a.model, a.adapter)
    differences = {}
    with torch.inference_mode():
        for prefix in prefixes:
            expected = model(tensors[prefix + "input_ids"].long(), use_cache=False).logits
            difference, place = largest_difference(tensors[prefix + "logits"], expected)
            differences[prefix + "logits"] = {"max_abs_diff": difference, "at": place}
    worst = max(entry["max_abs_diff"] for entry in differences.values())
    report(max_abs_diff=worst, each=differences, passed=worst <= a.tolerance)
    sys.exit(worst > a.tolerance)


if __name__ == "__main__":
    main()
