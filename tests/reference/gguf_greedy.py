"""Greedy tokens of GGUF files by llama.cpp, to compare with `generate --json` on the same files.

Usage: gguf_greedy.py FILE.gguf PROMPT [--chat] [--max-new-tokens N]
Prints one JSON line: prompt_ids and token_ids. Needs llama-cpp-python.
"""
import argparse
import json

import llama_cpp

parser = argparse.ArgumentParser()
parser.add_argument("file")
parser.add_argument("prompt")
parser.add_argument("--chat", action="store_true")
parser.add_argument("--max-new-tokens", type=int, default=32)
args = parser.parse_args()

model = llama_cpp.Llama(args.file, n_ctx=512, n_threads=2, verbose=False, logits_all=False)
text = args.prompt
if args.chat:
    text = f"<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"
ids = model.tokenize(text.encode(), add_bos=False, special=True)
found = []
for token in model.generate(ids, temp=0.0, repeat_penalty=1.0, top_k=1):
    found.append(token)
    if token == model.token_eos() or len(found) == args.max_new_tokens:
        break
print(json.dumps({"prompt_ids": ids, "token_ids": found}))
