"""Rounding to nearest in f32, and GPTQ, AWQ, HQQ, SmoothQuant and ranges in f64, with numpy, from the papers: writes algorithms.safetensors.

numpy 2.4.6, safetensors 0.8.0. Run from anywhere: python algorithms.py
Deterministic: the same versions write the same bytes.

weight         [24, 160]; groups of 64, so that the last has 32 columns, and blocks of 128 end within
hessian        [160, 160], mean x xᵀ of 400 correlated inputs, of which two columns matter most and one is always zero
mean_abs       [160], mean |x|
CASE.numbers   what the weight becomes: rtn, rtn_symmetric, gptq, gptq_symmetric, gptq_static (grids of the original weight),
               gptq_act_order (the same, columns by descending diagonal), gptq_g_idx (act-order with groups in that order), hqq
gptq_g_idx.groups  the group of each column
awq.scales     [160]; awq.clipped [24, 160], of the weight without scales
smooth.scales  [160], for alpha 0.5 and max_abs [160], the largest magnitudes of the inputs
smooth.inputs  [16, 160]; smooth.outputs and plain.outputs [16, 24], of 8 bits in rows of weight and inputs, with scales and without
ranges.x       [3000]; ranges.found, of percentile 0.99, of the least squared error in 4 bits, affine and symmetric, and the
               entropy's bound for 128 levels
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


def smooth_scales(w, most, alpha=0.5):
    """Equation 4 of Xiao et al., 2022."""
    most, columns = most.astype(np.float64), np.abs(w).max(0).astype(np.float64)
    with np.errstate(divide="ignore"):
        s = most**alpha / columns ** (1 - alpha)
    return np.where((most > 0) & (columns > 0), s, 1)


def rows_of_8_bits(x):
    """As compressed-tensors has them: from -128 to 127. In f32, since the largest number of a row lies half-way between two integers."""
    assert x.dtype == np.float32
    scale = 2 * np.abs(x).max(1, keepdims=True) / np.float32(255)
    return (np.clip(np.round(x / scale), -128, 127) * scale).astype(np.float64)


def percentile(x, p):
    x = np.sort(x)
    cut = round((1 - p) / 2 * (len(x) - 1))
    return x[cut], x[len(x) - 1 - cut]


def least_error(x, symmetric, bits=4):
    """Of the range times 1, 0.99, ... 0.2."""
    top, best = 2**bits - 1, (np.inf, None)
    for part in range(100, 19, -1):
        low, high = x.min() * part / 100, x.max() * part / 100
        most = max(high, -low)
        scale = 2 * most / top if symmetric else (high - low) / top
        zero = (top + 1) // 2 if symmetric else np.round(-low / scale)
        error = ((on_grid(x, scale, zero) - x) ** 2).mean()
        if error < best[0]:
            best = error, (low, high)
    return best[1]


def entropy(x, levels=128, bins=2048):
    """Migacz, 2017: the reference distribution has what is outside in its last bin, the candidate has not."""
    counts, edges = np.histogram(np.abs(x), bins, (0, np.abs(x).max()))
    best = np.inf, None
    for i in range(levels, bins + 1):
        p = counts[:i].astype(float)
        p[-1] += counts[i:].sum()
        q = np.zeros(i)
        bounds = [level * i // levels for level in range(levels + 1)]
        for a, b in zip(bounds, bounds[1:]):
            filled = counts[a:b] > 0
            if filled.any():
                q[a:b][filled] = counts[a:b].sum() / filled.sum()
        p, q = p / p.sum(), q / q.sum()
        q[(q == 0) & (p > 0)] = 1e-9
        some = p > 0
        divergence = (p[some] * np.log(p[some] / q[some])).sum()
        if divergence < best[0]:
            best = divergence, edges[i]
    return best[1]


max_abs = np.abs(inputs).max(0).astype(np.float32)
few = inputs[:16].astype(np.float32)
smooth = smooth_scales(weight, max_abs).astype(np.float32)
numbers = (generator.standard_t(3, 3000) + 0.3).astype(np.float32)
found = [*percentile(numbers, 0.99), *least_error(numbers.astype(np.float64), False), *least_error(numbers.astype(np.float64), True), entropy(numbers)]
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
    "max_abs": max_abs, "smooth.scales": smooth, "smooth.inputs": few,
    "smooth.outputs": rows_of_8_bits(few / smooth) @ rows_of_8_bits(weight * smooth).T,
    "plain.outputs": rows_of_8_bits(few) @ rows_of_8_bits(weight).T,
    "ranges.x": numbers, "ranges.found": np.array(found),
}
save_file({name: np.ascontiguousarray(x, np.float32) for name, x in tensors.items()}, Path(__file__).with_name("algorithms.safetensors"))
for name in ("plain", "smooth"):
    print(name, ((tensors[f"{name}.outputs"] - few.astype(np.float64) @ weight.T) ** 2).sum())
print(found, np.abs(numbers).max())
for name in ("rtn", "gptq", "gptq_static", "gptq_act_order", "gptq_g_idx", "hqq"):
    change = tensors[f"{name}.numbers"] - weight
    print(name, energies(change.astype(np.float64), hessian).sum())
