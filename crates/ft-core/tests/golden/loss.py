"""Next-token cross-entropy and its gradients with PyTorch: writes loss.safetensors.

torch 2.15.0, safetensors 0.8.0. Run from anywhere: python loss.py
Deterministic: the same versions write the same bytes.

hidden [2, 7, 8], weight [23, 8] (the head), labels [2, 7] with -100 where masked, among others first,
last, and in a row; sum [1] of -log softmax over the labels that count, position t scored on
labels[t + 1]; count [1]; grad_hidden and grad_weight of the sum.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

for package, pinned in {"torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

IGNORE_INDEX = -100

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(7)
hidden = torch.randn(2, 7, 8, generator=generator)
weight = torch.randn(23, 8, generator=generator)
labels = torch.randint(0, 23, (2, 7), generator=generator)
# Row 0 begins with a label, which nothing predicts and which must not count.
labels[0, 2:4] = IGNORE_INDEX
labels[1, [0, 1, 6]] = IGNORE_INDEX

# In f64, so that the golden numbers are exact to f32.
h = hidden.double().requires_grad_()
w = weight.double().requires_grad_()
logits = (h @ w.T)[:, :-1].reshape(-1, 23)
targets = labels[:, 1:].reshape(-1)
loss = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
loss.backward()

count = (targets != IGNORE_INDEX).sum()
tensors = {
    "hidden": hidden,
    "weight": weight,
    "labels": labels,
    "sum": loss.detach().float().reshape(1),
    "count": count.reshape(1),
    "grad_hidden": h.grad.float(),
    "grad_weight": w.grad.float(),
}
save_file(tensors, Path(__file__).parent / "loss.safetensors")
print(f"sum {loss.item():.6f} over {count.item()} labels")
