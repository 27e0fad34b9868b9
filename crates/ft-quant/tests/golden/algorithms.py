"""Rounding to nearest in f32, and GPTQ, AWQ and HQQ in f64, with numpy, from the papers: writes algorithms.safetensors.

numpy 2.4.6, safetensors 0.8.0. Run from anywhere: python algorithms.py
Deterministic: the same versions write the same bytes.

weight         [24, 160]; groups of 64, so that the last has 32 columns, and blocks of 128 end within
hessian        [160, 160], mean x xᵀ of 400 correlated inputs, of which two columns matter most and one is always zero
mean_abs       [160], mean |x|
CASE.numbers   what the weight becomes: rtn, rtn_symmetric, gptq, gptq_symmetric, gptq_static (grids of the original weight),
               gptq_act_order (the same, columns by descending diagonal), gptq_g_idx (act-order with groups in that order), hqq
gptq_g_idx.groups  the group of each column
awq.scales     [160]; awq.clipped [24, 160], of the weight without scales
"""

import importlib.metadata
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

for package, pinned in {"numpy": "2.4.6", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package)
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

BITS, GROUP = 4, 64
TOP = 2**BITS - 1
generator = np.random.default_rng(5)
ROWS, COLS = 24, 160
weight = (0.05 * generator.standard_normal((ROWS, COLS)) * (1 + generator.random((ROWS, COLS)) ** 4 * 3)).astype(np.float32)
inputs = generator.standard_normal((400, 12)) @ generator.standard_normal((12, COLS)) + 0.5 * generator.standard_normal((400, COLS))
inputs[:, [7, 100]] *= 6
inputs[:, 33] = 0
hessian = (inputs.T @ inputs / len(inputs)).astype(np.float32)
mean_abs = np.abs(inputs).mean(0).astype(np.float32)


def grid(w, symmetric):
    """Scale and zero point of each row."""
    low, high = np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0)
    if symmetric:
        high = np.maximum(high, -low)
        low = -high
    scale = (high - low) / TOP
    scale[scale == 0] = 1
    zero = np.full_like(scale, 2 ** (BITS - 1)) if symmetric else np.round(-low / scale)
    return scale, zero


def on_grid(w, scale, zero):
    return (np.clip(np.round(w / scale) + zero, 0, TOP) - zero) * scale


def spans(cols, size):
    return [(first, min(first + size, cols)) for first in range(0, cols, size)]


def round_to_nearest(w, symmetric=False):
    return np.concatenate([on_grid(w[:, i:j], *grid(w[:, i:j], symmetric)) for i, j in spans(w.shape[1], GROUP)], 1)


