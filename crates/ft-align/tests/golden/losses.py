"""Losses of TRL and their gradients with respect to log-probabilities: writes losses.safetensors.

trl 1.16.0, torch 2.15.0, safetensors 0.8.0. Run from anywhere: python losses.py
Deterministic: the same versions write the same bytes.

TRL's own methods run on objects that hold just their settings, with a model that returns given log-probabilities
instead of computing them: DPOTrainer._compute_loss, KTOTrainer._compute_loss, GRPOTrainer._compute_loss,
RLOOTrainer._compute_loss, RewardTrainer.compute_loss, ORPOTrainer.odds_ratio_loss, CPOTrainer.cpo_loss.
TRL 1.16 lacks label smoothing for `sigmoid`, unpaired BCO, process rewards and PPO, and computes advantages amid
generation: these are written here from their formulas ("formula/..."; `sigmoid` with label smoothing
is among "pair/..."). All in f64; the lines of _compute_loss that cast the alpha divergence to f32 are taken out for that.

The name of a case holds its settings, `KIND/SETTING/...`, as the test of the same name reads them. Each has `.loss`, the
loss as TRL reduces it, and `.grad`. Inputs: `pair.*`, `policy.*`, `kto.*`, `means.*`, `scores.*`, `steps.*`, `ppo.*`.
"""

import importlib.metadata
import inspect
import textwrap
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

for package, pinned in {"trl": "1.16.0", "torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

from trl import DPOTrainer, GRPOTrainer, KTOTrainer, RewardTrainer, RLOOTrainer  # noqa: E402
from trl.experimental.cpo import CPOTrainer  # noqa: E402
from trl.experimental.orpo import ORPOTrainer  # noqa: E402
from trl.trainer.utils import nanstd  # noqa: E402

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(13)
golden = {}


def randn(*shape):
    # Numbers of f32, in f64: the test reads the same ones.
    return torch.randn(*shape, generator=generator).double()


def rand(*shape):
    return torch.rand(*shape, generator=generator).double()


def inputs(prefix, **tensors):
    golden.update({f"{prefix}.{name}": t.float().contiguous() for name, t in tensors.items()})


def case(name, loss, of):
    """Stores a loss and its gradient."""
    assert loss.isfinite().all(), name
    (grad,) = torch.autograd.grad(loss.sum(), of)
    assert grad.isfinite().all(), name
    golden[f"{name}.loss"] = loss.detach().float().reshape(-1)
    golden[f"{name}.grad"] = grad.float().contiguous()


class Accelerator:
    """One process."""

    device, num_processes, sync_gradients = torch.device("cpu"), 1, True

    def gather(self, x):
        return x

    gather_for_metrics = gather

    def reduce(self, x, reduction):
        return x

    def pad_across_processes(self, x, dim, pad_index):
        return x


class Model(torch.nn.Module):
    """Returns what it is given, keyed by the first token of the batch."""

    is_gradient_checkpointing = False

    def __init__(self, log_probs, log_sum_sq_probs=None):
        super().__init__()
        self.log_probs, self.log_sum_sq_probs = log_probs, log_sum_sq_probs

    def forward(self, input_ids, labels, **_):
        log_probs = self.log_probs[int(input_ids[0, 0])]
        # As the fused head: 0 where there is no label.
        log_probs = torch.where(labels[:, 1:] == -100, 0, log_probs)
        zeros = torch.zeros_like(log_probs)
        return SimpleNamespace(
            log_probs=log_probs, log_sum_sq_probs=self.log_sum_sq_probs, entropy=zeros, mean_logits=zeros,
            is_top1=zeros.bool(),
        )


def metrics():
    return {"train": defaultdict(list)}


# --- Pairs. Four chosen rows, then four rejected ones; 7 tokens, so 6 log-probabilities. ------------------------------
PAIRS, NEXT = 4, 6
starts = [2, 1, 3, 1] + [2, 1, 3, 1]
ends = [6, 5, 7, 4] + [4, 5, 3, 7]  # The third rejected completion is empty.
completion = torch.zeros(2 * PAIRS, NEXT + 1, dtype=torch.long)
for row, (start, end) in enumerate(zip(starts, ends)):
    completion[row, start:end] = 1
logps = -3 * rand(2 * PAIRS, NEXT)
ref_logps = -3 * rand(2 * PAIRS, NEXT)
logps[PAIRS + 1], ref_logps[PAIRS + 1] = logps[1], ref_logps[1]  # The second pair is twice the same.
logps[3] *= 5  # The fourth is far from the reference.
log_sum_sq = -rand(2 * PAIRS, NEXT)
inputs("pair", logps=logps, ref_logps=ref_logps, mask=completion[:, 1:], log_sum_squares=log_sum_sq)


source = textwrap.dedent(inspect.getsource(DPOTrainer._compute_loss))
for old, new in [("[dtype]", "[torch.float32]"), ("t_chosen.float()", "t_chosen"), ("t_rejected.float()", "t_rejected")]:
    assert source.count(old) == 1, old
    source = source.replace(old, new)
scope = {}
exec(source, vars(inspect.getmodule(DPOTrainer)), scope)
dpo_loss = scope["_compute_loss"]


def pair(losses, beta=0.1, smoothing=0.0, divergence="reverse_kl", ld_alpha=1.0, weighted=False):
    kind, _, alpha = divergence.partition(":")
    tokens = logps.clone().requires_grad_()
    model = Model({0: tokens}, log_sum_sq)
    types, weights = zip(*[(t.split(":") + ["1"])[:2] for t in losses.split(",")])
    trainer = SimpleNamespace(
        model=model, ref_model=Model({0: ref_logps}), accelerator=Accelerator(), aux_loss_enabled=False,
        ld_alpha=None if ld_alpha == 1 else ld_alpha, precompute_ref_logps=False,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05), beta=beta, loss_types=types,
        loss_weights=[float(w) for w in weights], f_divergence_type=kind,
        f_alpha_divergence_coef=float(alpha or 0.5), label_smoothing=smoothing, use_weighting=weighted,
        _metrics=metrics(), _total_train_tokens=0, _tp_size=1,
    )
    batch = {
        "input_ids": torch.zeros_like(completion), "attention_mask": torch.ones_like(completion),
        "completion_mask": completion,
    }
    loss = dpo_loss(trainer, model, batch, return_outputs=False)
    name = f"pair/{losses}/{beta}/{smoothing}/{divergence}/{ld_alpha}/{str(weighted).lower()}"
    case(name, loss, tokens)
    return trainer._metrics["train"]


