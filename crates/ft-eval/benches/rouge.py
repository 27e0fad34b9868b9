"""ROUGE-1/2/L/Lsum over 100,000 pairs of two-line summaries: rouge_score 0.1.2 against ft-eval, alternating.

    python crates/ft-eval/benches/rouge.py [RUNS]      from the root of the workspace
"""

from importlib.metadata import version

from rouge_score.rouge_scorer import RougeScorer

from pairs import compare, edited, line, rng

assert version("rouge_score") == "0.1.2"
KINDS = ["rouge1", "rouge2", "rougeL", "rougeLsum"]


def joined(lines):
    return "\n".join(" ".join(words).capitalize() + rng.choice([".", "!", ", etc."]) for words in lines)


pairs = []
for _ in range(100_000):
    reference = [line(), line()]
    pairs.append((joined([edited(words) for words in reference]), joined(reference)))


def fmeasures():
    scorer = RougeScorer(KINDS)
    scores = [scorer.score(reference, prediction) for prediction, reference in pairs]
    return [sum(score[kind].fmeasure for score in scores) / len(scores) for kind in KINDS]


compare("rouge", "rouge_score", pairs, fmeasures, lambda ours, theirs: all(abs(a - b) < 1e-9 for a, b in zip(ours["fmeasures"], theirs)))
