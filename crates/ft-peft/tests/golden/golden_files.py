"""What the scripts of this folder share: versions that write the same bytes, base models, adapters as PEFT saves them."""

import importlib.metadata
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
BERT = HERE / "../../../ft-core/tests/golden/bert"
VERSIONS = {"torch": "2.15.0", "transformers": "5.23.0", "peft": "0.21.2", "safetensors": "0.8.0"}


def check_versions(pinned=VERSIONS):
    for package, version in pinned.items():
        found = importlib.metadata.version(package).split("+")[0]
        assert found == version, f"{package} {found} is installed, the golden files need {version}"


def randomise(model, generator):
    """Weights and biases of deviation 0.2, norms around one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            norm = any(part in name for part in ("norm", ".ln_", "LayerNorm")) and name.endswith("weight")
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if norm else 0.2 * noise)


def load_base(folder, kind=AutoModelForCausalLM, **settings):
    return kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **settings).eval()


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def save_adapter(model, folder, name, base=None, **settings):
    """Saves the adapter of a model of PEFT; `name` is that of the base in its settings, `base` its folder if PEFT reads it."""
    model.peft_config["default"].base_model_name_or_path = str(base or name)
    model.save_pretrained(folder, **settings)
    (folder / "README.md").unlink()
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text()) | {"base_model_name_or_path": name}
    # PEFT writes sets, in an order that changes from run to run.
    for key in ("target_modules", "exclude_modules", "feedforward_modules", "modules_to_save"):
        if isinstance(config.get(key), list):
            config[key].sort()
    write_json(path, config)
