"""What transformers computes with SmolLM2-135M-Instruct in f32: writes smollm2.json beside this file.

torch 2.15.0, transformers 5.23.0, safetensors 0.8.0; the model as tools/get-models.sh makes it.
    python smollm2.py MODEL_DIR [--full FILE.safetensors] [--threads N]

- texts: five, tokenized without special tokens. For each position the most probable next token, its
  lead over the second, and logsumexp of the logits; for the last position the logits at 64 fixed ids.
- chats: five prompts in the chat template, with the generation prompt; 64 greedy tokens, none of them the
  stop token, and by how much the closest choice was made.

--full also writes the whole logits, as text0.input_ids [1, n] and text0.logits [1, n, vocab], and so on.
"""

import argparse
import hashlib
import json
import re
from pathlib import Path

import torch
from pinned import PINNED, check_versions, load, report, tokenizer_of
from safetensors.torch import save_file

TEXTS = [
    "The lighthouse keeper counted the ships each evening, and each evening there was one fewer than the day "
    "before. On the ninth night he put on his coat, took the lamp from its hook, and went down to the shore.",
    "def binary_search(items, target):\n    low, high = 0, len(items)\n    while low < high:\n"
    "        middle = (low + high) // 2\n        if items[middle] < target:\n            low = middle + 1\n"
    "        else:\n            high = middle\n    return low\n",
    "In 1969, 3 astronauts travelled 384,400 km. 17 * 23 = 391, and 0.1 + 0.2 is not quite 0.3; "
    "e^(i*pi) + 1 = 0.   Three spaces,\ttabs\tand\r\nline ends.",
    "Le café coûte 3 €, der Käse ist älter als die Tür, 東京は日本の首都です。 Привет, мир! 🙂🚀 naïve coöperation",
    "<|im_start|>user\nName three primary colours.<|im_end|>\n<|im_start|>assistant\nRed, yellow and blue.<|im_end|>\n",
]
CHATS = [
    "What is the capital of France? Tell me about its history.",
    "Write a short poem about the sea.",
    "Explain to a child why the sky is blue.",
    "Write a Python function that counts the words of a text, and explain every line of it.",
    "Give me five tips for sleeping better.",
]
NEW_TOKENS = 64


def rounded(tensor):
    return [round(value, 5) for value in tensor.tolist()]


def reference_of_text(model, tokenizer, text, vocab_ids):
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    logits = model(ids, use_cache=False).logits
    best = logits[0].topk(2, dim=-1)
    return ids, logits, {
        "text": text,
        "input_ids": ids[0].tolist(),
        "argmax": best.indices[:, 0].tolist(),
        "lead": rounded(best.values[:, 0] - best.values[:, 1]),
        "logsumexp": rounded(logits[0].logsumexp(-1)),
        "last_logits": rounded(logits[0, -1, vocab_ids]),
    }  # fmt: skip


def reference_of_chat(model, tokenizer, prompt):
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    out = model.generate(
        **ids, max_new_tokens=NEW_TOKENS, do_sample=False, return_dict_in_generate=True, output_logits=True
    )
    greedy = out.sequences[0, ids.input_ids.shape[1] :]
    best = torch.cat(out.logits).topk(2, dim=-1)
    assert torch.equal(best.indices[:, 0], greedy)
    assert len(greedy) == NEW_TOKENS, f"{prompt!r}: the answer ends after {len(greedy)} tokens"
    return {
        "prompt": prompt,
        "rendered": text,
        "input_ids": ids.input_ids[0].tolist(),
        "greedy": greedy.tolist(),
        "closest_lead": round((best.values[:, 0] - best.values[:, 1]).min().item(), 5),
        "answer": tokenizer.decode(greedy, skip_special_tokens=True),
    }


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("--full", help="write the whole logits to this safetensors file")
    p.add_argument("--threads", type=int, default=1)
    a = p.parse_args()
    check_versions()
    torch.set_num_threads(a.threads)
    model, tokenizer = load(a.model), tokenizer_of(a.model)
    vocab_ids = [5 + 768 * i for i in range(64)]
    full, texts = {}, []
    with torch.inference_mode():
        for i, text in enumerate(TEXTS):
            ids, logits, entry = reference_of_text(model, tokenizer, text, vocab_ids)
            full |= {f"text{i}.input_ids": ids.clone(), f"text{i}.logits": logits.clone()}
            texts.append(entry)
        chats = [reference_of_chat(model, tokenizer, prompt) for prompt in CHATS]
    reference = {
        "made_with": PINNED,
        "model_sha256": hashlib.sha256((a.model / "model.safetensors").read_bytes()).hexdigest(),
        "vocab_ids": vocab_ids,
        "texts": texts,
        "chats": chats,
    }
    text = json.dumps(reference, indent=1, ensure_ascii=False)
    text = re.sub(r'\[[^][{}"]*\]', lambda numbers: " ".join(numbers[0].split()), text)
    assert json.loads(text) == reference
    (Path(__file__).parent / "smollm2.json").write_text(text + "\n", encoding="utf-8")
    if a.full:
        save_file(full, a.full)
    report(
        tokens=[len(entry["input_ids"]) for entry in texts],
        greedy_tokens=[len(entry["greedy"]) for entry in chats],
        closest_lead=min(entry["closest_lead"] for entry in chats),
    )


if __name__ == "__main__":
    main()
