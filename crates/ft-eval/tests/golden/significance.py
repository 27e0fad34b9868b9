"""What SciPy, statsmodels and NumPy say about tests of significance: writes significance.json and tukey.json."""

import json
import math
import pathlib
import random
import warnings

import numpy
import pandas
import scipy
import statsmodels
from scipy import stats
from statsmodels.formula.api import ols
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

assert scipy.__version__ == "1.17.1", scipy.__version__
assert statsmodels.__version__ == "0.15.0", statsmodels.__version__
warnings.simplefilter("ignore")
random.seed(20261124)


def number(x):
    """JSON has no NaN (null here) and no infinities (strings here)."""
    x = float(x)
    return None if math.isnan(x) else float(f"{x:.13g}") if math.isfinite(x) else str(x)


def short(values):
    """Four digits, so that the file stays small."""
    return [float(f"{x:.4g}") for x in values]


def scores(n, kind):
    if kind == "decimal":
        return [round(random.random(), 3) for _ in range(n)]
    if kind == "binary":
        return [float(random.randrange(2)) for _ in range(n)]
    if kind == "grades":
        return [float(random.randrange(5)) for _ in range(n)]
    if kind == "wide":
        return short(random.choice([-1, 1]) * 10 ** random.uniform(-6, 6) for _ in range(n))
    return short(random.gauss(0.5, 0.1) for _ in range(n))


KINDS = ["decimal", "binary", "grades", "wide", "normal"]


def pair(n):
    kind = random.choice(KINDS)
    a, b = scores(n, kind), scores(n, kind)
    how = random.random()
    if how < 0.1:
        b = list(a)
    elif how < 0.2:
        b = [x - 0.25 for x in map(lambda v: round(v * 4) / 4, a)]
        a = [round(v * 4) / 4 for v in a]
    elif how < 0.35:
        b = [x - random.choice([0.0, 0.0, 1.0, 2.0]) for x in a]
    elif how < 0.5:
        b = [x - 5 - random.random() for x in a]
    return a, short(b)


def t_tests():
    cases = []
    sizes = [1, 2, 2, 3, 3, 4, 5, 6, 8, 10, 13, 20, 30, 50]
    for i in range(260):
        a, b = pair(random.choice(sizes) if i % 60 else 400)
        level = random.choice([0.95, 0.99, 0.5])
        test = stats.ttest_rel(a, b)
        interval = test.confidence_interval(level)
        values = [test.statistic, test.pvalue, test.df, interval.low, interval.high]
        cases.append({"a": a, "b": b, "level": level, "expected": [*map(number, values)]})
    return cases


def t_tails():
    degrees = [1, 2, 3, 4, 5, 7, 10, 29, 30, 31, 32, 50, 100, 999, 12345, 1e5, 1e6, 1e7, 0.5, 2.5]
    points = [1e-9, 0.01, 0.3, 0.7, 1, 1.5, 1.96, 2.6, 4, 8, 20, 37, 1000, 1e8]
    tails = [[t, d, 2 * stats.t.sf(t, d)] for d in degrees for t in points]
    quantiles = [[p, d, stats.t.isf(p / 2, d)] for d in degrees for p in [0.9, 0.5, 0.1, 0.05, 0.01, 1e-6]]
    return {
        "tails": [t for t in tails if t[2] > 1e-290],
        "quantiles": quantiles,
        "normal": [[p, stats.norm.isf(p / 2)] for p in [0.99, 0.9, 0.5, 0.1, 0.05, 0.01, 1e-6, 1e-30, 1e-200]],
    }


def randomizations():
    cases = []
    while len(cases) < 220:
        a, b = pair(random.randrange(2, 13))
        d = numpy.subtract(a, b)
        # SciPy's tolerance is relative to the observed difference, so it misses ties where that is rounding.
        if 0 < abs(d.sum()) < 0.02 * abs(d).sum():
            continue
        test = stats.permutation_test(
            (a, b),
            lambda x, y, axis: numpy.mean(x - y, axis=axis),
            permutation_type="samples",
            vectorized=True,
            n_resamples=9999,
        )
        cases.append({"a": a, "b": b, "expected": number(test.pvalue)})
    return cases


def wilcoxons():
    cases = []
    for _ in range(260):
        a, b = pair(random.choice([1, 2, 3, 5, 8, 12, 13, 14, 20, 30, 49, 50, 51, 80]))
        if len(a) == 1 and a == b:
            continue  # SciPy's permutation test refuses it.
        test = stats.wilcoxon(a, b)
        cases.append({"a": a, "b": b, "expected": [number(test.statistic), number(test.pvalue)]})
    return cases


def mcnemars():
    pairs = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 40), (0, 900), (5, 1000), (10**6, 10**6 + 1), (10**6, 10**6 + 4000)]
    pairs += [(499_000, 501_000), (10**9, 10**9 + 10**5), (300, 300), (2, 1), (1000, 30)]
    pairs += [(random.randrange(m), random.randrange(m)) for m in [4, 10, 30, 100, 1000, 10**5] for _ in range(35)]
    cases = []
    for b, c in pairs:
        table = [[7, b], [c, 9]]
        values = []
        for options in [{"exact": True}, {"exact": False}, {"exact": False, "correction": False}]:
            test = mcnemar(table, **options)
            values += [number(test.statistic), number(test.pvalue)]
        cases.append([b, c, *values])
    return cases


