"""Whether a merged model is its base with the adapter, as transformers and PEFT see the files.

torch 2.15.0, transformers 5.23.0, peft 0.21.2.
    python check_export.py --base DIR --adapter DIR --merged DIR [--text TEXT] [--tolerance 1e-3]

Prints the largest absolute difference between the logits of the two, and how far the adapter is from
changing nothing; fails if the two differ by more than the tolerance (in f32; merged models saved in 16
bits need a larger one), or if the adapter changes nothing.
"""

import argparse
import sys

import torch
from pinned import check_versions, largest_difference, load, report, tokenizer_of

TEXT = "The old clock in the hall struck seven, and nobody in the house remembered who had wound it last."


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--base", required=True)
    p.add_argument("--adapter", required=True)
    p.add_argument("--merged", required=True)
    p.add_argument("--text", default=TEXT)
    p.add_argument("--tolerance", type=float, default=1e-3)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    check_versions()
    torch.set_num_threads(a.threads)
    ids = tokenizer_of(a.base)(a.text, add_special_tokens=False, return_tensors="pt").input_ids
    merged_ids = tokenizer_of(a.merged)(a.text, add_special_tokens=False, return_tensors="pt").input_ids
    assert torch.equal(ids, merged_ids), "the merged folder's tokenizer is not the base's"
    with torch.inference_mode():
        adapted = load(a.base, a.adapter)
        with_adapter = adapted(ids, use_cache=False).logits
        with adapted.disable_adapter():
            without = adapted(ids, use_cache=False).logits
        del adapted
        merged = load(a.merged)(ids, use_cache=False).logits
    difference, place = largest_difference(with_adapter, merged)
    effect, _ = largest_difference(with_adapter, without)
    passed = difference <= a.tolerance and effect > 0
    report(max_abs_diff=difference, at=place, adapter_effect=effect, tokens=ids.shape[1], passed=passed)
    sys.exit(not passed)


if __name__ == "__main__":
    main()
