"""Perplexities of lm_eval 0.4.13 over documents, into perplexity.json beside this file.

A case is [documents as [text, log-likelihood], word perplexity, byte perplexity, bits per byte]; words are counted as the
task wikitext does.
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results

from nasty_texts import EDGE, text

assert version("lm_eval") == "0.4.13"
rng = random.Random(5)
cases = []
while len(cases) < 220:
    documents = [rng.choice(EDGE) if rng.random() < 0.3 else text(rng, 12) for _ in range(rng.randint(1, 3))]
    if not any(documents):
        continue
    likelihoods = [-rng.random() * (1 + len(d)) * rng.choice([0, 1, 5]) for d in documents]
    results = [process_results({"page": d}, (l,)) for d, l in zip(documents, likelihoods)]
    of = lambda key: [r[key] for r in results]
    cases.append([
        list(zip(documents, likelihoods)),
        weighted_perplexity(of("word_perplexity")),
        weighted_perplexity(of("byte_perplexity")),
        bits_per_byte(of("bits_per_byte")),
    ])
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")))
print(len(cases))
