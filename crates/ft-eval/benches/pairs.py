"""Generated texts, and alternating timings of two implementations on them, for the benchmarks of texts."""

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time

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


def compare(bench, name, pairs, reference, same):
    """Runs both sides as often as the first argument says and prints medians and their ratio. `reference()` is timed as a
    whole; `same` compares the results."""
    times = {name: [], "ft-eval": []}
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for pair in pairs:
            file.write(json.dumps(pair) + "\n")
        file.flush()
        for _ in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
            command = ["cargo", "bench", "--offline", "-q", "-p", "ft-eval", "--bench", bench, "--", file.name]
            ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
            times["ft-eval"].append(ours["seconds"])
            start = time.perf_counter()
            theirs = reference()
            times[name].append(time.perf_counter() - start)
            assert same(ours, theirs), (ours, theirs)
    medians = {side: statistics.median(seconds) for side, seconds in times.items()}
    print(json.dumps({**medians, "ratio": medians[name] / medians["ft-eval"], "runs": times, "values": theirs}))
