"""Words and texts for golden files, everyday ones and those that break naive code."""

import gzip
import random
from pathlib import Path

WORDNET = Path(__file__).parents[2] / "assets" / "wordnet-3.0.txt.gz"

COMMON = """the a an of to in and is was for that it with as on be at by this had not are but from or have
they which one you were her all she there would their we him been has when who will more no if out so said
what up its about into than them can only other new some could time these two may then do first any my now
such like our over man me even most made after also did many before must through back years where much your
way well down should because each just those people how too little state good very make world still own see
men work long get here between both life being under never day same another know while last might us great
old year off come since against go came right used take three dogs dog cat cats running ran runs walked
walking dying died lies lying skies sky news happier happiest quickly national nationally relational
generously hopping hoped police killed gunman president speaks media Illinois house homes car automobile
cars children child better best worse mice mouse feet foot ate eaten big large huge begin start commence
buy purchase purchased quick fast rapid sofa couch physician doctor film movie pictures""".split()

ODD = """don't can't we'll it's John's 'tis 3.14 1,000,000 $5.99 50% U.S. e.g. etc... --- -- ... co-operate
well-known naïve café Zürich ÉCOLE ΟΔΟΣ ὈΔΥΣΣΕΎΣ Москва привет 東京 北京大学 ラーメン 한국어 हिन्दी مرحبا שלום
İstanbul ıssız ﬁnal ß STRASSE Ⅷ ² ½ ① K Å e\u0301 cafe\u0301 😀 👩‍👩‍👧 x_y _ __init__ a.b.c http://a.b/c?d=e&f=g
user@example.com #tag (paren) [bracket] {brace} <tag> "quoted" ``quoted'' 'single' “curly” ‘curly’ «guil»
„low“ – — ― ! ? ; : , . * & @ % a I ii sses ies ss s ing ed eed ied y yy yyy zzz""".split()

SPACES = [" ", " ", " ", " ", " ", " ", "  ", "\t", "\n", "\u00a0", "\u3000", " , ", ", ", ". ", "! ", "\x1c", "\x85", "\u2028"]

EDGE = ["", " ", "\n", "\t \n", ".", "...", "\u00a0", "\x00", "a", "A", "the", "the the the the", "a an the", "🙂",
        "\u0301", "é", "e\u0301", "東京 東京", "\n\nfirst\n\nsecond\n", "a\nb\nc", "a b c", "c b a", "no\r\nreturn\r\n",
        "x" * 300, "a " * 200, "word " * 70 + "end", "'", "''", '"', '""', "' '", "--", "$", "can't won't"]


def wordnet_words():
    """Single words of the packed WordNet, sorted."""
    sections = gzip.decompress(WORDNET.read_bytes()).decode().split("\n\n")[:4]
    return sorted({w for s in sections for line in s.split("\n") for w in line.split("|")[0].split()})


def text(rng, longest=30, rare=()):
    """A text of some words, now and then with odd ones and odd spaces."""
    pool = rng.choice([COMMON[:12], COMMON, COMMON, COMMON + ODD, ODD, COMMON + list(rare)])
    spaces = SPACES if rng.random() < 0.4 else [" "]
    parts = []
    for _ in range(rng.randint(0, longest)):
        word = rng.choice(pool)
        draw = rng.random()
        if draw < 0.05:
            word = word.upper()
        elif draw < 0.1:
            word = word.capitalize()
        elif draw < 0.14:
            word += rng.choice(["s", "ed", "ing", "ly", "er", "ness", "'s", "."])
        parts += [word, rng.choice(spaces)]
    return "".join(parts[: -1 if rng.random() < 0.8 else None])


def edited(rng, source, rare=()):
    """The text with words dropped, doubled, swapped, replaced, respelled or moved."""
    words = source.split(" ")
    for _ in range(rng.randint(0, 1 + len(words) // 3)):
        i = rng.randrange(len(words)) if words else 0
        draw = rng.randrange(7)
        if not words or draw == 0:
            words.insert(i, rng.choice(COMMON + list(rare)))
        elif draw == 1:
            del words[i]
        elif draw == 2:
            words.insert(i, words[i])
        elif draw == 3:
            j = rng.randrange(len(words))
            words[i], words[j] = words[j], words[i]
        elif draw == 4:
            words[i] = rng.choice([words[i].upper(), words[i].lower(), words[i] + "s", words[i][:-1]])
        elif draw == 5:
            words[i] = rng.choice(ODD)
        else:
            words = words[i:] + words[:i]
    return " ".join(words)


def pairs(seed, count, longest=30, rare=()):
    """Pairs of texts: edge cases against each other, then generated ones."""
    rng = random.Random(seed)
    found = [(a, b) for i, a in enumerate(EDGE) for b in (a, EDGE[(i * 7 + 3) % len(EDGE)], "the cat sat.")]
    while len(found) < count:
        source = text(rng, longest, rare)
        found.append((edited(rng, source, rare) if rng.random() < 0.8 else text(rng, longest, rare), source))
    return found[:count]
