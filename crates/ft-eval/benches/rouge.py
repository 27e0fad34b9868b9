"""ROUGE-1/2/L/Lsum over 100,000 pairs of two-line summaries: rouge_score 0.1.2 against ft-eval, alternating.

    python crates/ft-eval/benches/rouge.py [RUNS]      from the root of the workspace
"""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

assert version("rouge_score") == "0.1.2"
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
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


def joined(lines):
    return "\n".join(" ".join(words).capitalize() + rng.choice([".", "!", ", etc."]) for words in lines)


pairs = []
for _ in range(100_000):
    reference = [line(), line()]
    pairs.append((joined([edited(words) for words in reference]), joined(reference)))

times = {"rouge_score": [], "ft-eval": []}
with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
    for pair in pairs:
        file.write(json.dumps(pair) + "\n")
    file.flush()
    for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        command = ["cargo", "bench", "--offline", "-q", "-p", "ft-eval", "--bench", "rouge", "--", file.name]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        times["ft-eval"].append(ours["seconds"])

        scorer = RougeScorer(KINDS)
        start = time.perf_counter()
        scores = [scorer.score(reference, prediction) for prediction, reference in pairs]
        theirs = [sum(score[kind].fmeasure for score in scores) / len(scores) for kind in KINDS]
        times["rouge_score"].append(time.perf_counter() - start)
        assert all(abs(a - b) < 1e-9 for a, b in zip(ours["fmeasures"], theirs)), (ours, theirs)

medians = {name: statistics.median(seconds) for name, seconds in times.items()}
print(json.dumps({**medians, "ratio": medians["rouge_score"] / medians["ft-eval"], "runs": times, "fmeasures": theirs}))
