"""Recall of `clean_dataset` on the corpus with planted copies that the peers' minhash.py makes (rows of `text`, `dup_of`).

python near_duplicates.py CORPUS.jsonl REMOVED.json     (the last line of `clean_dataset --data CORPUS.jsonl --report R.md --json`)

A planted pair is found if one of its two rows is removed. The peer counts a pair whose rows are in one cluster, which is the same
where no row has two copies.
"""
import json
import re
import sys

WORD = re.compile(r"\W+")


def shingles(text, n=5):
    words = [word for word in WORD.split(text.lower()) if word]
    return {" ".join(words[i : i + n]) for i in range(max(1, len(words) - n + 1))}


rows = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
found = json.loads(open(sys.argv[2], encoding="utf-8").read().splitlines()[-1])
removed = {row - 1 for row in found["removed_rows"]}
planted, pairs = set(), {}
for i, row in enumerate(rows):
    of = row["dup_of"]
    if of is None:
        continue
    planted |= {i, of}
    x, y = shingles(row["text"]), shingles(rows[of]["text"])
    similarity = len(x & y) / len(x | y)
    name = next(n for n, low in (("j>=0.9", 0.9), ("0.8-0.9", 0.8), ("0.7-0.8", 0.7), ("0.5-0.7", 0.5), ("j<0.5", -1)) if similarity >= low)
    for key in ("all", name):
        pairs.setdefault(key, []).append(max(i, of) in removed)
print(json.dumps({
    "rows_per_s": found["rows_per_s"], "seconds": found["seconds"], "peak_rss_mb": found["peak_rss_mb"], "removed": len(removed),
    "removed_unplanted": len(removed - planted), "recall": {k: [round(sum(v) / len(v), 4), len(v)] for k, v in pairs.items()},
}))
