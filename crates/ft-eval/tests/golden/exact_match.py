"""Exact match of lm_eval 0.4.13 (its copy of evaluate's), into exact_match.json beside this file.

NumPy cuts texts to the width of their array when it lower-cases them, and drops NULs at their end. So every pair is
scored in an array with a long one, which is right, and no text here ends in a NUL.
"""

import json
import random
from importlib.metadata import version
from pathlib import Path

from lm_eval.api.metrics import exact_match_hf_evaluate

from nasty_texts import edited, pairs

assert version("lm_eval") == "0.4.13"
rng = random.Random(4)
REGEXES = [[], [], ["the "], [r"\d+", "[a-c]"], [","], ["(?i)CAT", r"\s"], ["^a", "x*"], [r"(?s).*#### "]]

out = []
for prediction, reference in pairs(8, 420, 8):
    draw = rng.random()
    if draw < 0.4:
        prediction = rng.choice([reference, reference.upper(), reference.title(), reference + rng.choice(".,!1 é"), reference.replace(" ", ", ")])
    elif draw < 0.5:
        prediction, reference = f"so #### {rng.randint(0, 9)},000", f"{rng.randint(0, 9)}000"
    if "\x00" in prediction + reference:
        continue
    options = {"ignore_case": rng.random() < 0.5, "ignore_punctuation": rng.random() < 0.5, "ignore_numbers": rng.random() < 0.4}
    regexes = rng.choice(REGEXES)
    long = "x" * 5000
    score = exact_match_hf_evaluate([prediction, long], [reference, long], regexes_to_ignore=regexes or None, **options)["exact_match"]
    out.append([prediction, reference, {"regexes_to_ignore": regexes, **options}, float(2 * score - 1)])
print(len(out), sum(row[3] for row in out))
Path(__file__).with_suffix(".json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")))
