"""Six steps of AdamW with warmup, linear decay, clipping and decay-free biases.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0; run here: python adamw_trajectory.py
A linear layer learns noise: 6 steps of 3 rows, mean squared error over the rows.
"""
import torch
from safetensors.torch import save_file
from transformers import get_linear_schedule_with_warmup

torch.manual_seed(0)
STEPS, ROWS, IN, OUT = 6, 3, 5, 4
x = torch.randn(STEPS, ROWS, IN)
y = torch.randn(STEPS, ROWS, OUT)
layer = torch.nn.Linear(IN, OUT)
golden = {"x": x, "y": y, "weight.0": layer.weight.detach().clone(), "bias.0": layer.bias.detach().clone()}
optimizer = torch.optim.AdamW(
    [{"params": [layer.weight], "weight_decay": 0.1}, {"params": [layer.bias], "weight_decay": 0.0}],
    lr=0.05, betas=(0.9, 0.99), eps=1e-8,
)
schedule = get_linear_schedule_with_warmup(optimizer, num_warmup_steps=2, num_training_steps=STEPS)
losses, norms, rates = [], [], []
for step in range(STEPS):
    loss = (layer(x[step]) - y[step]).square().sum() / ROWS
    loss.backward()
    norms.append(torch.nn.utils.clip_grad_norm_(layer.parameters(), 1.5))
    rates.append(torch.tensor(schedule.get_last_lr()[0]))
    losses.append(loss.detach())
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()
    golden[f"weight.{step + 1}"] = layer.weight.detach().clone()
    golden[f"bias.{step + 1}"] = layer.bias.detach().clone()
golden |= {"losses": torch.stack(losses), "norms": torch.stack(norms), "rates": torch.stack(rates)}
save_file(golden, "adamw_trajectory.safetensors")
print(losses, norms, rates)