def corrections():
    cases = []
    for i in range(240):
        n = [1, 2, 3, 5, 10, 25, 60][i % 7]
        draw = random.choice([random.random, lambda: random.random() ** 4, lambda: round(random.random(), 1)])
        p = short(draw() for _ in range(n))
        if i % 9 == 0:
            p[0] = random.choice([0.0, 1.0, 1e-300])
        if i % 10 == 0:
            p = [random.choice([0.01, 0.05, 0.025, 0.0125]) for _ in p]
        alpha = random.choice([0.05, 0.01, 0.1])
        values = []
        for method in ["holm", "fdr_bh"]:
            reject, corrected, _, _ = multipletests(p, alpha, method)
            values += [[*map(number, corrected)], reject.tolist()]
        cases.append({"p": p, "alpha": alpha, "expected": values})
    return cases


def ranges():
    tails, quantiles = [], []
    for k in [2, 3, 4, 7, 10, 26, 60]:
        for v in [1, 2, 3, 5, 12, 40, 333, 5000, 99_999, 100_000, 10**7]:
            for q in [0.2, 1.0, 2.5, 4.0, 8.0]:
                tails.append([q, k, v, stats.studentized_range.sf(q, k, v)])
    for k, v in [(2, 1), (2, 30), (3, 2), (3, 10), (5, 7), (10, 100), (26, 50), (4, 3000), (6, 200_000)]:
        for p in [0.5, 0.05, 0.01]:
            quantiles.append([p, k, v, stats.studentized_range.isf(p, k, v)])
    return {"tails": tails, "quantiles": quantiles}


def tukeys():
    cases = []
    for i in range(210):
        m = random.choice([2, 2, 3, 3, 4, 5, 6]) if i % 30 else 10
        equal = random.random() < 0.5
        n = random.randrange(2, 12)
        kind = random.choice(KINDS[:3] + ["normal"])
        groups = [scores(n if equal else random.randrange(2, 12), kind) for _ in range(m)]
        if i % 17 == 0:
            groups = [[float(j // 2)] * n for j in range(m)]
        if i % 13 == 0:
            groups[0] = [x + 10 for x in groups[0]]
        test = stats.tukey_hsd(*groups)
        level = random.choice([0.95, 0.99])
        interval = test.confidence_interval(level)
        expected = [
            [*map(number, [test.statistic[i, j], test.pvalue[i, j], interval.low[i, j], interval.high[i, j]])]
            for i in range(m)
            for j in range(i + 1, m)
        ]
        cases.append({"groups": groups, "level": level, "expected": expected})
    return cases


def blocked_tukeys():
    """The variance from statsmodels' linear model of systems and items, the distribution from SciPy."""
    cases = []
    for _ in range(200):
        m, n = random.choice([2, 3, 4, 5]), random.randrange(2, 15)
        items = scores(n, "grades")
        systems = [[round(x + y, 4) for x, y in zip(items, scores(n, random.choice(["normal", "decimal"])))] for _ in range(m)]
        rows = [(f"s{i}", f"t{j}", systems[i][j]) for i in range(m) for j in range(n)]
        frame = pandas.DataFrame(rows, columns=["system", "item", "score"])
        model = ols("score ~ C(system) + C(item)", frame).fit()
        assert model.df_resid == (m - 1) * (n - 1)
        error = math.sqrt(model.mse_resid / n)
        critical = stats.studentized_range.isf(0.05, m, model.df_resid)
        expected = []
        for i in range(m):
            for j in range(i + 1, m):
                d = numpy.mean(systems[i]) - numpy.mean(systems[j])
                p = stats.studentized_range.sf(abs(d) / error, m, model.df_resid)
                expected.append([*map(number, [d, p, d - critical * error, d + critical * error])])
        cases.append({"systems": systems, "expected": expected})
    return cases


def percentiles():
    cases = []
    for _ in range(200):
        values = scores(random.choice([1, 2, 3, 7, 20, 101]), random.choice(KINDS))
        level = random.choice([0.95, 0.9, 0.5, 0.999])
        ends = numpy.percentile(values, [100 * (1 - level) / 2, 100 * (1 + level) / 2])
        cases.append({"values": values, "level": level, "expected": ends.tolist()})
    return cases


def write(name, golden):
    path = pathlib.Path(__file__).with_name(name)
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(name, {of: len(cases) for of, cases in golden.items()}, path.stat().st_size)


write(
    "significance.json",
    {
        "t_tests": t_tests(),
        "distributions": t_tails(),
        "randomizations": randomizations(),
        "wilcoxons": wilcoxons(),
        "mcnemars": mcnemars(),
        "corrections": corrections(),
        "percentiles": percentiles(),
    },
)
write("tukey.json", {"ranges": ranges(), "tukeys": tukeys(), "blocked_tukeys": blocked_tukeys()})
