"""What AutoTokenizer makes of tokens that stand in files beside tokenizer.json.

tokenizers 0.23.3, transformers 5.23.0. Writes added_tokens.json beside this file: for each case the files that
are laid over the tiny tokenizer, and ids, tokens and names as transformers has them.
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
TINY = HERE / "tiny_tokenizer"

TEXTS = [
    "Hello <new> world<new>!",
    "The<a><b> cat <c>  <d>sat<e> \n <f> on<g>x",
    "Is <NEW> it <New> wet? <|im_end|><|im_start|>",
    "x<tool_call> is <pad> <|endoftext|>y is is2 is",
    " is ", "<a> <a>", "<image><audio>",
]


def token(content, **flags):
    return {"content": content, **flags}


def named(content, **flags):
    return {"__type": "AddedToken", "content": content, **flags}


BASE = {"tokenizer_class": "PreTrainedTokenizerFast"}
LOWER = {"normalizer": {"type": "Lowercase"}}

# Name, tokenizer_config.json, special_tokens_map.json, added_tokens.json, and what changes in tokenizer.json.
CASES = [
    ("nothing", {}, None, None, {}),
    ("listed tokens", {"added_tokens_decoder": {
        "386": token("<new>", special=True), "387": token("<a>", lstrip=True, special=False),
        "388": token("<b>", rstrip=True), "389": token("<c>", single_word=True), "390": token("<d>", lstrip=True, rstrip=True, special=True),
    }}, None, None, {}),
    ("flags of a token that is there", {"added_tokens_decoder": {
        "384": token("<tool_call>", lstrip=True, rstrip=True, normalized=False, special=True),
        "3": token("<pad>", lstrip=True, normalized=False, special=True),
    }}, None, None, {}),
    ("a token of the vocabulary becomes an added one", {"added_tokens_decoder": {"263": token("is", single_word=True, special=False)}}, None, None, {}),
    ("named tokens that are missing", {
        "bos_token": "<a>", "eos_token": named("<b>", lstrip=True, rstrip=False, normalized=False, single_word=False),
        "unk_token": None, "pad_token": "<new>", "mask_token": named("<c>", lstrip=True)}, None, None, {}),
    ("a named token of the vocabulary", {"eos_token": "is"}, None, None, {}),
    ("extra special tokens", {"extra_special_tokens": ["<new>", named("<a>", lstrip=True, special=True), named("<b>", rstrip=True), "<pad>"]}, None, None, {}),
    ("additional special tokens", {"additional_special_tokens": ["<new>", "<a>", "<|im_end|>"], "pad_token": "<b>"}, None, None, {}),
    ("both lists", {"additional_special_tokens": ["<new>"], "extra_special_tokens": ["<a>"]}, None, None, {}),
    ("extra special tokens with names", {"extra_special_tokens": {"image_token": "<image>", "audio_token": "<audio>"}, "pad_token": "<b>"}, None, None, {}),
    ("names of the model's own", {"image_token": "<image>", "eos_token": "<|im_end|>"}, None, None, {}),
    ("added tokens", {"eos_token": "<a>"}, None, {"<new>": 386, "<a>": 387}, {}),
    ("added tokens next to a list", {"added_tokens_decoder": {"386": token("<b>")}}, None, {"<new>": 386, "<a>": 387}, {}),
    ("added tokens that are there", {}, None, {"<tool_call>": 384}, {}),
    ("a map of special tokens wins", {"eos_token": "<|im_end|>", "pad_token": "<pad>"},
        {"eos_token": token("<|endoftext|>", lstrip=True, rstrip=False, single_word=False, normalized=False), "bos_token": "<new>",
         "additional_special_tokens": ["<a>", "<b>"], "image_token": "<image>"}, None, {}),
    ("a map of special tokens next to a list", {"eos_token": "<|im_end|>", "added_tokens_decoder": {"386": token("<b>")}},
        {"eos_token": "<|endoftext|>", "bos_token": "<new>", "additional_special_tokens": ["<a>"]}, None, {}),
    ("a map of extra tokens joins them", {"extra_special_tokens": ["<a>"]},
        {"extra_special_tokens": ["<b>", "<a>", token("<c>", lstrip=True, rstrip=True, normalized=False)]}, None, {}),
    ("everything at once", {
        "added_tokens_decoder": {"386": token("<new>", lstrip=True, special=False), "387": token("<a>", special=True)},
        "extra_special_tokens": ["<c>", "<new>"], "eos_token": "<new>", "pad_token": "<d>", "image_token": "<image>"}, None, None, {}),
    ("split special tokens", {"split_special_tokens": True, "eos_token": "<|im_end|>"}, None, None, {}),
    ("normalized tokens", {"added_tokens_decoder": {
        "386": token("<NEW>", special=False), "387": token("<New>", normalized=False), "388": token("<A>", special=True)}}, None, None, LOWER),
    ("a padding of tokenizer.json names the token", {"eos_token": "<|im_end|>"}, None, None, {"padding": {
        "strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 386, "pad_type_id": 0, "pad_token": "<new>"}}),
]


def run(config, special_map, added, changes):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tokenizer = json.loads((TINY / "tokenizer.json").read_text())
        (folder / "tokenizer.json").write_text(json.dumps({**tokenizer, **changes}))
        files = [("tokenizer_config.json", {**BASE, **config}), ("special_tokens_map.json", special_map), ("added_tokens.json", added)]
        for name, content in files:
            if content is not None:
                (folder / name).write_text(json.dumps(content))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = [tokenizer(text, add_special_tokens=False).input_ids for text in TEXTS]
        return {
            "ids": ids,
            "plain": [tokenizer.decode(row, skip_special_tokens=True) for row in ids],
            "vocab_size": len(tokenizer),
            "special_tokens": tokenizer.special_tokens_map,
            "special_ids": sorted(tokenizer.all_special_ids),
        }


def main():
    cases = []
    for name, config, special_map, added, changes in CASES:
        case = {"name": name, "config": {**BASE, **config}, "special_tokens_map": special_map, "added_tokens": added, "tokenizer": changes}
        case.update(run(config, special_map, added, changes))
        cases.append(case)
    (HERE / "added_tokens.json").write_text(json.dumps({"texts": TEXTS, "cases": cases}, ensure_ascii=False, indent=1) + "\n")
    print(len(cases), "cases")


if __name__ == "__main__":
    main()
