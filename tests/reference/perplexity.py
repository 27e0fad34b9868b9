"""Perplexity of a model on a text file with transformers, f32: the twin of the example `perplexity`.

torch 2.15.0, transformers 5.23.0, peft 0.21.2.
    python perplexity.py MODEL_DIR TEXT [--adapter DIR] [--context 512] [--max-windows N] [--threads N]

The whole file is tokenized without special tokens and cut into disjoint windows of --context tokens, the
last, partial one dropped; every token of a window but its first is scored.
SmolLM2-135M-Instruct on wikitext2_valid.txt: perplexity 27.0673, nll 3.29833, 272874 tokens.
"""

import argparse
import math
import sys

import torch
from pinned import check_versions, load, report, tokenizer_of


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model")
    p.add_argument("text")
    p.add_argument("--adapter")
    p.add_argument("--context", type=int, default=512)
    p.add_argument("--max-windows", type=int, help="only the first N windows")
    p.add_argument("--batch-size", type=int, default=4)
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    check_versions()
    torch.set_num_threads(a.threads)
    model = load(a.model, a.adapter)
    with open(a.text, encoding="utf-8", newline="") as file:
        ids = tokenizer_of(a.model)(file.read(), add_special_tokens=False).input_ids
    count = len(ids) // a.context
    windows = torch.tensor(ids[: count * a.context]).reshape(count, a.context)[: a.max_windows]
    nll, tokens = 0.0, 0
    with torch.inference_mode():
        for batch in windows.split(a.batch_size):
            logits = model(batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            losses = torch.nn.functional.cross_entropy(logits, batch[:, 1:].flatten(), reduction="none")
            nll += losses.double().sum().item()
            tokens += losses.numel()
            print(f"\r{tokens} tokens, perplexity {math.exp(nll / tokens):.4f}", end="", file=sys.stderr)
    print(file=sys.stderr)
    report(perplexity=math.exp(nll / tokens), nll=nll / tokens, tokens=tokens)


if __name__ == "__main__":
    main()
