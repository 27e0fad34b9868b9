"""Six steps of AdamW with two groups: two layers with learning rates and weight decays of their own.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0; run here: python adamw_groups.py
Two linear layers with tanh between them learn noise: 6 steps of 3 rows, mean squared error over the rows.
"""
import torch
from safetensors.torch import save_file
from transformers import get_linear_schedule_with_warmup

torch.manual_seed(1)
STEPS, ROWS, IN, MID, OUT = 6, 3, 5, 6, 4
x = torch.randn(STEPS, ROWS, IN)
y = torch.randn(STEPS, ROWS, OUT)
layers = {"first": torch.nn.Linear(IN, MID), "second": torch.nn.Linear(MID, OUT)}
parameters = {f"{layer}.{name}": p for layer, module in layers.items() for name, p in module.named_parameters()}
golden = {"x": x, "y": y} | {f"{name}.0": p.detach().clone() for name, p in parameters.items()}
groups = []
for layer, rate, decay in [("first", 0.05, 0.1), ("second", 0.02, 0.3)]:
    groups.append({"params": [layers[layer].weight], "lr": rate, "weight_decay": decay})
    groups.append({"params": [layers[layer].bias], "lr": rate, "weight_decay": 0.0})
optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), eps=1e-8)
schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=STEPS)
norms = []
for step in range(STEPS):
    loss = (layers["second"](torch.tanh(layers["first"](x[step]))) - y[step]).square().sum() / ROWS
    loss.backward()
    norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), 1.5))
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    golden |= {f"{name}.{step + 1}": p.detach().clone() for name, p in parameters.items()}
save_file(golden | {"norms": torch.stack(norms)}, "adamw_groups.safetensors")
print(norms)
