"""Scores of sacreBLEU 2.6.0 and of evaluate's BLEU, into translation.json beside this file.

`texts` are pairs of [prediction, references]; a case names some of them by number, the options, and what came out.
evaluate's metric is a script of the hub around TensorFlow's nmt: its formula is written out here, over sacreBLEU's 13a.
"""

import json
import math
import random
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import sacrebleu
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from nasty_texts import edited, pairs

assert version("sacrebleu") == "2.6.0"
rng = random.Random(5)

MORE = ["Er sagte: „Ja, 3,5%!“ -- wirklich?", "他说:“是的,3.5%!”——真的吗?", "中文，逗号。句号！", "カタカナとひらがな、漢字。", "ひらがな", "カタカナ",
        "الثمن 1,234.50 دولار.", "a&amp;b &quot;c&quot; &lt;d&gt; &amp;lt;", "end-\nof line", "x\n-y", "<skipped>word", "John's cat's 's",
        "1.5-2.5 3-4 -5 5- a-b", "U.S.A. ... e.g.,x 1,000.", "🦀🦀 🎉", "e\u0301 é ﬁ", "\ufeffbom", "zero\u200bwidth", "㈱ ㍿ ① Ⅷ", "〔x〕｡ ・",
        "“quotes” — dash … ellipsis", "⺀ ㇀ ⿰ 豈 ︰ 㐀 𠀀", "€5 £6 ¥7 $8 ±9 ×2", "a\x1cb\x85c\u2028d", "(hi) [there] {you}", "x" * 80, "a b " * 60]

texts = [[a, [b]] for a, b in pairs(3, 260, 25)]
for text in MORE:
    texts.append([text, [text]])
    texts.append([edited(rng, text), [text]])
    texts.append([text, [rng.choice(MORE)]])
for a, b in pairs(4, 110, 14)[40:]:
    texts.append([a, [edited(rng, b) for _ in range(rng.randint(2, 4))]])
few = "a b c d e f".split()
for _ in range(110):  # Many equal words: many shifts to choose from.
    words = [rng.choice(few[: rng.randint(2, 6)]) for _ in range(rng.randint(1, 30))]
    moved = words[:]
    for _ in range(rng.randint(1, 3)):
        i, n = rng.randrange(len(moved)), rng.randint(1, 5)
        part, rest = moved[i : i + n], moved[:i] + moved[i + n :]
        j = rng.randint(0, len(rest))
        moved = rest[:j] + part + rest[j:]
    if rng.random() < 0.6:
        moved = edited(rng, " ".join(moved)).split()
    texts.append([" ".join(moved), [" ".join(words)]])
for i in range(8):  # Very different lengths, and more words than shifts reach.
    long = " ".join(rng.choice(few) for _ in range(rng.randint(60, 130)))
    texts.append(["a b", [long]] if i % 2 else [long, [edited(rng, long)]])

SMOOTH = [("exp", None), ("none", None), ("floor", None), ("floor", 0.25), ("add-k", None), ("add-k", 2.5)]


def corpus(size):
    """Numbers of texts with equally many references."""
    chosen = rng.sample(range(len(texts)), size)
    count = min(len(texts[i][1]) for i in chosen)
    return chosen, count


def score(metric, chosen, count):
    hyps = [texts[i][0] for i in chosen]
    refs = [[texts[i][1][k] for i in chosen] for k in range(count)]
    found = metric.corpus_score(hyps, refs)
    return found, str(metric.get_signature())


