"""Scores of rouge_score 0.1.2, into rouge.json beside this file.

A case is [references, prediction, without the stemmer, with it]; scores are [precision, recall, F] for
each of KINDS, of `score_multi` over the references (which is `score` where there is one).
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

from rouge_score.rouge_scorer import RougeScorer

from nasty_texts import edited, pairs

assert version("rouge_score") == "0.1.2" and version("nltk") == "3.10.4"
KINDS = ["rouge1", "rouge2", "rouge3", "rouge4", "rouge9", "rougeL", "rougeLsum"]
rng = random.Random(7)

cases = [([b], a) for a, b in pairs(1, 330, 40)]
# Several lines, few words: many longest common subsequences to choose from.
for i in range(120):
    few = ["a", "b", "c", "dog", "dogs", "running", "run"][: rng.randint(1, 7)]
    lines = lambda: "\n".join(" ".join(rng.choice(few) for _ in range(rng.randint(0, 9))) for _ in range(rng.randint(1, 5)))
    cases.append(([lines() for _ in range(rng.choice([1, 1, 1, 2]))], lines()))
# Several references, some of them equally good.
for a, b in pairs(2, 170, 12)[100:]:
    cases.append(([edited(rng, b), b, edited(rng, b), b[::-1]], a))
# More than 64 words in a line.
for i in range(12):
    few = "the of cat dog sat ran mat".split()[: rng.randint(2, 7)]
    long = lambda: " ".join(rng.choice(few) for _ in range(rng.randint(60, 200)))
    cases.append(([long() + "\n" + long()], long() + "\n" + long()))

scorers = [RougeScorer(KINDS, use_stemmer=stem) for stem in (False, True)]
triple = lambda s: [float(s.precision), float(s.recall), float(s.fmeasure)]
out = []
for references, prediction in cases:
    row = [references, prediction]
    for scorer in scorers:
        scores = scorer.score_multi(references, prediction)
        row.append([triple(scores[k]) for k in KINDS])
    out.append(row)
Path(__file__).with_suffix(".json").write_text(
    json.dumps({"kinds": KINDS, "cases": out}, ensure_ascii=False, separators=(",", ":"))
)
print(len(out))
