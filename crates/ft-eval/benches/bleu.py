"""Corpus BLEU over 100,000 pairs of sentences: sacreBLEU 2.6.0 against ft-eval, alternating.

    python crates/ft-eval/benches/bleu.py [RUNS]      from the root of the workspace
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

from sacrebleu.metrics import BLEU

assert version("sacrebleu") == "2.6.0"
rng = random.Random(0)
vocabulary = ["".join(rng.choice("abcdefghijklmnoprstuvw") for _ in range(rng.randint(2, 9))) for _ in range(5000)]
weights = [1 / (rank + 1) for rank in range(len(vocabulary))]


def line():
    return rng.choices(vocabulary, weights, k=rng.randint(8, 25))


def edited(words):
    words = [rng.choices(vocabulary, weights)[0] if rng.random() < 0.3 else word for word in words if rng.random() > 0.15]
    if words and rng.random() < 0.3:
        cut = rng.randrange(len(words))
        words = words[cut:] + words[:cut]
    return words


def sentence(words):
    text = " ".join(word + rng.choice([",", ":", "-", " 3.5%"]) if rng.random() < 0.08 else word for word in words)
    return text.capitalize() + rng.choice([".", "!", "?", ' "etc."'])


pairs = []
for _ in range(100_000):
    reference = line()
    pairs.append((sentence(edited(reference)), sentence(reference)))

times = {"sacrebleu": [], "ft-eval": []}
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    for pair in pairs:
        file.write(json.dumps(pair) + "\n")
    file.flush()
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        command = ["cargo", "bench", "--offline", "-q", "-p", "ft-eval", "--bench", "bleu", "--", file.name]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        times["ft-eval"].append(ours["seconds"])

        start = time.perf_counter()
        bleu = BLEU().corpus_score([prediction for prediction, _ in pairs], [[reference for _, reference in pairs]])
        times["sacrebleu"].append(time.perf_counter() - start)
        assert abs(ours["score"] - bleu.score) < 1e-9, (ours, bleu)

medians = {name: statistics.median(seconds) for name, seconds in times.items()}
print(json.dumps({**medians, "ratio": medians["sacrebleu"] / medians["ft-eval"], "runs": times, "score": bleu.score}))
