"""Tiny random decoders with a score for every token as transformers saves them, and what it computes with them.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0. Run from anywhere: python token_classifiers.py
Deterministic: the same versions write the same bytes.

Each folder NAME/ holds config.json, the weights, and golden.safetensors: input_ids [2, 7]; labels [2, 7], -100 where none is;
scores [2, 7, labels]; loss [1], and grad.<parameter> of it for every parameter.
"""

import shutil
import zlib

import torch
from models import HERE, randomise
from safetensors.torch import save_file
from sequence_classifiers import LLAMA
from transformers import AutoModelForTokenClassification, LlamaConfig

MODELS = {
    "llama_tokens": LlamaConfig(**LLAMA, num_labels=2),
}


def write(name, config):
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    model = AutoModelForTokenClassification.from_config(config, attn_implementation="eager")
    randomise(model, generator)
    model.save_pretrained(folder)
    model = AutoModelForTokenClassification.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.randint(0, 96, (2, 7), generator=generator)
    labels = torch.tensor([[-100, -100, 1, -100, 0, -100, 1], [0, -100, -100, -100, -100, 1, -100]])
    out = model(input_ids=ids, labels=labels)
    out.loss.backward()
    tensors = {f"grad.{key}": parameter.grad for key, parameter in model.named_parameters()}
    assert all(grad.abs().max() > 1e-6 for grad in tensors.values())
    tensors |= {"input_ids": ids, "labels": labels, "scores": out.logits.detach(), "loss": out.loss.detach().reshape(1)}
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    print(f"{name}: {out.loss.item():.4f}", sorted(k for k, _ in model.named_parameters())[-3:])


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, config in MODELS.items():
        write(name, config)
