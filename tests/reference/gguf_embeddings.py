"""Tokens and hidden states of a GGUF file of BERT by llama.cpp, against transformers' of the folder that it was made from.

Usage: cargo run --release --example quantize -- --model FOLDER --format f32 --output FILE.gguf
       python gguf_embeddings.py FOLDER FILE.gguf
Needs llama-cpp-python, torch and transformers.
"""
import sys

import llama_cpp
import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

folder, file = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
theirs = llama_cpp.Llama(file, n_ctx=256, n_threads=1, verbose=False, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE)
for text in ["A kite is a toy.", "Tóys, unseen! THE END?", "日本 and emoji 🙂, 3.14", "antidisestablishmentarianism x"]:
    ids = tokenizer(text)["input_ids"]
    found = theirs.tokenize(text.encode(), add_bos=True, special=True)
    same = "same tokens" if found == ids else f"tokens {found} in place of {ids}"
    with torch.no_grad():
        expected = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    states = np.array(theirs.embed(text))
    worst = np.abs(states - expected).max() / np.abs(expected).max() if states.shape == expected.shape else states.shape
    print(f"{text!r}: {same}, largest difference {worst} of the largest number")
