"""Tiny random encoders as transformers saves them, and what it computes with them.

torch 2.15.0, transformers 5.23.0. Run from anywhere: python encoders.py [NAME ...]

Each folder NAME/ holds config.json, the weights (`bert_mlm` and `distilbert_mlm` within a model around the encoder), and golden.safetensors:
input_ids and token_type_ids [3, 9], attention_mask (rows of 9, 4 and 1 tokens), state.0 ... state.N [3, 9, width], zero where there is
padding; loss [1], the sum over the last states of real tokens times weights [3, 9, width], and grad.<parameter> of it.
"""

import importlib.metadata
import sys
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DebertaV2Config, DebertaV2Model
from transformers import BertConfig, BertForMaskedLM, BertModel, DistilBertConfig, DistilBertForMaskedLM, DistilBertModel
from transformers import ModernBertConfig, ModernBertModel, MPNetConfig, MPNetModel, RobertaConfig, RobertaModel

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
SMALL = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, max_position_embeddings=20)
DEBERTA = dict(
    relative_attention=True, pos_att_type="p2c|c2p", position_buckets=4, share_att_key=True, norm_rel_ebd="layer_norm", position_biased_input=False,
    type_vocab_size=0,
)
DISTIL = dict(vocab_size=61, dim=24, n_layers=2, n_heads=3, hidden_dim=40, max_position_embeddings=20)
MODELS = {
    "bert": (BertModel, BertConfig(**SMALL)),
    "bert_mlm": (BertForMaskedLM, BertConfig(**SMALL | dict(num_hidden_layers=1), hidden_act="gelu_new", layer_norm_eps=1e-5)),
    "roberta": (RobertaModel, RobertaConfig(**SMALL, type_vocab_size=1, pad_token_id=1)),
    "distilbert": (DistilBertModel, DistilBertConfig(**DISTIL)),
    "distilbert_mlm": (DistilBertForMaskedLM, DistilBertConfig(**DISTIL | dict(n_layers=1), activation="relu")),
    "deberta": (
        DebertaV2Model,
        DebertaV2Config(**SMALL, relative_attention=True, pos_att_type=["c2p", "p2c"], type_vocab_size=2, max_relative_positions=6),
    ),
    "deberta_v3": (DebertaV2Model, DebertaV2Config(**SMALL, **DEBERTA)),
    "mpnet": (MPNetModel, MPNetConfig(**SMALL, layer_norm_eps=1e-5)),
    "modernbert": (ModernBertModel, ModernBertConfig(**SMALL | dict(num_hidden_layers=4), local_attention=6, pad_token_id=0)),
}

for name, (kind, config) in MODELS.items():
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    torch.manual_seed(zlib.crc32(name.encode()))
    model = kind(config).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * (0.15 if parameter.dim() > 1 else 0.3) + (parameter.data.mean() > 0.5) * 1.0
    # The rows of padding are zero in transformers, and nothing trains them.
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] = 0
    folder = HERE / name
    model.save_pretrained(folder)
    encoder = getattr(model, "bert", getattr(model, "distilbert", model))
    ids = torch.randint(2, 61, (3, 9))
    mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 4, 1)])
    ids[mask == 0] = config.pad_token_id
    types = torch.randint(0, max(getattr(config, "type_vocab_size", 1), 1), (3, 9))
    more = dict(token_type_ids=types) if hasattr(config, "type_vocab_size") else {}
    out = encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more)
    weights = torch.randn(3, 9, config.hidden_size) * mask[:, :, None]
    loss = (out.hidden_states[-1] * weights).sum()
    loss.backward()
    golden = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types, "weights": weights, "loss": loss[None]}
    golden |= {f"state.{i}": state * mask[:, :, None] for i, state in enumerate(out.hidden_states)}
    golden |= {f"grad.{key}": p.grad for key, p in encoder.named_parameters() if p.grad is not None}
    save_file({key: value.detach().contiguous() for key, value in golden.items()}, folder / "golden.safetensors")
    (folder / "generation_config.json").unlink(missing_ok=True)
