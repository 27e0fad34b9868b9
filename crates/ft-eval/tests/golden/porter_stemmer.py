"""Stems of NLTK 3.10.4's PorterStemmer in its default mode, into porter_stemmer.json beside this file."""

import json
import random
from pathlib import Path

import nltk
from nltk.stem.porter import PorterStemmer

from nasty_texts import COMMON, ODD, wordnet_words

assert nltk.__version__ == "3.10.4", nltk.__version__
rng = random.Random(20)

ENDINGS = """s es ies sses ss ed eed ied ing y ly ational tional enci anci izer bli abli alli entli eli ousli ization
ation ator alism iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance
ence er ic able ible ant ement ment ent sion tion ion ou ism ate iti ous ive ize e ll lle *ded *ding at bl iz""".split()
LETTERS = "aeiouybcdlstz"

words = list(dict.fromkeys(COMMON + ODD))
words += list("abcdefghijklmnopqrstuvwxyzABCYZ019'éΣİ")
words += "sky skies Skies dying DYING lying tying news innings inning outings outing cannings canning howe".split()
words += "proceed exceed succeed proceeds exceeding succeeded".split()
words += rng.sample(wordnet_words(), 2500)
for word in rng.sample(wordnet_words(), 900):
    words.append(word + rng.choice(ENDINGS))
for _ in range(900):
    stem = "".join(rng.choice(LETTERS) for _ in range(rng.randint(0, 6)))
    words.append(stem + "".join(rng.choice(ENDINGS) for _ in range(rng.randint(0, 2))))
for _ in range(250):
    word = list(rng.choice(words) + rng.choice(ENDINGS))
    word.insert(rng.randint(0, len(word)), rng.choice("'-0 éñßÉİΣς東\u0301yY*"))
    words.append("".join(word))
words += [w.upper() for w in rng.sample(words, 100)] + ["", "y" * 50, "yyyyying", "İs", "İes", "ΑΣ", "a*ded", "*ding"]
words = list(dict.fromkeys(words))

stemmer = PorterStemmer()
cases = [[word, stemmer.stem(word)] for word in words]
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")))
print(len(cases))