LOSSES = ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
          "discopop", "sft", "sigmoid_norm", "robust"]
for name in LOSSES:
    pair(name, beta=0.1)
    pair(name, beta=0.4)
for name in ["robust", "exo_pair", "aot", "aot_unpaired"]:
    pair(name, smoothing=0.1)
for divergence in ["forward_kl", "js_divergence", "alpha_divergence:0.5", "alpha_divergence:2", "alpha_divergence:1"]:
    for name in ["sigmoid", "hinge", "ipo", "robust", "discopop", "sigmoid_norm"]:
        # TRL computes 0 times infinity in discopop where the scores are large.
        if name != "discopop" or divergence not in ("forward_kl", "alpha_divergence:0.5"):
            pair(name, divergence=divergence)
pair("exo_pair", smoothing=0.01, divergence="js_divergence")
pair("sigmoid:0.8,bco_pair:0.2,sft:1")
for name in ["sigmoid", "ipo", "bco_pair", "sigmoid:0.8,bco_pair:0.2,sft:1"]:
    pair(name, ld_alpha=0.5)
for name in ["sigmoid", "apo_zero"]:
    pair(name, weighted=True)
logged = pair("sigmoid", beta=0.3)
for name in ["rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
             "logps/rejected"]:
    golden[f"metric/{name}"] = torch.tensor(logged[name])

# cDPO: TRL 1.16 ignores label smoothing here.
tokens = logps.clone().requires_grad_()
w, l = ((tokens - ref_logps) * completion[:, 1:]).sum(1).chunk(2)
x = 0.1 * (w - l)
case("pair/sigmoid/0.1/0.2/reverse_kl/1.0/false", -(0.8 * F.logsigmoid(x) + 0.2 * F.logsigmoid(-x)).mean(), tokens)

