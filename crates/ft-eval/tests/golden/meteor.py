"""METEOR of NLTK 3.10.4 with WordNet 3.0, into meteor.json beside this file.

NLTK_DATA must hold WordNet 3.0 as corpora/wordnet. A case is [words of the hypothesis, lists of words of
the references, [alpha, beta, gamma], the score, the score with a WordNet that knows no word].
"""

import json
import random
from pathlib import Path

import nltk
from nltk.corpus import wordnet
from nltk.stem.porter import PorterStemmer
from nltk.translate.meteor_score import meteor_score

from nasty_texts import COMMON, pairs, wordnet_words

assert nltk.__version__ == "3.10.4" and wordnet.get_version() == "3.0"
rng = random.Random(11)
WORDS = wordnet_words()


class Empty:
    def synsets(self, word):
        return []


def respelled(word):
    """A synonym, or the word in another form."""
    found = [n for s in wordnet.synsets(word) for n in s.lemma_names()]
    if found and rng.random() < 0.7:
        return rng.choice(found)
    return word + rng.choice(["s", "ed", "ing", "er", "est", "es", "ly"])


known = rng.sample(WORDS, 300)
cases = [(a.split(), [b.split()]) for a, b in pairs(5, 200, 20, known)]
for _ in range(330):
    pool = rng.choice([known, WORDS, COMMON, COMMON + known])
    reference = [rng.choice(pool) for _ in range(rng.randint(1, 14))]
    hypothesis = [respelled(w) if rng.random() < 0.7 else w for w in reference]
    if rng.random() < 0.5:
        rng.shuffle(hypothesis)
    cases.append((hypothesis, [reference]))
# Words that are their own stems, with synonyms that are: where the third pass finds most.
stem = PorterStemmer().stem
own = [w for w in rng.sample(WORDS, 6000) if stem(w) == w]
for _ in range(160):
    reference = [rng.choice(own) for _ in range(rng.randint(1, 10))]
    hypothesis = []
    for word in reference:
        names = {n for s in wordnet.synsets(word) for n in s.lemma_names() if stem(n) == n}
        hypothesis.append(rng.choice(sorted(names) or [word]))
    if rng.random() < 0.3:
        rng.shuffle(hypothesis)
    cases.append((hypothesis, [reference]))
# Many ways to match, several references.
for _ in range(120):
    few = ["car", "auto", "automobile", "cars", "the", "The", "big", "large", "begin", "start", "started"][: rng.randint(1, 11)]
    words = lambda: [rng.choice(few) for _ in range(rng.randint(0, 8))]
    cases.append((words(), [words() for _ in range(rng.randint(1, 3))]))
for a, b in pairs(6, 180, 15)[100:]:
    cases.append((nltk.word_tokenize(a, preserve_line=True), [nltk.word_tokenize(b, preserve_line=True), a.split()[::-1]]))
for form in ["mice", "ice_cream", "Rome", "ΟΔΟΣ", "İs", "ran", "geese", "best", "Dogs", "axes", "'hood", ".22", "", "_", "s", "es"]:
    cases.append(([form, "x"], [[respelled(form.lower()) for _ in range(3)] + ["x"]]))

out = []
for hypothesis, references in cases:
    options = rng.choice([[0.9, 3, 0.5]] * 3 + [[0.85, 0.2, 0.6], [0.5, 1.0, 0.0], [0, 3, 1], [1, 3, 0.5]])
    named = dict(zip(["alpha", "beta", "gamma"], options))
    scores = [meteor_score(references, hypothesis, wordnet=w, **named) for w in (wordnet, Empty())]
    out.append([hypothesis, references, options, *scores])
print(len(out), sum(row[3] != row[4] for row in out), "with synonyms")
Path(__file__).with_suffix(".json").write_text(json.dumps(out, ensure_ascii=False, separators=(",", ":")))