def hf_bleu(chosen, count, order, smooth):
    words = Tokenizer13a()
    matches, possible, length, reference = [0] * order, [0] * order, 0, 0
    ngrams = lambda w: Counter(tuple(w[i : i + n]) for n in range(1, order + 1) for i in range(len(w) - n + 1))
    for i in chosen:
        hyp, refs = words(texts[i][0]).split(), [words(r).split() for r in texts[i][1][:count]]
        length, reference = length + len(hyp), reference + min(map(len, refs))
        merged = Counter()
        for ref in refs:
            merged |= ngrams(ref)
        for ngram, n in (ngrams(hyp) & merged).items():
            matches[len(ngram) - 1] += n
        for n in range(order):
            possible[n] += max(len(hyp) - n, 0)
    precisions = [(m + 1) / (p + 1) if smooth else m / p if p else 0.0 for m, p in zip(matches, possible)]
    mean = math.exp(sum(1 / order * math.log(p) for p in precisions)) if min(precisions) > 0 else 0.0
    if not length or not reference:
        return [0.0, precisions, 0.0, None, length, reference]
    ratio = length / reference
    bp = 1.0 if ratio > 1 else math.exp(1 - 1 / ratio)
    return [mean * bp, precisions, bp, ratio, length, reference]


bleu, hf = [], []
for i in range(700):
    chosen, count = corpus(1 if i % 3 == 0 else rng.randint(2, 25))
    method, value = rng.choice(SMOOTH)
    options = {
        "tokenize": ["13a", "intl", "char", "zh", "none"][i % 5],
        "smooth_method": method,
        "smooth_value": value,
        "lowercase": rng.random() < 0.3,
        "max_ngram_order": rng.choice([4, 4, 4, 1, 2, 6]),
        "effective_order": rng.random() < 0.5,
    }
    found, signature = score(BLEU(force=True, **options), chosen, count)
    bleu.append([chosen, count, options, [found.score, found.counts, found.totals, found.precisions, found.bp, found.sys_len, found.ref_len], signature])
for i in range(250):
    chosen, count = corpus(1 if i % 4 == 0 else rng.randint(2, 20))
    order, smooth = rng.choice([4, 4, 1, 2, 5]), i % 2 == 0
    hf.append([chosen, count, order, smooth, hf_bleu(chosen, count, order, smooth)])
for text in range(len(texts)):  # Every text by itself, in every tokenizer.
    options = {"tokenize": ["13a", "intl", "char", "zh", "none"][text % 5], "smooth_method": "exp", "smooth_value": None, "lowercase": False, "max_ngram_order": 4, "effective_order": True}
    found, signature = score(BLEU(force=True, **options), [text], 1)
    bleu.append([[text], 1, options, [found.score, found.counts, found.totals, found.precisions, found.bp, found.sys_len, found.ref_len], signature])

chrf, ter = [], []
for i in range(400):
    chosen, count = corpus(1 if i % 2 == 0 else rng.randint(2, 20))
    options = {
        "char_order": rng.choice([6, 6, 1, 3, 0]),
        "word_order": rng.choice([0, 2, 1, 3]),
        "beta": rng.choice([2, 2, 1, 3]),
        "lowercase": rng.random() < 0.3,
        "whitespace": rng.random() < 0.3,
        "eps_smoothing": rng.random() < 0.3,
    }
    if options["char_order"] + options["word_order"] == 0:
        options["word_order"] = 2
    found, signature = score(CHRF(**options), chosen, count)
    chrf.append([chosen, count, options, found.score, signature])
for i in range(len(texts) + 200):
    chosen, count = ([i], rng.randint(1, len(texts[i][1]))) if i < len(texts) else corpus(rng.randint(2, 12))
    options = {key: rng.random() < 0.4 for key in ["normalized", "no_punct", "asian_support", "case_sensitive"]}
    found, signature = score(TER(**options), chosen, count)
    ter.append([chosen, count, options, [found.score, found.num_edits, found.ref_length], signature])

# References of different numbers, and what the one-line functions give.
metric = BLEU()
metric.corpus_score(["a b c d", "e f g h"], [["a b c d", "e f g"], [None, "e f g h"]])
sentence = sacrebleu.sentence_bleu("the cat sat", ["the cat sat down"]).score
Path(__file__).with_suffix(".json").write_text(json.dumps({
    "texts": texts, "bleu": bleu, "hf_bleu": hf, "chrf": chrf, "ter": ter,
    "signature_of_different_numbers": str(metric.get_signature()), "sentence_bleu": sentence,
}, ensure_ascii=False, separators=(",", ":")))
print(len(texts), len(bleu), len(hf), len(chrf), len(ter))
