"""Distances of rapidfuzz and error rates of jiwer 4.0.0, into edit_distance.json beside this file.

`pairs`: [prediction, reference, distance in characters, by the longer, WER, CER]; `corpora`: lists of places in
`pairs`, with WER and CER over all of them.
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

import jiwer
import nltk
from rapidfuzz.distance import Levenshtein

from nasty_texts import pairs

assert version("jiwer") == "4.0.0" and version("rapidfuzz") == "3.14.6" and version("nltk") == "3.10.4"
rng = random.Random(6)
texts = pairs(12, 420, 12)
for _ in range(80):
    word = lambda: "".join(rng.choice("ab \t\n\x1c") for _ in range(rng.randint(0, 12)))
    texts.append((word(), word()))

rows = []
for a, b in texts:
    distance = Levenshtein.distance(a, b)
    if len(a) * len(b) < 4000:
        assert distance == nltk.edit_distance(a, b)
    rows.append([a, b, distance, Levenshtein.normalized_distance(a, b), float(jiwer.wer(b, a)), float(jiwer.cer(b, a))])
corpora = []
for _ in range(100):
    some = [rng.randrange(len(texts)) for _ in range(rng.randint(1, 8))]
    predictions, references = [texts[i][0] for i in some], [texts[i][1] for i in some]
    corpora.append([some, float(jiwer.wer(references, predictions)), float(jiwer.cer(references, predictions))])
print(len(rows), len(corpora))
Path(__file__).with_suffix(".json").write_text(
    json.dumps({"pairs": rows, "corpora": corpora}, ensure_ascii=False, separators=(",", ":"))
)
