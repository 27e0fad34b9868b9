"""Loss, log-probabilities and entropies from hidden states and head with PyTorch: writes
head_loss.safetensors.

torch 2.15.0, safetensors 0.8.0. Run from anywhere: python head_loss.py
Deterministic: the same versions write the same bytes.

hidden [13, 12], weight [37, 12] (the head), targets [13]; d_logps and d_entropy [13], the gradients from
above. For every case, options [3] (scale, softcap or 0, label smoothing), and under its name:

- loss [1], loss_hidden, loss_weight: the sum of cross_entropy, and its gradients;
- logps, entropy [13], both without smoothing;
- logps_hidden, logps_weight: gradients of logps·d_logps;
- both_hidden, both_weight: gradients of logps·d_logps + entropy·d_entropy.
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file

for package, pinned in {"torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

CASES = {
    "plain": (1.0, None, 0.0),
    "smooth": (1.0, None, 0.1),
    "all_smooth": (1.0, None, 1.0),
    "scale": (0.25, None, 0.0),
    "softcap": (1.0, 5.0, 0.0),
    "everything": (0.4, 3.0, 0.2),
}

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(11)
hidden = torch.randn(13, 12, generator=generator)
weight = torch.randn(37, 12, generator=generator)
targets = torch.randint(0, 37, (13,), generator=generator)
d_logps = torch.randn(13, generator=generator)
d_entropy = torch.randn(13, generator=generator)
# Rows that only one of the outputs counts, and one that none does.
d_logps[[3, 5]] = 0.0
d_entropy[[5, 8]] = 0.0

tensors = {
    "hidden": hidden,
    "weight": weight,
    "targets": targets,
    "d_logps": d_logps,
    "d_entropy": d_entropy,
}
# In f64, so that the golden numbers are exact to f32.
h = hidden.double().requires_grad_()
w = weight.double().requires_grad_()


def gradients(name, scalar):
    grads = torch.autograd.grad(scalar, [h, w], retain_graph=True)
    for input, grad in zip(["hidden", "weight"], grads):
        tensors[f"{name}_{input}"] = grad.float()


for case, (scale, softcap, smoothing) in CASES.items():
    logits = h @ w.T * scale
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    loss = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=smoothing, reduction="sum")
    distribution = torch.distributions.Categorical(logits=logits)
    logps, entropy = distribution.log_prob(targets), distribution.entropy()
    tensors[f"{case}.options"] = torch.tensor([scale, softcap or 0.0, smoothing])
    tensors[f"{case}.loss"] = loss.detach().float().reshape(1)
    tensors[f"{case}.logps"] = logps.detach().float()
    tensors[f"{case}.entropy"] = entropy.detach().float()
    gradients(f"{case}.loss", loss)
    of_logps = (logps * d_logps.double()).sum()
    gradients(f"{case}.logps", of_logps)
    gradients(f"{case}.both", of_logps + (entropy * d_entropy.double()).sum())
    print(f"{case}: loss {loss.item():.6f}, mean entropy {entropy.mean().item():.6f}")

save_file(tensors, Path(__file__).parent / "head_loss.safetensors")