# --- Pairs without a reference, from mean log-probabilities. ----------------------------------------------------------
means = torch.cat([-2 * rand(PAIRS) - 0.05, -2 * rand(PAIRS) - 0.05]).float().double()
means[1] = means[PAIRS + 1]
means[3], means[PAIRS + 3] = -1e-3, -12.0
means = means.float().double()
inputs("means", logps=means)
for beta in [0.1, 1.0]:
    both = means.clone().requires_grad_()
    trainer = SimpleNamespace(beta=beta, accelerator=Accelerator())
    # TRL casts to f32.
    case(f"orpo/{beta}", -ORPOTrainer.odds_ratio_loss(trainer, *both.chunk(2))[0], both)
for kind, beta, gamma, alpha, smoothing in [
    ("sigmoid", 0.1, 0, 0, 0), ("sigmoid", 2.0, 0, 0, 0.1), ("hinge", 0.1, 0, 0, 0), ("ipo", 0.5, 0, 0, 0),
    ("simpo", 2.5, 1.375, 0, 0), ("simpo", 2.5, 0.5, 0, 0.1), ("simpo", 2.5, 0.5, 0.25, 0), ("simpo", 2.5, 0.1, -0.5, 0),
]:
    both = means.clone().requires_grad_()
    trainer = SimpleNamespace(
        beta=beta, simpo_gamma=gamma, alpha=float(alpha), label_smoothing=smoothing, loss_type=kind,
        accelerator=Accelerator(),
    )
    case(f"cpo/{kind}/{beta}/{gamma}/{alpha}/{smoothing}", CPOTrainer.cpo_loss(trainer, *both.chunk(2))[0], both)

# --- Single completions. ----------------------------------------------------------------------------------------------
ROWS = 5
labels = torch.tensor([True, False, True, True, False])
unpaired, kl = -3 * rand(ROWS, NEXT), -3 * rand(ROWS, NEXT)
ref_unpaired = unpaired + randn(ROWS, NEXT)
# Mismatched completions: on average the policy likes them more (z > 0) or less (z = 0).
ref_kl = kl - 0.5 * rand(ROWS, NEXT)
mask = completion[:ROWS]
inputs("kto", logps=unpaired, ref_logps=ref_unpaired, mask=mask[:, 1:], kl_logps=kl, kl_ref_logps=ref_kl,
       desirable=labels)
for kind, beta, desirable, undesirable, swapped in [
    ("kto", 0.1, 1.0, 1.0, False), ("kto", 0.5, 1.0, 1.5, False), ("kto", 0.5, 1.33, 1.0, True),
    ("apo_zero_unpaired", 0.3, 1.0, 1.0, False),
]:
    tokens = unpaired.clone().requires_grad_()
    kl_pair = (ref_kl, kl) if swapped else (kl, ref_kl)
    model = Model({0: tokens, 1: kl_pair[0]})
    trainer = SimpleNamespace(
        model=model, ref_model=Model({0: ref_unpaired, 1: kl_pair[1]}), accelerator=Accelerator(), beta=beta,
        aux_loss_enabled=False, precompute_ref_logps=False, calculate_KL=kind == "kto", loss_type=kind,
        desirable_weight=desirable, undesirable_weight=undesirable, _metrics=metrics(), _total_train_tokens=0,
        _tp_size=1, args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )
    trainer._compute_kl_logps = lambda m, b: KTOTrainer._compute_kl_logps(trainer, m, b)
    batch = {
        "input_ids": torch.zeros_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
        "KL_input_ids": torch.ones_like(mask), "KL_attention_mask": torch.ones_like(mask), "KL_completion_mask": mask,
        "label": labels,
    }
    loss = KTOTrainer._compute_loss(trainer, model, batch, return_outputs=False)
    name = f"{kind}/{beta}/{desirable}/{undesirable}/{str(swapped).lower()}"
    case(name, loss, tokens)
    golden[f"{name}.z"] = torch.tensor(trainer._metrics["train"]["kl"])
