"""Tiny random encoders with the heads of tasks as transformers saves them, and what it computes with them.

torch 2.15.0, transformers 5.23.0. Run from anywhere: python encoder_tasks.py [TASK or FAMILY ...]

Each folder task_NAME/ holds config.json, the weights, and golden.safetensors: input_ids, token_type_ids, attention_mask [3, 9] (rows of 9, 4
and 2 tokens); logits [3, labels] of texts, logits [3, 9, labels] of tokens (labels are the vocabulary for task_FAMILY_mask) or start and end [3, 9], zero where there is padding; labels
or start_labels and end_labels; loss [1] and grad.<parameter> of it.
"""

import importlib.metadata
import sys
import zlib
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
SMALL = dict(vocab_size=41, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, max_position_embeddings=14)
DISTIL = dict(vocab_size=41, dim=16, n_layers=2, n_heads=2, hidden_dim=20, max_position_embeddings=14)
NAMES = dict(id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2})
MODERN = SMALL | dict(local_attention=6, pad_token_id=0, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
FAMILIES = {
    "bert": ("Bert", dict(**SMALL)),
    "roberta": ("Roberta", dict(**SMALL, pad_token_id=1)),
    "distilbert": ("DistilBert", dict(**DISTIL)),
    "deberta": (
        "DebertaV2",
        dict(
            **SMALL, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=4, share_att_key=True, norm_rel_ebd="layer_norm",
            position_biased_input=False, type_vocab_size=0, pooler_hidden_size=16,
        ),
    ),
    "mpnet": ("MPNet", dict(**SMALL)),
    "modernbert": ("ModernBert", dict(**MODERN, classifier_pooling="mean", classifier_bias=True)),
}
TASKS = {"sequence": "SequenceClassification", "token": "TokenClassification", "answer": "QuestionAnswering", "mask": "MaskedLM"}

for family, (prefix, settings) in FAMILIES.items():
    for task, suffix in TASKS.items():
        if sys.argv[1:] and not {task, family} & set(sys.argv[1:]):
            continue
        if task == "answer" and family not in ("bert", "distilbert", "deberta"):
            continue
        if task == "mask" and family == "deberta":
            continue
        name = f"task_{family}_{task}"
        torch.manual_seed(zlib.crc32(name.encode()))
        config = getattr(transformers, prefix + "Config")(**settings, **({} if task in ("answer", "mask") else NAMES))
        model = getattr(transformers, f"{prefix}For{suffix}")(config).eval()
        for parameter in model.parameters():
            parameter.data = torch.randn_like(parameter) * (0.2 if parameter.dim() > 1 else 0.3) + (parameter.data.mean() > 0.5) * 1.0
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight.data[module.padding_idx] = 0
        folder = HERE / name
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        ids = torch.randint(4, 41, (3, 9))
        mask = torch.tensor([[1] * n + [0] * (9 - n) for n in (9, 4, 2)])
        ids[mask == 0] = config.pad_token_id
        types = torch.zeros_like(ids)
        more = {}
        if family == "bert":
            types = torch.randint(0, 2, (3, 9))
            more = dict(token_type_ids=types)
        golden = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        if task == "answer":
            starts, ends = torch.tensor([2, 0, 1]), torch.tensor([5, 3, 1])
            out = model(input_ids=ids, attention_mask=mask, **more)
            # transformers' own loss also goes over the scores of padding.
            cut = lambda logits: logits.masked_fill(mask == 0, -torch.inf)
            entropy = torch.nn.functional.cross_entropy
            out.loss = (entropy(cut(out.start_logits), starts) + entropy(cut(out.end_logits), ends)) / 2
            golden |= {"start": out.start_logits * mask, "end": out.end_logits * mask, "start_labels": starts, "end_labels": ends}
        elif task in ("token", "mask"):
            classes = 3 if task == "token" else 41
            labels = torch.where(mask == 1, torch.randint(0, classes, (3, 9)), -100)
            labels[0, 0] = -100
            out = model(input_ids=ids, attention_mask=mask, labels=labels, **more)
            golden |= {"logits": out.logits * mask[:, :, None], "labels": labels}
        else:
            labels = torch.tensor([2, 0, 1])
            out = model(input_ids=ids, attention_mask=mask, labels=labels, **more)
            golden |= {"logits": out.logits, "labels": labels}
        out.loss.backward()
        golden["loss"] = out.loss[None]
        golden |= {f"grad.{key}": p.grad for key, p in model.named_parameters() if p.grad is not None}
        save_file({key: value.detach().contiguous() for key, value in golden.items()}, folder / "golden.safetensors")
