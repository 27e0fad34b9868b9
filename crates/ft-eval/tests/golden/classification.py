"""Values of scikit-learn 1.9.1 and seqeval 1.2.2, into classification.json beside this file. The calibration error has no
reference there: its formula (Guo et al., 2017) is written out.
"""

import json
import math
import random
import warnings
from importlib.metadata import version
from pathlib import Path

from seqeval import scheme as schemes
from seqeval.metrics import accuracy_score as tag_accuracy
from seqeval.metrics import classification_report
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import Entities, auto_detect
from sklearn import metrics

warnings.filterwarnings("ignore")
assert version("scikit-learn") == "1.9.1" and version("seqeval") == "1.2.2"
rng = random.Random(11)
plain = lambda x: None if isinstance(x, float) and math.isnan(x) else x


def label_case(i):
    kind = i % 8
    classes = [rng.choice([1, 2, 3, 5, 9]), 2][kind == 0]
    names = [["b", "a", "C", "é", "", "aa", "10", "9", "z"], list(range(-3, 6))][i % 2]
    pool = rng.sample(names, classes)
    n = rng.randint(1, 40)
    true = [rng.choice(pool) for _ in range(n)]
    pred = [t if rng.random() < rng.choice([0.2, 0.6, 1.0]) else rng.choice(pool) for t in true]
    if kind == 1:
        true = [pool[0]] * n
    if kind == 2:
        pred = [pool[0]] * n
    if kind == 3:
        true, pred = [pool[0]] * n, [pool[0]] * n
    if kind == 4 and len(pool) > 1:  # Classes never predicted, and predicted classes that do not occur.
        true, pred = [rng.choice(pool[1:]) for _ in true], [rng.choice(pool[:-1]) for _ in true]
    beta = rng.choice([1.0, 1.0, 0.5, 2.0])
    table = []
    for average in [None, "micro", "macro", "weighted"]:
        p, r, f, s = metrics.precision_recall_fscore_support(true, pred, beta=beta, average=average, zero_division=0)
        table.append([p.tolist(), r.tolist(), f.tolist(), s.tolist()] if average is None else [float(p), float(r), float(f)])
    labels = sorted(set(true) | set(pred))
    return {"true": true, "pred": pred, "beta": beta, "labels": labels, "matrix": metrics.confusion_matrix(true, pred, labels=labels).tolist(),
            "accuracy": float(metrics.accuracy_score(true, pred)), "balanced": float(metrics.balanced_accuracy_score(true, pred)),
            "matthews": float(metrics.matthews_corrcoef(true, pred)), "table": table}


def roc_case(i):
    n = rng.randint(1, 40)
    true = [rng.random() < rng.choice([0.1, 0.5, 1.0]) for _ in range(n)]
    scores = [rng.choice([round(rng.random(), 2), rng.choice([0.0, 0.5, 1.0, -2.0, 1e300])]) for _ in range(n)]
    if i % 6 == 0:
        scores = [0.5] * n
    auc = metrics.roc_auc_score(true, scores) if len(set(true)) == 2 else None
    return [true, scores, None if auc is None else float(auc)]


def multi_case(i):
    classes, n = rng.randint(3, 5), rng.randint(8, 40)
    true = list(range(classes)) + [rng.randrange(classes) for _ in range(n)]
    rows = []
    for t in true:
        row = [rng.choice([rng.randint(0, 9), 4]) + (t == c) * rng.randint(0, 9) for c in range(classes - 1)]
        rows.append([x / 64 for x in row] + [(64 - sum(row)) / 64])
    found = [float(metrics.roc_auc_score(true, rows, multi_class=how, average=average)) for how in ("ovr", "ovo") for average in ("macro", "weighted")]
    return [true, rows, found]


def calibration_case(i):
    n, bins = rng.randint(1, 60), rng.choice([15, 10, 1, 7])
    conf = [rng.choice([round(rng.random(), 3), rng.randrange(bins + 1) / bins, 0.0, 1.0]) for _ in range(n)]
    right = [rng.random() < c for c in conf]
    expected, largest = 0.0, 0.0
    for m in range(bins):
        inside = [k for k in range(n) if (m / bins < conf[k] or m == 0) and conf[k] <= (m + 1) / bins]
        if inside:
            gap = abs(sum(conf[k] for k in inside) / len(inside) - sum(right[k] for k in inside) / len(inside))
            expected, largest = expected + len(inside) / n * gap, max(largest, gap)
    return [conf, right, bins, expected, largest]


POSITIONS = {"IOB1": "IOB", "IOB2": "IOB", "IOE1": "IOE", "IOE2": "IOE", "IOBES": "IOBES", "BILOU": "IOBLU", None: "IOBESLU."}
TYPES = ["PER", "LOC", "A-B", "_", "", "A_B", "-X"]


def tagging_case(i):
    name = list(POSITIONS)[i % 7]
    suffix = rng.random() < 0.3
    types = rng.sample(TYPES[:2] if i % 3 else TYPES, 2)

    def tag():
        position = rng.choice(POSITIONS[name])
        if position == "O" or rng.random() < 0.15:
            return "O"
        kind = rng.choice(types)
        if name is None and rng.random() < 0.1:
            return rng.choice(["B", "I", "x", "PER"])
        if not kind and rng.random() < 0.5:
            return position
        return f"{kind}-{position}" if suffix else f"{position}-{kind}"

    true, pred = [], []
    for _ in range(rng.randint(1, 4)):
        n = rng.randint(0, 12)
        t = [tag() for _ in range(n)]
        true.append(t)
        pred.append([x if rng.random() < 0.7 else tag() for x in t])
    if i % 11 == 0:
        true, pred = [["O"] * 4], [["O"] * 4]
    if not any(true):
        true, pred = [["O"]], [["O"]]
    scheme = getattr(schemes, name) if name else None
    if scheme:
        found = Entities(true, scheme, suffix).entities
        entities = [[[e.tag, e.start, e.end] for e in row] for row in found]
    else:
        entities = [[[kind, start, end + 1] for kind, start, end in get_entities(row, suffix)] for row in true]
    try:
        report = classification_report(true, pred, suffix=suffix, output_dict=True, mode="strict" if scheme else None, scheme=scheme, zero_division=0)
        report = {k: [plain(float(v[x])) for x in ("precision", "recall", "f1-score", "support")] for k, v in report.items()}
    except ValueError:  # seqeval's report of no entity at all.
        report = None
    try:
        detected = auto_detect(true, suffix=suffix).__name__
    except (ValueError, TypeError):
        detected = None
    return {"scheme": name, "suffix": suffix, "true": true, "pred": pred, "entities": entities, "report": report, "detected": detected,
            "accuracy": float(tag_accuracy(true, pred))}


Path(__file__).with_suffix(".json").write_text(json.dumps({
    "labels": [label_case(i) for i in range(240)],
    "roc": [roc_case(i) for i in range(220)],
    "multiclass": [multi_case(i) for i in range(200)],
    "calibration": [calibration_case(i) for i in range(220)],
    "tagging": [tagging_case(i) for i in range(490)],
}, ensure_ascii=False, separators=(",", ":")))