tokens = unpaired.clone().requires_grad_()
u = ((tokens - ref_unpaired) * mask[:, 1:]).sum(1)
signs = torch.where(labels, 1.0, -1.0)
case("formula/bco/0.3/0.7", -F.logsigmoid(signs * (0.3 * u - 0.7)).mean(), tokens)

# --- Reward models. ---------------------------------------------------------------------------------------------------
scores, margin = randn(2 * PAIRS, 1), rand(PAIRS)
inputs("scores", scores=scores.squeeze(1), margin=margin)
for with_margin, center in [(False, None), (True, None), (True, 0.01), (False, 0.5)]:
    both = scores.clone().requires_grad_()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), args=SimpleNamespace(center_rewards_coefficient=center),
        accelerator=Accelerator(), _metrics=metrics(), _total_train_tokens=0, _tp_size=1,
    )
    batch = {"attention_mask": torch.ones(2 * PAIRS, 3, dtype=torch.long)}
    if with_margin:
        batch["margin"] = margin
    loss = RewardTrainer.compute_loss(trainer, lambda **_: SimpleNamespace(logits=both), batch)
    case(f"bradley_terry/{str(with_margin).lower()}/{center or 0}", loss, both)
step_logits = randn(2, 5, 2).requires_grad_()
step_labels = torch.tensor([[-100, 1, -100, 0, -100], [0, -100, -100, -100, 1]])
inputs("steps", logits=step_logits.detach(), labels=step_labels)
case("formula/process_rewards", F.cross_entropy(step_logits.flatten(0, 1), step_labels.flatten()), step_logits)

# --- Policies. Six rows of five tokens; the last row is masked as a whole. --------------------------------------------
ROWS, TOKENS, LENGTH, ITEMS = 6, 5, 7, 20
new = -2 * rand(ROWS, TOKENS)
old, ref = new + 0.3 * randn(ROWS, TOKENS), new + 0.5 * randn(ROWS, TOKENS)
ref[5] = new[5]
mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0] * 5])
advantages, entropy = randn(ROWS), 2 * rand(ROWS, TOKENS)
advantages[3] = 0
inputs("policy", logps=new, old_logps=old, ref_logps=ref, mask=mask, advantages=advantages, entropy=entropy)


def policy(kind, level="token", low=0.2, high=0.2, delta=None, beta=0.0, corrected=True, top=1.0):
    tokens = new.clone().requires_grad_()
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=Accelerator(), aux_loss_enabled=False, _metrics=metrics(),
        top_entropy_quantile=top, off_policy_mask_threshold=None, importance_sampling_level=level, beta=beta,
        loss_type=kind, epsilon_low=low, epsilon_high=high, use_vllm=False, _entropy_bonus_enabled=False,
        current_gradient_accumulation_steps=1, max_completion_length=LENGTH,
        args=SimpleNamespace(use_bias_correction_kl=corrected, delta=delta, sapo_temperature_pos=1.0,
                             sapo_temperature_neg=1.05, steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *_, **__: (tokens, entropy, None),
    )
    trainer.get_high_entropy_mask = lambda *a: GRPOTrainer.get_high_entropy_mask(trainer, *a)
    ids = torch.zeros_like(mask)
    batch = {
        "prompt_ids": ids, "prompt_mask": ids + 1, "completion_ids": ids, "completion_mask": mask,
        "advantages": advantages, "old_per_token_logps": old, "ref_per_token_logps": ref,
        "num_items_in_batch": torch.tensor(float(ITEMS)),
    }
    loss = GRPOTrainer._compute_loss(trainer, None, batch)
    settings = [kind, level, low, high, delta or 0, beta, str(corrected).lower(), top]
    case("policy/" + "/".join(map(str, settings)), loss, tokens)
    return trainer._metrics["train"]


for kind in ["grpo", "bnpo", "dr_grpo", "dapo"]:
    policy(kind)
    policy(kind, high=0.28, beta=0.1)
logged = policy("grpo", low=0.1, high=0.15)
for name in ["clip_ratio/low_mean", "clip_ratio/high_mean", "clip_ratio/region_mean"]:
    assert logged[name][0] > 0
    golden[f"metric/{name}"] = torch.tensor(logged[name])
