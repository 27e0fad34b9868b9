"""Compares embeddings that the example `embed` wrote with those of sentence-transformers.

    cargo run --release --example embed -- --model DIR --texts rows.json --columns instruction,output --limit 1000 --output e.npy
    python embeddings.py --model DIR --texts rows.json --columns instruction,output --limit 1000 --embeddings e.npy

sentence-transformers 6.2.0. Prints one JSON line: the largest difference of two numbers, and the least cosine. Fails if the difference is above
1e-5, or the cosine below 0.999999.
"""

import argparse
import json

import numpy as np
from sentence_transformers import SentenceTransformer

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
parser.add_argument("--texts", required=True)
parser.add_argument("--columns", required=True)
parser.add_argument("--limit", type=int, default=1000)
parser.add_argument("--embeddings", required=True)
args = parser.parse_args()
rows = json.load(open(args.texts, encoding="utf-8"))
texts = [row[column] for row in rows for column in args.columns.split(",")][: args.limit]
found = np.load(args.embeddings)
expected = SentenceTransformer(args.model, device="cpu").encode(texts, show_progress_bar=False)
difference = float(np.abs(found - expected).max())
cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
print(json.dumps({"texts": len(texts), "largest_difference": difference, "least_cosine": float(cosines.min())}))
assert difference <= 1e-5 and cosines.min() >= 0.999999
