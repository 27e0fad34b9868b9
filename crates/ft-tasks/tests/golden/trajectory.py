"""The losses of ten steps of transformers on all-MiniLM-L6-v2 with three classes, from texts made here.

torch 2.15.0, transformers 5.23.0. python trajectory.py FOLDER-OF-ALL-MINILM-L6-V2. Writes trajectory.json. The head is
classifier.weight[i] = 0.05 * sin(1 + i), counted over all numbers, bias 0; the pooler is that of the checkpoint; dropout is 0. AdamW at a constant rate of
5e-5, no weight decay, no clipping, batches of 8 in order, at most 48 tokens.
"""

import importlib.metadata
import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

LABELS = ["bad", "fair", "good"]
THINGS = ["kettle", "lamp", "blanket", "backpack", "keyboard", "frying pan", "tent", "umbrella"]
SAYINGS = {
    "bad": ["It broke after two days.", "I sent it back at once.", "The worst purchase of this year, and nobody answers my letters about it."],
    "fair": ["It does what it should.", "Not bad, not great.", "For the price nobody can complain, although the colour is another one than in the picture."],
    "good": ["I love it!", "Better than all others that I had.", "My whole family uses it every day, and it still looks like new."],
}
rows = []
for number in range(80):
    label = LABELS[(number * number + number // 3) % 3]
    text = f"I bought this {THINGS[number % 8]} {number % 5 + 1} weeks ago. {SAYINGS[label][number % 3]}"
    rows.append({"text": text, "pair": f"What do you think of the {THINGS[number % 8]}?" if number % 4 == 0 else None, "label": label})
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForSequenceClassification.from_pretrained(
    sys.argv[1], num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
)
with torch.no_grad():
    index = torch.arange(1, model.classifier.weight.numel() + 1, dtype=torch.float64)
    model.classifier.weight.copy_((0.05 * index.sin()).reshape(model.classifier.weight.shape))
    model.classifier.bias.zero_()
model.train()
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.0)
losses = []
for step in range(10):
    batch = rows[8 * step : 8 * step + 8]
    # Texts alone and pairs are told apart row by row, as ft does.
    encoded = [tokenizer(row["text"], row["pair"], truncation=True, max_length=48) for row in batch]
    encoded = tokenizer.pad(encoded, return_tensors="pt")
    loss = model(**encoded, labels=torch.tensor([LABELS.index(row["label"]) for row in batch])).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    print(step, loss.item())
(Path(__file__).parent / "trajectory.json").write_text(json.dumps({"labels": LABELS, "rows": rows, "losses": losses}))
