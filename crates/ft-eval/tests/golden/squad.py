"""Scores of SQuAD 1.1 and 2.0, into squad.json beside this file.

    python squad.py transformers-4.57.1-py3-none-any.whl

1.1: the functions of the official script that lm_eval 0.4.13 carries (`normalize_answer`,
`f1_abstractive`), best over the answers and mean over the questions as that script does. 2.0:
`squad_evaluate` of transformers 4.57.1, read from the wheel since later versions dropped it.
"""

import json
import random
import sys
import types
import zipfile
from importlib.metadata import version
from pathlib import Path

from lm_eval.tasks.qasper.metrics import f1_abstractive, normalize_answer

from nasty_texts import COMMON, EDGE, ODD, edited, text

assert version("lm_eval") == "0.4.13" and Path(sys.argv[1]).name == "transformers-4.57.1-py3-none-any.whl"
source = zipfile.ZipFile(sys.argv[1]).read("transformers/data/metrics/squad_metrics.py").decode()
source = source.replace("from ...models.bert import BasicTokenizer\nfrom ...utils import logging", "import logging")
source = source.replace("logging.get_logger", "logging.getLogger")
script = types.ModuleType("squad_metrics")
exec(source, script.__dict__)

rng = random.Random(9)
ANSWERS = ["", " ", "the", "The", "a an the", ".", "!?", "a\u0301", "the\u0301 cat", "_the_", "the_cat", "an-other", "A.", "U.S.",
           "1976", "1,976", "the cat", "cat", "a cat", "cat cat dog", "dog cat cat", "Ⅷ a", "²a", "a²", "Ⓐa", "東京 the", "thé", "the\u200dcat",
           "the\x1ccat", "the\u00a0cat", "naïve", "NAÏVE", "“the”", "İ the", "ΟΔΟΣ", "οδος", "\x00"]
POOL = ANSWERS + EDGE[:20] + COMMON[:40] + ODD


def answer():
    draw = rng.random()
    return rng.choice(ANSWERS) if draw < 0.4 else rng.choice(POOL) if draw < 0.7 else text(rng, 6)


normalized = [[a, normalize_answer(a)] for a in dict.fromkeys(POOL + [answer() + rng.choice(" .,-_a\u0301") + answer() for _ in range(400)])]
pairs = []
for _ in range(500):
    gold = answer()
    prediction = edited(rng, gold) if rng.random() < 0.7 else answer()
    pairs.append([prediction, gold, float(f1_abstractive([prediction], [gold]))])

sets = []
for i in range(240):
    questions = []
    for _ in range(rng.choice([1, 1, 2, 5, 12])):
        answers = [answer() for _ in range(rng.choice([0, 0, 1, 1, 2, 4]) if i % 3 else rng.randint(1, 3))]
        if i % 10 == 9:
            answers = []
        prediction = rng.choice(["", answer(), rng.choice(answers or [""]), edited(rng, rng.choice(answers or [""]))])
        questions.append([prediction, answers, rng.choice([0.0, 1.0, 0.5, 0.25, -0.0, rng.random(), 1.5])])
    threshold = rng.choice([1.0, 1.0, 0.5, 0.0, rng.random()])
    examples = [types.SimpleNamespace(qas_id=str(q), answers=[{"text": a} for a in answers]) for q, (_, answers, _) in enumerate(questions)]
    predictions = {str(q): prediction for q, (prediction, _, _) in enumerate(questions)}
    probabilities = {str(q): p for q, (_, _, p) in enumerate(questions)} if i % 4 else None
    v2 = script.squad_evaluate(examples, predictions, probabilities, threshold)
    v1 = None
    if all(answers for _, answers, _ in questions):
        exact = [max(normalize_answer(p) == normalize_answer(a) for a in answers) for p, answers, _ in questions]
        f1 = [max(f1_abstractive([p], [a]) for a in answers) for p, answers, _ in questions]
        v1 = {"exact_match": 100.0 * sum(exact) / len(exact), "f1": 100.0 * sum(f1) / len(f1)}
    sets.append({"questions": questions, "threshold": threshold, "probabilities": probabilities is not None, "v1": v1, "v2": v2})
print(len(normalized), len(pairs), len(sets), sum(s["v1"] is not None for s in sets))
Path(__file__).with_suffix(".json").write_text(
    json.dumps({"normalized": normalized, "pairs": pairs, "sets": sets}, ensure_ascii=False, separators=(",", ":"))
)
