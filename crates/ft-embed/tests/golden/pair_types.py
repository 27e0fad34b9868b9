"""A cross-encoder whose folder names no class of its tokenizer, and what sentence-transformers computes with it.

torch 2.15.0, transformers 5.23.0, sentence-transformers 6.2.0. Run after models.py, from anywhere: python pair_types.py

- tiny_types/: the model of tiny_pairs/ with the tokenizer's files as old BERT folders have them: no tokenizer_class, no model_input_names;
- pair_types.json: pairs of texts with their scores, and the scores without token types.
"""

import importlib.metadata
import json
import shutil
from pathlib import Path

from sentence_transformers import CrossEncoder

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0", "sentence-transformers": "6.2.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
folder = HERE / "tiny_types"
shutil.rmtree(folder, ignore_errors=True)
shutil.copytree(HERE / "tiny_pairs", folder)
path = folder / "tokenizer_config.json"
settings = json.loads(path.read_text())
untyped = CrossEncoder(str(HERE / "tiny_pairs"))
for key in ("tokenizer_class", "model_input_names", "backend"):
    settings.pop(key, None)
path.write_text(json.dumps(settings, indent=2) + "\n")
pairs = json.loads((HERE / "pairs.json").read_text())["pairs"]
encoder = CrossEncoder(str(folder))
batch = encoder.tokenizer([pairs[0][0]], [pairs[0][1]])
assert 1 in batch["token_type_ids"][0], batch
golden = {
    "pairs": pairs,
    "scores": [float(x) for x in encoder.predict(pairs)],
    "untyped": [float(x) for x in untyped.predict(pairs)],
}
(HERE / "pair_types.json").write_text(json.dumps(golden))
