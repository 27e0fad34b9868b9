"""Tiny random encoders with tokenizers, and what transformers' pipelines make of texts with them.

torch 2.15.0, transformers 5.23.0. Run from anywhere: python pipelines.py, then answers.py with transformers 4.57.

Folders text/, several/, nli/, tags/, word_tags/ (a byte-level tokenizer), answers/ and mask/ hold config.json, the weights and the tokenizer;
pipelines.json holds lists of {task, folder, input, options, output}.
"""

import importlib.metadata
import json
import zlib
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from transformers import (
    BertConfig, BertForMaskedLM, BertForQuestionAnswering, BertForSequenceClassification, BertForTokenClassification,
    BertTokenizer, RobertaConfig, RobertaForTokenClassification, RobertaTokenizer, pipeline,
)

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
CORPUS = [
    "The kettle from Nordwind boils water quickly and quietly.",
    "Anna Berg bought the blue kettle in Hamburg for forty euros.",
    "This example is about travel, cooking or sports.",
    "The river Elbe flows through Dresden and Hamburg into the sea.",
    "Who wrote the letter? Where does the river end? What was bought?",
    "It was wonderful, but the handle broke after one week.",
]
TEXTS = [
    "Anna bought the kettle in Hamburg.",
    "The handle of the Nordwind kettle broke; wonderful was the water!",
    "Where does the quickly flowing Elbe end?",
    "Über den Wolken",
]
PEOPLE = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
cases = []


def wordpiece():
    trainer = BertWordPieceTokenizer(lowercase=True)
    trainer.train_from_iterator(CORPUS, vocab_size=150, min_frequency=1, show_progress=False)
    return BertTokenizer(vocab=trainer.get_vocab(), do_lower_case=True, model_max_length=32)


def byte_level(folder):
    trainer = ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer.train_from_iterator(CORPUS, vocab_size=300, min_frequency=1, show_progress=False, special_tokens=special)
    folder.mkdir(exist_ok=True)
    trainer.save_model(str(folder))
    made = RobertaTokenizer.from_pretrained(folder, add_prefix_space=True, model_max_length=32)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    return made


def build(name, kind, config, tokenizer):
    torch.manual_seed(zlib.crc32(name.encode()))
    model = kind(config).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * (0.3 if parameter.dim() > 1 else 0.2) + (parameter.data.mean() > 0.5) * 1.0
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
            module.weight.data[module.padding_idx] = 0
    model.save_pretrained(HERE / name)
    tokenizer.save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    return model


def small(labels=None, **more):
    names = {} if labels is None else dict(id2label=dict(enumerate(labels)), label2id={l: i for i, l in enumerate(labels)})
    return dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, max_position_embeddings=40) | names | more


def run(task, folder, inputs, made, settings=None, **options):
    """`settings` are those that the pipeline was made with."""
    for text in inputs:
        output = made(text, **options)
        cases.append(dict(task=task, folder=folder, input=text, options=options | (settings or {}), output=output))


words = wordpiece()
size = dict(vocab_size=len(words))
text = build("text", BertForSequenceClassification, BertConfig(**small(["bad", "fair", "good"], **size)), words)
made = pipeline("text-classification", model=text, tokenizer=words)
run("text-classification", "text", [TEXTS[0], TEXTS[1], {"text": TEXTS[0], "text_pair": TEXTS[2]}], made, top_k=None)
several = BertConfig(**small(["a", "b"], **size), problem_type="multi_label_classification")
several = build("several", BertForSequenceClassification, several, words)
run("text-classification", "several", TEXTS[:2], pipeline("text-classification", model=several, tokenizer=words), top_k=None)

nli = build("nli", BertForSequenceClassification, BertConfig(**small(["contradiction", "neutral", "entailment"], **size)), words)
made = pipeline("zero-shot-classification", model=nli, tokenizer=words)
labels = ["travel", "cooking", "sports"]
for multi_label in (False, True):
    run("zero-shot-classification", "nli", TEXTS[:2], made, candidate_labels=labels, multi_label=multi_label)
run("zero-shot-classification", "nli", TEXTS[:1], made, candidate_labels=["travel"], hypothesis_template="It is about {}.")

tags = build("tags", BertForTokenClassification, BertConfig(**small(PEOPLE, **size)), words)
long = " ".join(TEXTS)


def tag(folder, model, tokenizer, inputs, **settings):
    made = pipeline("token-classification", model=model, tokenizer=tokenizer, **settings)
    run("token-classification", folder, inputs, made, settings)


for strategy in ("none", "simple", "first", "average", "max"):
    tag("tags", tags, words, TEXTS + [long], aggregation_strategy=strategy)
for ignored in ([], ["PER"]):
    tag("tags", tags, words, TEXTS[:2], aggregation_strategy="simple", ignore_labels=ignored)
tag("tags", tags, words, [long, TEXTS[0]], aggregation_strategy="first", stride=6)
bytes_ = byte_level(HERE / "word_tags")
config = RobertaConfig(**small(PEOPLE, vocab_size=len(bytes_), pad_token_id=1, bos_token_id=0, eos_token_id=2))
word_tags = build("word_tags", RobertaForTokenClassification, config, bytes_)
for strategy in ("none", "simple", "average"):
    tag("word_tags", word_tags, bytes_, TEXTS, aggregation_strategy=strategy)

mask = build("mask", BertForMaskedLM, BertConfig(**small(**size)), words)
made = pipeline("fill-mask", model=mask, tokenizer=words)
run("fill-mask", "mask", ["Anna bought the [MASK] in Hamburg.", "The [MASK] broke after one [MASK]!"], made)
run("fill-mask", "mask", ["Anna bought the [MASK]."], made, targets=["kettle", "river", "water"], top_k=2)
made = pipeline("feature-extraction", model=mask.bert, tokenizer=words)
run("feature-extraction", "mask", TEXTS[:2], made)
build("answers", BertForQuestionAnswering, BertConfig(**small(**size)), words)


def plain(value):
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value.item() if hasattr(value, "item") else round(value, 7) if isinstance(value, float) else value


(HERE / "pipelines.json").write_text(json.dumps(plain(cases), ensure_ascii=False))
