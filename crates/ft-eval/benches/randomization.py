"""ft's randomization test compared with SciPy's and ranx's, alternately, on the same scores.

Build first: cargo bench -p ft-eval --bench randomization --no-run. Then
python randomization.py PATH_OF_THE_EXECUTABLE [ITEMS] [PERMUTATIONS]
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time

import numpy
from ranx.statistical_tests.fisher_randomization_test import fisher_randomization_test
from scipy import stats

ROUNDS = 7
binary = sys.argv[1]
items = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
permutations = int(sys.argv[3]) if len(sys.argv) > 3 else 10_000

random = numpy.random.default_rng(0)
a = random.random(items)
b = a + random.normal(0.01, 0.2, items)
file = tempfile.NamedTemporaryFile("w", suffix=".json")
json.dump([a.tolist(), b.tolist()], file)
file.flush()


def ours():
    line = subprocess.run([binary, file.name, str(permutations)], capture_output=True, text=True, check=True)
    return tuple(map(float, line.stdout.split()))


def timed(test):
    def run():
        start = time.perf_counter()
        p = test()
        return time.perf_counter() - start, p

    return run


def scipy_two_samples():
    mean = lambda x, y, axis: numpy.mean(x - y, axis=axis)
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": permutations}
    return stats.permutation_test((a, b), mean, **options).pvalue


def scipy_signs():
    # One sample of differences: their signs are flipped, which is SciPy's quickest way.
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": permutations}
    return stats.permutation_test((a - b,), numpy.mean, **options).pvalue


def ranx():
    return fisher_randomization_test(a, b, n_permutations=permutations)[0]


tests = {
    "ft": ours,
    "scipy, two samples": timed(scipy_two_samples),
    "scipy, signs": timed(scipy_signs),
    "ranx": timed(ranx),
}
for test in tests.values():
    test()  # numba compiles
times = {name: [] for name in tests}
for _ in range(ROUNDS):
    for name, test in tests.items():
        seconds, p = test()
        times[name].append((seconds, p))
ft = statistics.median(s for s, _ in times["ft"])
print(f"{items} items, {permutations} permutations, medians of {ROUNDS} rounds in turn")
for name, runs in times.items():
    seconds = statistics.median(s for s, _ in runs)
    print(f"{name:20} {1e3 * seconds:10.3f} ms  {seconds / ft:8.1f} x  p {runs[-1][1]:.4f}")
