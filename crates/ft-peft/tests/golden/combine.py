"""Combined adapters as PEFT's add_weighted_adapter makes them.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python combine.py
Deterministic: the same versions write the same bytes.

combine/: LoRA adapters on peft_llama/ as PEFT saves them: a, b, d (r 4; b with use_rslora) on q_proj and down_proj, c (r 6)
on q_proj and v_proj; IA3 adapters x and y. combined.safetensors: for each case `<case>.<layer>`, the change s·BA of the
layer's weight, or the vector of IA3.

svd_clamp cuts at a quantile of numbers whose signs depend on those of the singular vectors, which are arbitrary; they are
fixed here by making the largest number of each column of U positive.
"""

import shutil

import torch
from golden_files import HERE, check_versions, load_base, save_adapter
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

check_versions()

BASE, FOLDER = HERE / "peft_llama", HERE / "combine"

LORA = {
    "a": LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"]),
    "b": LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q_proj", "down_proj"]),
    "c": LoraConfig(r=6, lora_alpha=6, target_modules=["q_proj", "v_proj"]),
    "d": LoraConfig(r=4, lora_alpha=2, target_modules=["q_proj", "down_proj"]),
}
IA3 = {name: IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]) for name in "xy"}

# name: adapters, weights, settings
CASES = {
    "linear": ("ab", [1.0, -0.5], {"combination_type": "linear"}),
    "cat": ("ac", [0.7, -0.4], {"combination_type": "cat"}),
    "svd": ("ac", [0.7, 0.4], {"combination_type": "svd"}),
    "svd_rank": ("ab", [0.7, 0.4], {"combination_type": "svd", "svd_rank": 3}),
    "svd_clamp": ("ab", [0.7, 0.4], {"combination_type": "svd", "svd_clamp": 0.9}),
    "ties_total": ("abd", [1.0, 0.5, 2.0], {"combination_type": "ties", "density": 0.5}),
    "ties_frequency": (
        "abd",
        [1.0, 0.5, -2.0],
        {"combination_type": "ties", "density": 0.7, "majority_sign_method": "frequency"},
    ),
    "ties_svd": ("abc", [1.0, 0.5, 0.8], {"combination_type": "ties_svd", "density": 0.4}),
    "magnitude_prune": ("ab", [1.0, 0.5], {"combination_type": "magnitude_prune", "density": 0.3}),
    "magnitude_prune_svd": ("ac", [1.0, 0.5], {"combination_type": "magnitude_prune_svd", "density": 0.3}),
}

plain_svd = torch.linalg.svd


def svd_with_fixed_signs(matrix, full_matrices=True, driver=None):
    u, s, vh = plain_svd(matrix, full_matrices=False)
    signs = torch.gather(u, 0, u.abs().argmax(0, keepdim=True)).sign()[0]
    return u * signs, s, vh * signs[:, None]


torch.linalg.svd = svd_with_fixed_signs


def save(configs, generator):
    for name, config in configs.items():
        config.task_type = "CAUSAL_LM"
        model = get_peft_model(load_base(BASE), config)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key or "ia3_" in key:
                    noise = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(1 + 0.3 * noise if "ia3_" in key else 0.3 * noise)
        save_adapter(model, FOLDER / name, "peft_llama")


def load(names):
    model = PeftModel.from_pretrained(load_base(BASE), FOLDER / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(FOLDER / name, adapter_name=name)
    return model


def main():
    generator = torch.Generator().manual_seed(12)
    shutil.rmtree(FOLDER, ignore_errors=True)
    save(LORA, generator)
    save(IA3, generator)
    combined = {}
    for case, (names, weights, settings) in CASES.items():
        model = load(names)
        model.add_weighted_adapter(list(names), weights, "new", **settings)
        for path, module in model.base_model.model.named_modules():
            if "new" in getattr(module, "lora_A", {}):
                combined[f"{case}.{path}"] = module.get_delta_weight("new").detach().clone().contiguous()
    model = load("xy")
    model.base_model.add_weighted_adapter(["x", "y"], [0.3, 0.9], "new")
    for path, module in model.base_model.model.named_modules():
        if "new" in getattr(module, "ia3_l", {}):
            combined[f"ia3.{path}"] = module.ia3_l["new"].detach().clone()
    save_file(combined, FOLDER / "combined.safetensors")


main()
