"""Losses of distillation and their gradients by PyTorch, into losses.json. Written out from the papers' formulas; the divergences
as TRL's GKDTrainer writes them.

    python losses.py
"""
import json
import math

import torch
import torch.nn.functional as F

torch.manual_seed(0)


def kl(p, q):
    return (p.exp() * (p - q)).sum(-1)


def divergence(student, teacher, beta):
    student, teacher = F.log_softmax(student, -1), F.log_softmax(teacher, -1)
    if beta == 0:
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)
    if beta == 1:
        return F.kl_div(teacher, student, reduction="none", log_target=True).sum(-1)
    b = torch.tensor(beta)
    mixture = torch.logsumexp(torch.stack([student + torch.log(1 - b), teacher + torch.log(b)]), 0)
    return beta * F.kl_div(mixture, teacher, reduction="none", log_target=True).sum(-1) + (1 - beta) * F.kl_div(
        mixture, student, reduction="none", log_target=True).sum(-1)


def soft(student, teacher, t):
    return t * t * F.kl_div(F.log_softmax(student / t, -1), F.softmax(teacher / t, -1), reduction="none").sum(-1)


def standard(z):
    return (z - z.mean(-1, keepdim=True)) / (z.std(-1, keepdim=True) + 1e-7)


def universal(student, teacher):
    q, p = (F.softmax(z, -1).sort(-1, descending=True).values for z in (student, teacher))
    width = max(q.shape[1], p.shape[1])
    q, p = (F.pad(z, (0, width - z.shape[1])) for z in (q, p))
    return (q - p).abs().sum(-1)


def relation(student, teacher, mask):
    def rows(x):
        scores = x @ x.transpose(1, 2) / math.sqrt(x.shape[-1])
        return F.log_softmax(scores.masked_fill(mask[None, None] == 0, -1e9), -1)
    return (kl(rows(teacher), rows(student)) * mask[None]).flatten()


def attention(student, teacher):
    student, teacher = (torch.where(z <= -100, torch.zeros_like(z), z) for z in (student, teacher))
    return (student - teacher).square().mean(-1)


cases = []


def case(name, f, student, teacher, **settings):
    student = student.requires_grad_()
    extra = {k: v for k, v in settings.items()}
    loss = f(student, teacher)
    weights = torch.arange(1, loss.numel() + 1, dtype=torch.float64) / loss.numel()
    inputs = [student] + ([extra["projection"]] if "projection" in extra else [])
    gradients = torch.autograd.grad((loss * weights).sum(), inputs)
    cases.append({
        "name": name, "student": student.tolist(), "teacher": teacher.tolist(), "loss": loss.tolist(), "gradient": gradients[0].tolist(),
        **({"gradient_of_projection": gradients[1].tolist()} if len(gradients) > 1 else {}),
        **{k: v.tolist() if torch.is_tensor(v) else v for k, v in extra.items()},
    })


def numbers(*shape, scale=1.0):
    return (torch.randn(*shape) * scale).double().float().double()


for t in (0.5, 1.0, 2.0, 10.0):
    for scale in (1.0, 8.0):
        s, u = numbers(4, 7, scale=scale), numbers(4, 7, scale=scale)
        case("soft_targets", lambda a, b, t=t: soft(a, b, t), s, u, temperature=t)
        case("standardized", lambda a, b, t=t: soft(standard(a), standard(b), t), numbers(3, 5, scale=scale), numbers(3, 5, scale=scale), temperature=t)
for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
    for scale in (1.0, 12.0):
        case("divergence", lambda a, b, beta=beta: divergence(a, b, beta), numbers(3, 9, scale=scale), numbers(3, 9, scale=scale), beta=beta)
for own, other in ((5, 8), (8, 5), (6, 6)):
    case("universal", universal, numbers(3, own, scale=2.0), numbers(3, other, scale=2.0))
case("cosine", lambda a, b: 1 - F.cosine_similarity(a, b, -1), numbers(4, 6), numbers(4, 6))
case("hidden_mse", lambda a, b: (a - b).square().mean(-1), numbers(4, 6), numbers(4, 6))
projection = numbers(5, 3).requires_grad_()
case("hidden_mse", lambda a, b: (a @ projection.T - b).square().mean(-1), numbers(4, 3), numbers(4, 5), projection=projection)
scores = numbers(4, 6, scale=3.0)
scores[:, 4:] = -10000.0
masked = numbers(4, 6, scale=3.0)
masked[:, 4:] = -10000.0
case("attention_mse", attention, scores, masked)
case("attention_kl", lambda a, b: kl(F.log_softmax(b, -1), F.log_softmax(a, -1)), scores.detach().clone(), masked)
mask = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
case("relation_kl", lambda a, b: relation(a, b, mask), numbers(2, 4, 3), numbers(2, 4, 5), mask=mask)

json.dump(cases, open("losses.json", "w"))
print(len(cases), "cases")