def gptq(w, h, symmetric=False, act_order=False, static=False):
    """Column by column over all columns at once: blocks change nothing but the speed."""
    w, h = w.astype(np.float64), h.astype(np.float64)
    groups = np.arange(COLS) // GROUP
    grids = {i // GROUP: grid(w[:, i:j], symmetric) for i, j in spans(COLS, GROUP)} if static else {}
    order = np.argsort(-np.diag(h), kind="stable") if act_order else np.arange(COLS)
    dead = np.diag(h) == 0
    w[:, dead] = 0
    h[dead, dead] = 1
    w, h = w[:, order], h[np.ix_(order, order)]
    if not static:
        groups = np.empty(COLS, int)
        groups[order] = np.arange(COLS) // GROUP
    h[np.diag_indices(COLS)] += 0.01 * np.diag(h).mean()
    u = np.linalg.cholesky(np.linalg.inv(h)).T
    out = np.empty_like(w)
    for i in range(COLS):
        group = groups[order[i]]
        if not static and i % GROUP == 0:
            grids[group] = grid(w[:, i:i + GROUP], symmetric)
        out[:, i:i + 1] = on_grid(w[:, i:i + 1], *grids[group])
        error = (w[:, i] - out[:, i]) / u[i, i]
        w[:, i:] -= np.outer(error, u[i, i:])
    return out[:, np.argsort(order)], groups


def energies(change, h):
    return ((change @ h) * change).sum(1)


def awq_scales(w, h, x, steps=20):
    w, h, x = w.astype(np.float64), h.astype(np.float64), x.astype(np.float64)
    share = np.concatenate([np.abs(w[:, i:j]) / (np.abs(w[:, i:j]).max(1, keepdims=True) + 1e-6) for i, j in spans(COLS, GROUP)], 1).mean(0)
    best = (np.inf, None)
    for step in range(steps):
        ratio = step / steps
        s = np.maximum(x**ratio / (share ** (1 - ratio) + 1e-4), 1e-4)
        s = s / np.sqrt(s.max() * s.min())
        error = energies(round_to_nearest(w * s) / s - w, h).sum()
        if error < best[0]:
            best = error, s
    return best[1]


def awq_clip(w, h, steps=20, shrunk=0.5):
    w, h = w.astype(np.float64), h.astype(np.float64)
    out = w.copy()
    for i, j in spans(COLS, GROUP):
        part, moments = w[:, i:j], h[i:j, i:j]
        bound, least = np.abs(part).max(1, keepdims=True), np.full(ROWS, np.inf)
        for step in range(int(steps * shrunk)):
            most = bound * (1 - step / steps)
            clipped = np.clip(part, -most, most)
            error = energies(round_to_nearest(clipped) - part, moments)
            better = error < least
            least = np.where(better, error, least)
            out[better, i:j] = clipped[better]
    return out


def hqq(w, p=0.7, beta=10.0, kappa=1.01, iterations=20):
    """`optimize_weights_proximal` of the package hqq 0.2.8, for groups along the rows."""
    parts = [w[:, i:j].astype(np.float64) for i, j in spans(COLS, GROUP)]
    inverse = [np.minimum(TOP / (part.max(1, keepdims=True) - part.min(1, keepdims=True)), 2e4) for part in parts]
    zero = [-part.min(1, keepdims=True) * s for part, s in zip(parts, inverse)]
    best = np.inf
    for _ in range(iterations):
        error = 0.0
        for k, (part, s) in enumerate(zip(parts, inverse)):
            q = np.clip(np.round(part * s + zero[k]), 0, TOP)
            e = part - (q - zero[k]) / s
            error += np.abs(e).sum()
            with np.errstate(divide="ignore"):
                shrunk = np.sign(e) * np.maximum(np.abs(e) - np.abs(e) ** (p - 1) / beta, 0)
            zero[k] = (q - (part - shrunk) * s).mean(1, keepdims=True)
        beta *= kappa
        if error >= best:
            break
        best = error
    numbers = [(np.clip(np.round(part * s + z), 0, TOP) - z) / s for part, s, z in zip(parts, inverse, zero)]
    return np.concatenate(numbers, 1)


gptq_g_idx, groups = gptq(weight, hessian, act_order=True)
tensors = {
    "weight": weight, "hessian": hessian, "mean_abs": mean_abs,
    "rtn.numbers": round_to_nearest(weight),
    "rtn_symmetric.numbers": round_to_nearest(weight, True),
    "gptq.numbers": gptq(weight, hessian)[0],
    "gptq_symmetric.numbers": gptq(weight, hessian, symmetric=True)[0],
    "gptq_static.numbers": gptq(weight, hessian, static=True)[0],
    "gptq_act_order.numbers": gptq(weight, hessian, act_order=True, static=True)[0],
    "gptq_g_idx.numbers": gptq_g_idx,
    "gptq_g_idx.groups": groups,
    "awq.scales": awq_scales(weight, hessian, mean_abs),
    "awq.clipped": awq_clip(weight, hessian),
    "hqq.numbers": hqq(weight),
}
save_file({name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}, Path(__file__).with_name("algorithms.safetensors"))
for name in ("rtn", "gptq", "gptq_static", "gptq_act_order", "gptq_g_idx", "hqq"):
    change = tensors[f"{name}.numbers"] - weight
    print(name, energies(change.astype(np.float64), hessian).sum())
