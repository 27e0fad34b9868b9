"""Corpus BLEU over 100,000 pairs of sentences: sacreBLEU 2.6.0 against ft-eval, alternating.

    python crates/ft-eval/benches/bleu.py [RUNS]      from the root of the workspace
"""

from importlib.metadata import version

from sacrebleu.metrics import BLEU

from pairs import compare, edited, line, rng

assert version("sacrebleu") == "2.6.0"


def sentence(words):
    text = " ".join(word + rng.choice([",", ":", "-", " 3.5%"]) if rng.random() < 0.08 else word for word in words)
    return text.capitalize() + rng.choice([".", "!", "?", ' "etc."'])


pairs = []
for _ in range(100_000):
    reference = line()
    pairs.append((sentence(edited(reference)), sentence(reference)))


def score():
    return BLEU().corpus_score([prediction for prediction, _ in pairs], [[reference for _, reference in pairs]]).score


compare("bleu", "sacrebleu", pairs, score, lambda ours, theirs: abs(ours["score"] - theirs) < 1e-9)
