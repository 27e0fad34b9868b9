"""Methods that PEFT does not have on GPT-2's Conv1D layers, by the formulas of their papers.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python gpt2_formulas.py
Deterministic: the same versions write the same bytes.

Each formula makes the weight `[out, in]` of a layer from that of the base. On llama it has to give what PEFT computes with the
adapters of methods.py. Then methods/gpt2/formula_CASE/ gets a random adapter, in the form of methods.py, whose outputs and
gradients are those of GPT-2 with the changed weights. PEFT's classes of settings write adapter_config.json.
"""

import json
import shutil
import warnings
import zlib

import peft
import torch
from golden_files import check_versions, write_json
from methods import ALL, FOLDER, base_of
from safetensors.torch import load_file, save_file
from torch.func import functional_call
from transformers.utils.logging import disable_progress_bar

check_versions()

PREFIX = "base_model.model."


def loha(w, t, s):
    return w + (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"]) * s["alpha"] / s["r"]


def lokr(w, t, s):
    second = t["lokr_w2"] if "lokr_w2" in t else t["lokr_w2_a"] @ t["lokr_w2_b"]
    return w + torch.kron(t["lokr_w1"], second) * s["alpha"] / s["r"]


def oft(w, t, s):
    """`W·diag(R₁, …)ᵀ` with `R` by the series of five terms."""
    upper, b = t["oft_R.weight"], s["oft_block_size"]
    rows, columns = torch.triu_indices(b, b, 1)
    q = torch.zeros(len(upper), b, b)
    q = q.index_put((torch.arange(len(upper))[:, None], rows, columns), upper)
    q = q - q.transpose(1, 2)
    q2 = q @ q
    rotations = torch.eye(b) + 2 * q + 2 * q2 + 2 * q2 @ q + q2 @ q2
    return w @ torch.block_diag(*rotations).T


def boft(w, t, s):
    """`diag(s)·W·diag(R₁, …)ᵀ` with one butterfly factor and `R = (I − Q)(I + Q)⁻¹`."""
    d = t["boft_R"][0]
    q = (d - d.transpose(1, 2)) / 2
    eye = torch.eye(q.shape[-1])
    rotations = (eye - q) @ torch.linalg.inv(eye + q)
    return t["boft_s"] * (w @ torch.block_diag(*rotations).T)


def miss(w, t, s):
    """Feature `j` of the input has row `j mod r` of the block."""
    d = t["miss_block"]
    return w + d[torch.arange(w.shape[1]) % len(d)].T


def hra(w, t, s):
    for u in t["hra_u"].T:
        w = w - 2 * torch.outer(w @ u, u) / (u @ u)
    return w


# name, formula, PEFT's class of settings, settings
CASES = [
    ("loha", loha, "LoHaConfig", dict(r=2)),
    ("lokr", lokr, "LoKrConfig", dict(r=2, alpha=4)),
    ("oft", oft, "OFTConfig", dict(oft_block_size=4)),
    ("boft", boft, "BOFTConfig", dict()),
    ("miss", miss, "MissConfig", dict(r=4)),
    ("hra", hra, "HRAConfig", dict(r=4)),
]  # fmt: skip


def run(name, changed, inputs):
    """Logits and loss of a base with other weights `[out, in]`."""
    model = base_of(name)
    weights = {f"{layer}.weight": w.T if name == "gpt2" else w for layer, w in changed.items()}
    ids = inputs["input_ids"]
    out = functional_call(model, weights, (), {"input_ids": ids, "labels": ids, "use_cache": False})
    return out.logits, out.loss


def changed(name, formula, adapter, settings):
    model, of_layer = base_of(name), {}
    for key, tensor in adapter.items():
        layer = next(layer for layer, _ in model.named_modules() if layer and key.startswith(f"{PREFIX}{layer}.")
                     and layer.rsplit(".", 1)[-1] in ALL[name])  # fmt: skip
        of_layer.setdefault(layer, {})[key.removeprefix(f"{PREFIX}{layer}.")] = tensor
    base = dict(model.named_parameters())
    own = {layer: base[f"{layer}.weight"].detach() for layer in of_layer}
    return {layer: formula(own[layer].T if name == "gpt2" else own[layer], t, settings) for layer, t in of_layer.items()}


def check_on_llama(case, formula):
    folder = FOLDER / "llama" / case
    settings = json.loads((folder / "adapter_config.json").read_text())
    adapter = load_file(folder / "adapter_model.safetensors")
    inputs = load_file(FOLDER / "llama" / "inputs.safetensors")
    with torch.no_grad():
        logits, _ = run("llama", changed("llama", formula, adapter, settings), inputs)
    torch.testing.assert_close(logits, load_file(folder / "golden.safetensors")["output"], rtol=1e-4, atol=1e-4)


def shapes(case, settings, outputs, inputs):
    """The tensors of a layer, as PEFT's files for llama have them."""
    r = settings.get("r")
    if case == "loha":
        return {"hada_w1_a": (outputs, r), "hada_w1_b": (r, inputs), "hada_w2_a": (outputs, r), "hada_w2_b": (r, inputs)}
    if case == "lokr":
        split = {16: (4, 4), 24: (4, 6), 48: (6, 8)}
        (out_l, out_k), (in_m, in_n) = split[outputs], split[inputs]
        second = {"lokr_w2": (out_k, in_n)} if r >= max(out_k, in_n) / 2 else {"lokr_w2_a": (out_k, r), "lokr_w2_b": (r, in_n)}
        return {"lokr_w1": (out_l, in_m)} | second
    if case == "oft":
        b = settings["oft_block_size"]
        return {"oft_R.weight": (inputs // b, b * (b - 1) // 2)}
    if case == "boft":
        return {"boft_R": (1, inputs // 4, 4, 4), "boft_s": (outputs, 1)}
    if case == "miss":
        return {"miss_block": (r, outputs)}
    return {"hra_u": (inputs, r)}


def write(case, formula, kind, settings):
    folder = FOLDER / "gpt2" / f"formula_{case}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    generator = torch.Generator().manual_seed(zlib.crc32(f"formula/{case}".encode()))
    config = getattr(peft, kind)(task_type="CAUSAL_LM", target_modules=sorted(ALL["gpt2"]), **settings)
    config.base_model_name_or_path, config.inference_mode = "gpt2", True
    if hasattr(config, "fan_in_fan_out"):
        config.fan_in_fan_out = True
    config.save_pretrained(folder)
    written = json.loads((folder / "adapter_config.json").read_text())
    written["target_modules"] = sorted(ALL["gpt2"])
    write_json(folder / "adapter_config.json", written)

    adapter = {}
    for layer, module in base_of("gpt2").named_modules():
        if layer.rsplit(".", 1)[-1] in ALL["gpt2"]:
            inputs, outputs = module.weight.shape
            for name, shape in shapes(case, written, outputs, inputs).items():
                noise = 0.3 * torch.randn(shape, generator=generator)
                adapter[f"{PREFIX}{layer}.{name}"] = (1 + noise if name == "boft_s" else noise).requires_grad_()
    inputs = load_file(FOLDER / "gpt2" / "inputs.safetensors")
    logits, loss = run("gpt2", changed("gpt2", formula, adapter, written), inputs)
    loss.backward()
    tensors = {"output": logits, "merged": logits.clone(), "loss": loss.reshape(1)}
    tensors |= {f"grad.{key}": tensor.grad for key, tensor in adapter.items()}
    with torch.no_grad():
        change = (logits - base_of("gpt2")(input_ids=inputs["input_ids"]).logits).abs().max().item()
    assert change > 0.1, f"{case} changes the output by {change} only"
    save = lambda tensors, name, **more: save_file(
        {key: tensor.detach().contiguous().clone() for key, tensor in tensors.items()}, folder / name, **more
    )
    save(adapter, "adapter_model.safetensors", metadata={"format": "pt"})
    save(tensors, "golden.safetensors")
    print(f"gpt2/formula_{case}: loss {loss.item():.4f}, changes the output by up to {change:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    disable_progress_bar()
    for case, formula, kind, settings in CASES:
        check_on_llama(case, formula)
        write(case, formula, kind, settings)
