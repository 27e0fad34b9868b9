"""Packs what METEOR asks of WordNet 3.0 into wordnet-3.0.txt.gz, beside this file.

    python wordnet.py FOLDER          FOLDER holds data.noun, index.noun, noun.exc, ...
    python wordnet.py FOLDER --check  compares the packed file with NLTK 3.10.4 on every lemma too
                                      (NLTK_DATA must hold the same files as corpora/wordnet)

The text has eight sections divided by empty lines: the synsets of nouns, verbs, adjectives and
adverbs, then their exceptions. A synset is `WORDS|KEYS`: words that are synonyms of each other
(one word each, lower case), then lemmas that lead to them but are none themselves (`rome`,
`ice_cream`). METEOR compares lower-cased words, so a name with a capital or an underscore never
matches and is a key at most. An exception is the form, then its lemmas.
"""

import gzip
import sys
from collections import defaultdict
from pathlib import Path

SUFFIXES = ["noun", "verb", "adj", "adv"]


def lines_of(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("  "):
            yield line


def synsets(folder, suffix):
    """The names of each synset as they are spelled, by its offset."""
    found = {}
    for line in lines_of(folder / f"data.{suffix}"):
        fields = line.split()
        count = int(fields[3], 16)
        # "(a)", "(p)" and "(ip)" after an adjective say where it may stand.
        names = [name.split("(")[0] for name in fields[4 : 4 + 2 * count : 2]]
        found[int(fields[0])] = names
    return found


def check_index(folder, suffix, found):
    """A lemma leads to exactly the synsets that name it: the index adds nothing."""
    by_lemma = defaultdict(set)
    for offset, names in found.items():
        for name in names:
            by_lemma[name.lower()].add(offset)
    index = {}
    for line in lines_of(folder / f"index.{suffix}"):
        fields = line.split()
        index[fields[0]] = {int(offset) for offset in fields[-int(fields[2]) :]}
    assert index == by_lemma, suffix


def pack(folder):
    sections = []
    for suffix in SUFFIXES:
        found = synsets(folder, suffix)
        check_index(folder, suffix, found)
        lines = set()
        for names in found.values():
            words = {n for n in names if "_" not in n and n == n.lower()}
            keys = {n.lower() for n in names} - words
            if words:
                lines.add(" ".join(sorted(words)) + ("|" + " ".join(sorted(keys)) if keys else ""))
        sections.append(sorted(lines))
    for suffix in SUFFIXES:
        exceptions = {}
        for line in (folder / f"{suffix}.exc").read_text(encoding="utf-8").splitlines():
            form, *lemmas = line.split()
            exceptions[form] = lemmas  # the last of equals counts
        sections.append(sorted(" ".join([form, *lemmas]) for form, lemmas in exceptions.items()))
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def check_with_nltk(text):
    import nltk
    from nltk.corpus import wordnet

    assert nltk.__version__ == "3.10.4", nltk.__version__
    sections = [section.splitlines() for section in text.rstrip("\n").split("\n\n")]
    tables, exceptions = [], []
    for section in sections[:4]:
        table = defaultdict(set)
        for line in section:
            words, _, keys = line.partition("|")
            for key in words.split() + keys.split():
                table[key].update(words.split())
        tables.append(table)
    for section in sections[4:]:
        exceptions.append({line.split()[0]: line.split()[1:] for line in section})
    rules = wordnet.MORPHOLOGICAL_SUBSTITUTIONS
    forms = set(wordnet.all_lemma_names()) | {form for table in exceptions for form in table}
    forms |= {form + ending for form in list(forms) for ending in ["s", "ed", "ing", "er", "es"]}
    for form in forms:
        expected = {
            name
            for synset in wordnet.synsets(form)
            for name in synset.lemma_names()
            if "_" not in name and name == name.lower()
        }
        found = set()
        for table, irregular, pos in zip(tables, exceptions, "nvar"):
            lemmas = irregular.get(form)
            if lemmas is None:
                lemmas = [form[: -len(o)] + n for o, n in rules[pos] if form.endswith(o)]
            for lemma in [form, *lemmas]:
                found |= table.get(lemma, set())
        assert found == expected, (form, found ^ expected)
    print(f"{len(forms)} forms have NLTK's synonyms")


if __name__ == "__main__":
    packed = pack(Path(sys.argv[1]))
    if "--check" in sys.argv:
        check_with_nltk(packed)
    out = Path(__file__).with_name("wordnet-3.0.txt.gz")
    out.write_bytes(gzip.compress(packed.encode(), 9, mtime=0))
    print(f"{out.name}: {out.stat().st_size} bytes")