policy("grpo", delta=1.3)
policy("grpo", beta=0.1, corrected=False)
policy("grpo", level="sequence", low=0.05, high=0.1)
policy("dapo", level="sequence", low=3e-4, high=4e-4, beta=0.05)
policy("grpo", top=0.4, beta=0.1)
policy("dapo", top=0.2)
policy("cispo", high=5.0)
policy("cispo", high=1.1, beta=0.1)
policy("sapo")

tokens = new.clone().requires_grad_()
trainer = SimpleNamespace(
    model=SimpleNamespace(training=True), accelerator=Accelerator(), aux_loss_enabled=False, _metrics=metrics(),
    epsilon_low=0.2, epsilon_high=0.3, _get_per_token_logps_and_entropies=lambda *_, **__: (tokens, entropy, None),
)
ids = torch.zeros_like(mask)
batch = {
    "prompt_ids": ids, "prompt_mask": ids + 1, "completion_ids": ids, "completion_mask": mask,
    "advantages": advantages, "old_logps": (old * mask).sum(1),
}
case("rloo/0.2/0.3", RLOOTrainer._compute_loss(trainer, None, batch), tokens)

# Advantages, by the lines of TRL's _generate_and_score_completions. Row 4 has no reward; the third group is constant.
rewards = torch.tensor([1.0, 0.0, 0.25, 0.5, torch.nan, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.5], dtype=torch.float64)
grouped = rewards.view(3, 4)
centered = grouped - torch.nanmean(grouped, dim=1, keepdim=True)
# NaN is no number to compare with: the test knows row 4.
golden["formula/rewards"] = rewards.nan_to_num(-1.0).float()
golden["formula/advantages/group"] = (centered / (nanstd(grouped, dim=1, keepdim=True) + 1e-4)).nan_to_num(0).float().flatten()
golden["formula/advantages/batch"] = (centered / (nanstd(rewards) + 1e-4)).nan_to_num(0).float().flatten()
golden["formula/advantages/none"] = centered.nan_to_num(0).float().flatten()
count = (~grouped.isnan()).sum(1, keepdim=True)
others = (torch.nansum(grouped, dim=1, keepdim=True) - grouped) / (count - 1)
golden["formula/advantages/leave_one_out"] = (grouped - others).nan_to_num(0).float().flatten()

# PPO, as TRL's [1.10] trainer computes it.
kl_coef, gamma, lam = 0.05, 0.9, 0.95
kl_tokens, values, row_scores = new - ref, randn(ROWS, TOKENS), randn(ROWS)
token_rewards = -kl_coef * kl_tokens * mask
for row, length in enumerate(mask.sum(1).tolist()):
    if length:
        token_rewards[row, length - 1] += row_scores[row]
masked_values = values * mask
last, columns = torch.zeros(ROWS).double(), []
for t in reversed(range(TOKENS)):
    following = masked_values[:, t + 1] if t + 1 < TOKENS else 0.0
    last = token_rewards[:, t] + gamma * following - masked_values[:, t] + gamma * lam * last
    columns.append(last)
estimated = torch.stack(columns[::-1], 1) * mask
returns = (estimated + masked_values) * mask
counted = estimated[mask.bool()]
whitened = (estimated - counted.mean()) * torch.rsqrt(counted.var() + 1e-8) * mask
old_values = values + 0.4 * randn(ROWS, TOKENS)
inputs("ppo", values=values, old_values=old_values, scores=row_scores)
golden |= {
    f"formula/ppo/{name}": t.float().contiguous()
    for name, t in [("rewards", token_rewards), ("advantages", estimated), ("returns", returns), ("whitened", whitened)]
}
value = values.clone().requires_grad_()
clipped = torch.clamp(value, old_values - 0.2, old_values + 0.2)
errors = torch.max((value - returns).square(), (clipped - returns).square())
case("formula/value_loss/0.2", 0.5 * errors[mask.bool()].mean(), value)

save_file(golden, Path(__file__).parent / "losses.safetensors")
print(len(golden), "tensors")
