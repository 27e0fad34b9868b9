"""Tiny random sequence classifiers as transformers saves them, and what it computes with them.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. Run from anywhere: python sequence_classifiers.py [NAME ...]
Deterministic: the same versions write the same bytes.

Each folder NAME/ holds config.json, the weights, and golden.safetensors:
- input_ids [3, 9], rows of 9, 4 and 1 tokens with padding on the right, none of whose tokens is the padding's id; lengths [3];
- scores [3, labels]; labels [3], numbers for one label (regression) and classes for three;
- loss [1], which transformers chooses by the number of labels, and grad.<parameter> of it for every parameter.
"""

import shutil
import sys
import zlib

import torch
from models import HERE, MINI, VOCAB, randomise
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification, GPT2Config, LlamaConfig

PAD = 96
LENGTHS = [9, 4, 1]
LLAMA = MINI | dict(num_hidden_layers=2, tie_word_embeddings=False, pad_token_id=PAD)
GPT2 = dict(
    vocab_size=VOCAB, n_positions=16, n_embd=16, n_layer=2, n_head=2, n_inner=16,
    bos_token_id=0, eos_token_id=0, pad_token_id=PAD,
)  # fmt: skip
NAMES = {"id2label": {0: "bad", 1: "fair", 2: "good"}, "label2id": {"bad": 0, "fair": 1, "good": 2}}
MODELS = {
    "llama_1_label": LlamaConfig(**LLAMA, num_labels=1),
    "llama_3_labels": LlamaConfig(**LLAMA, **NAMES),
    "gpt2_1_label": GPT2Config(**GPT2, num_labels=1),
    "gpt2_3_labels": GPT2Config(**GPT2, **NAMES, problem_type="single_label_classification"),
}


def write(name, config):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    randomise(model, generator)
    model.save_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()

    ids = torch.randint(0, PAD, (3, 9), generator=generator)
    mask = torch.tensor([[1] * length + [0] * (9 - length) for length in LENGTHS])
    ids[mask == 0] = PAD
    count = model.num_labels
    labels = torch.randn(3, generator=generator) if count == 1 else torch.tensor([2, 0, 1])
    out = model(input_ids=ids, attention_mask=mask, labels=labels)
    out.loss.backward()
    tensors = {f"grad.{key}": parameter.grad for key, parameter in model.named_parameters()}
    assert all(grad.abs().max() > 1e-6 for grad in tensors.values())
    tensors |= {
        "input_ids": ids,
        "lengths": torch.tensor(LENGTHS),
        "labels": labels,
        "scores": out.logits.detach(),
        "loss": out.loss.detach().reshape(1),
    }
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    print(f"{name}: {out.loss.item():.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        write(chosen, MODELS[chosen])
