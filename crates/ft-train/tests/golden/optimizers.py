"""Five steps of other optimizers than AdamW on given gradients, into optimizers.safetensors.

pip install torch==2.15.0 transformers==5.23.0 safetensors==0.8.0

Adafactor is transformers', SGD and Muon are PyTorch's; Muon's iteration, which PyTorch computes in bfloat16, runs in float32 here.
PyTorch and transformers have no Lion: it is algorithm 2 of arXiv:2302.06675.
"""
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.optimization import Adafactor

assert torch.__version__.startswith("2.15.0"), torch.__version__
torch.bfloat16 = torch.float32  # read by torch.optim.Muon when it steps
LR, DECAY, STEPS = 0.02, 0.1, 5


class Lion(torch.optim.Optimizer):
    def __init__(self, params, lr, betas, weight_decay):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                b1, b2 = group["betas"]
                c = b1 * m + (1 - b1) * p.grad
                p -= group["lr"] * (c.sign() + group["weight_decay"] * p)
                m.mul_(b2).add_(p.grad, alpha=1 - b2)


MAKE = {
    "adafactor": lambda p, d: Adafactor(p, lr=LR, relative_step=False, scale_parameter=False, weight_decay=d),
    "lion": lambda p, d: Lion(p, LR, (0.9, 0.99), d),
    "sgd": lambda p, d: torch.optim.SGD(p, lr=LR, weight_decay=d),
    "muon": lambda p, d: torch.optim.Muon(p, lr=LR, weight_decay=d, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
}

torch.manual_seed(0)
golden = {}
for shape in [(6, 4), (3, 5), (5,)]:
    name = "x".join(map(str, shape))
    golden[f"{name}.start"] = torch.randn(shape)
    golden[f"{name}.gradients"] = torch.randn(STEPS, *shape) * torch.tensor([1.0, 0.1, 3.0, 0.5, 1e-3]).view(-1, *[1] * len(shape))
    for optim, make in MAKE.items():
        if optim == "muon" and len(shape) == 1:
            continue
        parameter = torch.nn.Parameter(golden[f"{name}.start"].clone())
        optimizer = make([parameter], DECAY)
        for step in range(STEPS):
            parameter.grad = golden[f"{name}.gradients"][step].clone()
            optimizer.step()
            golden[f"{name}.{optim}.{step}"] = parameter.detach().clone()
save_file(golden, Path(__file__).parent / "optimizers.safetensors")
