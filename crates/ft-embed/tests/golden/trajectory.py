"""Ten steps of sentence-transformers with MultipleNegativesRankingLoss on all-MiniLM-L6-v2.

torch 2.15.0, sentence-transformers 6.2.0. Run from anywhere: python trajectory.py FOLDER_OF_THE_MODEL

trajectory.json holds the losses, the pairs of all steps in order, and the settings. No dropout, AdamW without weight decay at a constant
rate, no clipping.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

for package, pinned in {"torch": "2.15.0", "sentence-transformers": "6.2.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
BATCH, STEPS, RATE = 8, 10, 2e-5
rows = []
for line in open(HERE.parents[3] / "examples" / "data" / "instructions.jsonl", encoding="utf-8"):
    question, answer = (message["content"] for message in json.loads(line)["messages"][:2])
    if all(question != q and answer != a for q, a in rows[-BATCH:]):
        rows.append([question, answer])
    if len(rows) == BATCH * STEPS:
        break
# Each question gets the answer of the next one, or there would be nothing to learn.
for start in range(0, len(rows), BATCH):
    answers = [answer for _, answer in rows[start : start + BATCH]]
    for i in range(BATCH):
        rows[start + i][1] = answers[(i + 1) % BATCH]
model = SentenceTransformer(sys.argv[1], device="cpu")
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
model.train()
loss_of = MultipleNegativesRankingLoss(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
losses = []
for start in range(0, len(rows), BATCH):
    part = rows[start : start + BATCH]
    loss = loss_of([model.preprocess([row[column] for row in part]) for column in (0, 1)], None)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item())
json.dump({"pairs": rows, "losses": losses, "batch": BATCH, "learning_rate": RATE}, open(HERE / "trajectory.json", "w"))
print(losses)
