"""The factors of transformers' schedules for every step of several runs, into schedules.json.

pip install torch==2.15.0 transformers==5.23.0
"""
import json
from pathlib import Path

import torch
import transformers
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import get_scheduler

assert transformers.__version__ == "5.23.0", transformers.__version__
LR = 2e-3
CASES = [
    ("constant", "constant_with_warmup", {}),
    ("linear", "linear", {}),
    ("cosine", "cosine", {}),
    ("cosine_with_restarts:3", "cosine_with_restarts", {"num_cycles": 3}),
    ("cosine_with_min_lr:0.15", "cosine_with_min_lr", {"min_lr_rate": 0.15}),
    ("polynomial:2,0.05", "polynomial", {"power": 2.0, "lr_end": 0.05 * LR}),
    ("inverse_sqrt", "inverse_sqrt", {}),
    ("inverse_sqrt:7", "inverse_sqrt", {"timescale": 7}),
    ("warmup_stable_decay:0.25,0.1,cosine", "warmup_stable_decay", {"min_lr_ratio": 0.1}),
    ("warmup_stable_decay:0.25,0,linear", "warmup_stable_decay", {"decay_type": "linear"}),
    ("warmup_stable_decay:0.25,0.2,1-sqrt", "warmup_stable_decay", {"decay_type": "1-sqrt", "min_lr_ratio": 0.2}),
]


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)


cases = []
for text, name, settings in CASES:
    for warmup, total in [(0, 20), (4, 20), (3, 33)]:
        if name == "warmup_stable_decay":
            settings = {**settings, "num_decay_steps": -(-total // 4)}
        sgd = optimizer()
        schedule = get_scheduler(name, sgd, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=settings)
        factors = []
        for _ in range(total):
            factors.append(sgd.param_groups[0]["lr"] / LR)
            sgd.step()
            schedule.step()
        cases.append({"schedule": text, "warmup": warmup, "total": total, "factors": factors})

losses = [3.0, 2.5, 2.5, 2.4999, 2.6, 2.4, 2.4, 2.4, 2.4, 2.4, 2.4, 2.3, 2.31, 2.32, 2.33, 2.29995]
plateau = []
for factor, patience in [(0.5, 2), (0.6, 0), (0.3, 3)]:
    sgd = optimizer()
    schedule = ReduceLROnPlateau(sgd, factor=factor, patience=patience)
    factors = []
    for loss in losses:
        schedule.step(loss)
        factors.append(sgd.param_groups[0]["lr"] / LR)
    plateau.append({"factor": factor, "patience": patience, "losses": losses, "factors": factors})

out = {"cases": cases, "plateau": plateau}
(Path(__file__).parent / "schedules.json").write_text(json.dumps(out) + "\n")
