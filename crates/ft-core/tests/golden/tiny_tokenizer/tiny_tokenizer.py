"""Trains the byte-level BPE tokenizer of a few kilobytes that tests run on.

tokenizers 0.23.3, transformers 5.23.0. Run from anywhere: python tiny_tokenizer.py
"""

import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

HERE = Path(__file__).parent

TEXT = [
    "The cat sat on the mat and looked at the rain.",
    "What is the capital of France? The capital of France is Paris.",
    "Name three colours. Red, green and blue are three colours.",
    "Hello! How are you today? I am well, thank you.",
    "Count to five: one, two, three, four, five.",
    "Is water wet? Yes, water is wet.\n\nAnd is the sun hot? Yes, the sun is hot.",
    "You are a helpful assistant.",
]

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]

TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def main():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        TEXT,
        trainers.BpeTrainer(
            vocab_size=384,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("</tool_call>", normalized=False)])
    tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": {
            "__type": "AddedToken",
            "content": "<|im_end|>",
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
        },
        "pad_token": "<pad>",
        "unk_token": "<|endoftext|>",
        "model_max_length": 512,
        "chat_template": TEMPLATE,
    }
    (HERE / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


if __name__ == "__main__":
    main()
