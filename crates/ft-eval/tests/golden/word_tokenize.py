"""Words of NLTK 3.10.4's word_tokenize(preserve_line=True), into word_tokenize.json beside this file."""

import json
import random
from pathlib import Path

import nltk

from nasty_texts import COMMON, EDGE, ODD, text

assert nltk.__version__ == "3.10.4", nltk.__version__
rng = random.Random(3)

PIECES = """' '' ''' " "" ` `` ``` . .. ... .... , : ; ! ? -- --- – — ( ) [ ] { } < > * & @ # $ % « » “ ” ‘ ’ „ 's 'S 'm 'd 'll 'LL
're 've n't N'T 't 'n 'em 'til 'ſ s' cannot CANNOT Cannot cannots d'ye D'Ye gimme GIMME gımme gİmme gonna gotta lemme
more'n wanna wanna. 'tis 'Tis 'tıs 'tiſ 'twas 'TWAS _cannot cannot_ écannot cannot\u0301 can not 3,000 3,a a:b 3:4 a.b U.S. Mr. 'a' "a" ''a'' é'é 'é
\u0301'a '\u0301 東'京 '１ '_ \u200d'a x\u200d'a Ⓐ'a '² ²'a \u200ccannot Ⓐcannot ²cannot""".split()
SEPARATORS = ["", "", "", " ", " ", "  ", "\n", "\t", "\u00a0", "\x1c", "\u2028", "\r\n"]

lines = EDGE + PIECES + ODD
lines += ["".join(rng.choice(PIECES + COMMON[:30]) + rng.choice(SEPARATORS) for _ in range(rng.randint(1, 9))) for _ in range(700)]
lines += [a + b + c for a in ["", " ", "x", "(", "'"] for b in PIECES[:40] for c in ["", " ", "x", "\n"] if rng.random() < 0.4]
lines += [rng.choice("'\"`([") + word + rng.choice(["'", '"', "''", "”", "’", ")", "."]) + rng.choice(["", ".", "\n", ". ", ".)"]) for word in COMMON + ODD]
lines += [text(rng, 25) for _ in range(150)]
lines += [
    'Good muffins cost $3.88 (roughly 3,36 euros)\nin New York.  Please buy me\ntwo of them.\nThanks.',
    "\"We beat some pretty good teams to get here,\" Slocum said.",
    "The unicode 201d ”LEFT DOUBLE QUOTATION MARK” is also possible.",
    "It's 'a quoted' word, I'd say; 'twasn't he who'd've gone.",
]
lines = list(dict.fromkeys(lines))
cases = [[line, nltk.word_tokenize(line, preserve_line=True)] for line in lines]
Path(__file__).with_suffix(".json").write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")))
print(len(cases))
