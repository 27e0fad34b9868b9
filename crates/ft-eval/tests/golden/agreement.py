"""What scikit-learn, statsmodels and krippendorff say about agreement: writes agreement.json."""

import importlib.metadata
import json
import math
import pathlib
import random
import warnings

import krippendorff
import numpy
import sklearn
import statsmodels
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from statsmodels.stats.inter_rater import aggregate_raters, cohens_kappa, fleiss_kappa

assert sklearn.__version__ == "1.9.1", sklearn.__version__
assert statsmodels.__version__ == "0.15.0", statsmodels.__version__
assert importlib.metadata.version("krippendorff") == "0.9.0"
warnings.simplefilter("ignore")
random.seed(20261124)

SCALES = [
    [1, 2],
    [0, 1],
    [1, 2, 3],
    [1, 2, 3, 4, 5],
    [-2, -1, 0, 1, 2],
    [1, 2, 9, 100],
    [0.5, 1.0, 1.5, 2.25],
    list(range(10)),
    [-3.5, 0.0, 3.5, 1e-3],
    [7],
]
WORDS = [["yes", "no"], ["good", "Good", "bad", "fair"], ["ä", "z", "日本", "é"], ["a", "b", "c", "d", "e", "f"], ["same"]]


def number(x):
    """None is NaN."""
    return None if x is None or math.isnan(x) else float(f"{x:.14g}")


def rate(scale, raters, items, agreement):
    rows = []
    for _ in range(items):
        truth = random.choice(scale)
        rows.append([truth if random.random() < agreement else random.choice(scale) for _ in range(raters)])
    return rows


def cohens():
    cases = []
    while len(cases) < 300:
        scale = random.choice(SCALES + WORDS)
        items = random.choice([1, 2, 3, 5, 10, 20, 60])
        rows = rate(scale, 2, items, random.choice([0, 0, 0.5, 0.9, 1]))
        a, b = [r[0] for r in rows], [r[1] for r in rows]
        if random.random() < 0.1:
            b = [random.choice(scale)] * items
        labels = None
        if random.random() < 0.3:
            labels = random.sample(scale, random.randrange(1, len(scale) + 1))
            if not set(a) & set(labels):
                continue
        elif random.random() < 0.02:
            a = b = [random.choice(scale) for _ in range(400)]
        case = {"a": a, "b": b, "labels": labels}
        if any(isinstance(x, float) for x in scale):
            # scikit-learn takes fractions for a regression: their places instead.
            place = sorted(scale).index
            a, b, labels = [*map(place, a)], [*map(place, b)], labels and [*map(place, labels)]
        values = []
        for weights in [None, "linear", "quadratic"]:
            value = cohen_kappa_score(a, b, weights=weights, labels=labels)
            error = None
            if not math.isnan(value):
                table = confusion_matrix(a, b, labels=labels)
                result = cohens_kappa(table, wt=weights)
                assert abs(result.kappa - value) < 1e-12
                # Rounding may make the variance of perfect agreement negative.
                error = result.std_kappa if result.var_kappa > 1e-15 else 0.0
            values.append([number(value), number(error)])
        cases.append({**case, "expected": values})
    return cases


def fleisses():
    cases = []
    for _ in range(240):
        scale = random.choice(SCALES + WORDS)
        raters = random.choice([1, 2, 2, 3, 3, 5, 8])
        rows = rate(scale, raters, random.choice([1, 2, 3, 8, 25]), random.choice([0, 0.3, 0.8, 1]))
        table, _ = aggregate_raters(numpy.array(rows))
        cases.append({"rows": rows, "table": table.tolist(), "expected": number(fleiss_kappa(table))})
    return cases


def alpha(items, level):
    """None where the package raises, too."""
    try:
        data = numpy.array([[numpy.nan if r is None else r for r in item] for item in items], float).T
        return number(krippendorff.alpha(data, level_of_measurement=level))
    except ValueError:
        return None


def krippendorffs():
    cases = []
    for i in range(300):
        scale = random.choice(SCALES)
        if i % 15 == 0:
            scale = [round(random.uniform(-50, 50), 2) for _ in range(40)]
        items = rate(scale, random.choice([1, 2, 2, 3, 4, 7]), random.choice([1, 2, 3, 8, 20]), random.choice([0, 0.5, 0.8, 1]))
        missing = random.choice([0, 0, 0.2, 0.5, 0.9])
        items = [[None if random.random() < missing else r for r in item] for item in items]
        levels = ["nominal", "ordinal", "interval", "ratio"]
        cases.append({"items": items, "expected": [alpha(items, level) for level in levels]})
    return cases


def krippendorff_words():
    cases = []
    for _ in range(100):
        scale = random.choice(WORDS)
        items = rate(scale, random.choice([2, 3, 5]), random.choice([2, 5, 15]), random.choice([0, 0.6, 1]))
        items = [[None if random.random() < 0.2 else r for r in item] for item in items]
        places = {label: i for i, label in enumerate(sorted(scale))}
        coded = [[None if r is None else places[r] for r in item] for item in items]
        try:
            data = numpy.array([["nan" if r is None else r for r in item] for item in items]).T
            nominal = number(krippendorff.alpha(data, level_of_measurement="nominal"))
        except ValueError:
            nominal = None
        cases.append({"items": items, "expected": [nominal, alpha(coded, "ordinal")]})
    return cases


golden = {
    "cohens": cohens(),
    "fleisses": fleisses(),
    "krippendorffs": krippendorffs(),
    "krippendorff_words": krippendorff_words(),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=False) + "\n")
print({name: len(cases) for name, cases in golden.items()}, path.stat().st_size)
