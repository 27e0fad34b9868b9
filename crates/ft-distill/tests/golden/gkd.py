"""The divergences of TRL's GKDTrainer over states and heads, with masked tokens, and their gradients, into gkd.json.

    python gkd.py

States and heads are not in the file: number `i` of a tensor is `scale · sin(step · (i + 1))`, in f64 and then f32, on both sides.
"""
import importlib.metadata
import json

import torch
from trl.experimental.gkd import GKDTrainer

for package, pinned in {"trl": "1.16.0", "torch": "2.15.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

ROWS, SEQ, VOCAB, OWN, OTHER = 2, 5, 5003, 6, 4


def waves(step, scale, *shape):
    count = torch.Size(shape).numel()
    index = torch.arange(1, count + 1, dtype=torch.float64)
    return (scale * (step * index).sin()).float().double().reshape(shape)


# The last row ends with padding, whose labels do not count; the first token of a row is predicted by none.
labels = torch.tensor([[-100, -100, 7, 5002, 3], [-100, 4100, 9, -100, -100]])
hidden_of_teacher, head_of_teacher = waves(0.71, 2.0, ROWS, SEQ, OTHER), waves(0.37, 1.5, VOCAB, OTHER)
cases = []
for temperature in (0.5, 1.0, 2.0, 10.0):
    for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
        hidden = waves(0.53, 1.0, ROWS, SEQ, OWN).requires_grad_()
        head = waves(0.29, 1.2, VOCAB, OWN).requires_grad_()
        student, teacher = (hidden @ head.T)[:, :-1], (hidden_of_teacher @ head_of_teacher.T)[:, :-1]
        loss = GKDTrainer.generalized_jsd_loss(student, teacher, labels[:, 1:], beta, temperature, reduction="sum")
        of_hidden, of_head = torch.autograd.grad(loss, [hidden, head])
        cases.append({
            "temperature": temperature, "beta": beta, "divergence": loss.item(), "gradient": of_hidden.flatten().tolist(),
            # All rows of the head's gradient would be a large file: these are some, and a weighted sum over all.
            "gradient_of_head": of_head[[0, 7, 4095, 4096, 5002]].flatten().tolist(),
            "sum_of_head": (of_head * waves(0.83, 1.0, VOCAB, OWN)).sum().item(),
        })
json.dump({"labels": labels.flatten().tolist(), "cases": cases}, open("gkd.json", "w"))
print(len(cases), "cases")
