"""Every operation of ft-kernels with PyTorch, forward and backward: writes operations.safetensors.

torch 2.15.0, safetensors 0.8.0. Run from anywhere: python operations.py
Deterministic: the same versions write the same bytes.

A tensor is named CASE.NAME: the inputs by their own names, y for the output, dy for the gradient that comes from above
(random, so no symmetry hides a mistake) and d_INPUT for the gradient of each input that has one. Inputs are f32;
everything is computed in f64, so that the golden numbers are exact to f32.

rms_norm           x [2, 3, 17], epsilon 1e-5
layer_norm         x [3, 5, 19], epsilon 1e-12
layer_norm_far     x [4, 23] about 1000, epsilon 1e-5
rotary             x [2, 3, 7, 10], cos and sin [1, 1, 7, 5]
rotary_batch       the same with angles of every row, [2, 1, 7, 5]
gated_*            gate and up [3, 37], for silu, gelu, gelu_tanh, relu; gate holds 0 and numbers up to ±20
attention_*        q [batch, heads, queries, width], k and v [batch, kv_heads, keys, width], scale 0.37; with segments
                   [batch, keys] where they count
linear             x [11, 7], weight [5, 7]
linear_lora        with a [3, 7] and b [5, 3], scale 1.7
"""

import importlib.metadata
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional

for package, pinned in {"torch": "2.15.0", "safetensors": "0.8.0"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(11)
tensors = {}


def random(*shape):
    return torch.randn(*shape, generator=generator)


def record(case, operation, inputs, constants=None):
    """Runs `operation` on inputs that have gradients and constants that have none."""
    leaves = {name: x.double().requires_grad_() for name, x in inputs.items()}
    y = operation(**leaves, **{name: x.double() for name, x in (constants or {}).items()})
    dy = random(*y.shape)
    y.backward(dy.double())
    found = inputs | (constants or {}) | {"y": y.detach(), "dy": dy}
    found |= {f"d_{name}": x.grad for name, x in leaves.items()}
    tensors.update({f"{case}.{name}": x.float().contiguous() for name, x in found.items()})


def rms_norm(x, weight):
    return functional.rms_norm(x, weight.shape, weight, eps=1e-5)


record("rms_norm", rms_norm, {"x": random(2, 3, 17), "weight": random(17)})


def layer_norm(epsilon):
    return lambda x, weight, bias: functional.layer_norm(x, weight.shape, weight, bias, eps=epsilon)


record("layer_norm", layer_norm(1e-12), {"x": random(3, 5, 19), "weight": random(19), "bias": random(19)})
record("layer_norm_far", layer_norm(1e-5), {"x": random(4, 23) + 1000, "weight": random(23), "bias": random(23)})


def rotary(x, cos, sin):
    # As transformers' apply_rotary_pos_emb, whose angles are repeated for both halves.
    cos, sin = torch.cat((cos, cos), dim=-1), torch.cat((sin, sin), dim=-1)
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


for case, rows in {"rotary": 1, "rotary_batch": 2}.items():
    angles = 3 * random(rows, 1, 7, 5)
    record(case, rotary, {"x": random(2, 3, 7, 10)}, {"cos": angles.cos(), "sin": angles.sin()})

activations = {
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
for name, activation in activations.items():
    gate = 3 * random(3, 37)
    gate[0, :5] = torch.tensor([0.0, 20.0, -20.0, 1e-3, -1e-3])
    record(f"gated_{name}", lambda gate, up: activation(gate) * up, {"gate": gate, "up": random(3, 37)})


def attention(case, batch, heads, kv_heads, queries, width, past=0, window=None, documents=False):
    keys = past + queries
    # Written out one pair after another: whatever is not allowed is forbidden.
    segments = torch.zeros(batch, keys, dtype=torch.int64)
    if documents:
        for row in range(batch):
            cuts = sorted(torch.randperm(keys - 1, generator=generator)[:2].tolist())
            for cut in cuts:
                segments[row, cut + 1 :] += 1
    allowed = torch.zeros(batch, 1, queries, keys, dtype=torch.bool)
    for row in range(batch):
        for query in range(queries):
            position = past + query
            for key in range(keys):
                near = window is None or position - key < window
                allowed[row, 0, query, key] = key <= position and near and segments[row, key] == segments[row, position]

    def run(q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=allowed, scale=0.37, enable_gqa=True)

    q = random(batch, heads, queries, width)
    k, v = random(batch, kv_heads, keys, width), random(batch, kv_heads, keys, width)
    record(f"attention_{case}", run, {"q": q, "k": k, "v": v})
    if documents:
        tensors[f"attention_{case}.segments"] = segments


attention("causal", batch=1, heads=2, kv_heads=2, queries=5, width=3)
attention("grouped", batch=2, heads=6, kv_heads=2, queries=7, width=5)
attention("window", batch=1, heads=2, kv_heads=1, queries=11, width=4, window=3)
attention("segments", batch=2, heads=2, kv_heads=2, queries=13, width=4, documents=True)
attention("past", batch=2, heads=4, kv_heads=2, queries=3, width=5, past=6)
attention("one_token", batch=2, heads=4, kv_heads=2, queries=1, width=5, past=8)
attention("everything", batch=2, heads=4, kv_heads=2, queries=5, width=3, past=6, window=4, documents=True)
# More than one tile of queries and of keys.
attention("long", batch=1, heads=2, kv_heads=1, queries=300, width=3, window=270)

record("linear", lambda x, weight: functional.linear(x, weight), {"x": random(11, 7), "weight": random(5, 7)})
record(
    "linear_lora",
    lambda x, weight, a, b: functional.linear(x, weight) + 1.7 * functional.linear(functional.linear(x, a), b),
    {"x": random(11, 7), "weight": random(5, 7), "a": random(3, 7), "b": random(5, 3)},
)

path = Path(__file__).parent / "operations.safetensors"
save_file(tensors, path)
print(f"{len(tensors)} tensors, {path.stat().st_size} bytes")
