"""Tiny sentence-transformers folders, and what sentence-transformers computes with them.

torch 2.15.0, transformers 5.23.0, sentence-transformers 6.2.0. Run from anywhere: python models.py

- tiny/: version 6, a random BERT, mean pooling, Dense with tanh and without bias, Normalize, prompts;
- tiny_legacy/: the same weights in the form of old versions (its modules.json and configurations);
- poolings.json: of each pooling mode the embeddings of the texts without the layers after it;
- golden.json: embeddings of the texts by tiny/, plain, as queries and as documents, and with the prompt left out of pooling;
- quantized.json: codes of the embeddings.
- tiny_static/: a static model; static.json: embeddings of the texts that are not empty by it;
- tiny_pairs/: a cross-encoder; pairs.json: pairs of texts with their scores and logits by it;
- minilm.json: embeddings of the texts by all-MiniLM-L6-v2, if its folder is given as the first argument.
"""

import importlib.metadata
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from sentence_transformers.util.quantization import quantize_embeddings
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

for package, pinned in {"torch": "2.15.0", "transformers": "5.23.0", "sentence-transformers": "6.2.0"}.items():
    assert importlib.metadata.version(package).split("+")[0] == pinned

HERE = Path(__file__).parent
TEXTS = [
    "the cat sat on the mat",
    "A dog ran!",
    "the mat",
    "",
    "cat dog cat dog the the the on on a ran sat mat cat dog a the on ran sat dog cat mat mat on the",
    "unknown words ran over the cat",
]
words = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat a dog ran ! over query : ##s ##d un ##known title none".split()
core = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
core.normalizer = normalizers.BertNormalizer(lowercase=True)
core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
core.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]", model_max_length=16
)
torch.manual_seed(11)
config = BertConfig(
    vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=20
)
bert = BertModel(config).eval()
for parameter in bert.parameters():
    parameter.data = torch.randn_like(parameter) * 0.3 + (parameter.data.mean() > 0.5) * 1.0
start = HERE / "start"
bert.save_pretrained(start)
tokenizer.save_pretrained(start)

transformer = Transformer(str(start))
dense = Dense(16, 10, bias=False)
prompts = {"query": "query : ", "document": "title : none "}
model = SentenceTransformer(modules=[transformer, Pooling(16, "mean"), dense, Normalize()], prompts=prompts).eval()
shutil.rmtree(HERE / "tiny", ignore_errors=True)
model.save(str(HERE / "tiny"), create_model_card=False)


def rows(x):
    return [[float(v) for v in row] for row in x]


golden = {
    "texts": TEXTS,
    "plain": rows(model.encode(TEXTS)),
    "queries": rows(model.encode_query(TEXTS)),
    "documents": rows(model.encode_document(TEXTS)),
}
without = SentenceTransformer(modules=[transformer, Pooling(16, "weightedmean", include_prompt=False)], prompts=prompts).eval()
golden["prompt_left_out"] = rows(without.encode(TEXTS, prompt_name="query"))
json.dump(golden, open(HERE / "golden.json", "w"))

poolings = {}
for mode in Pooling.POOLING_MODES:
    poolings[mode] = rows(SentenceTransformer(modules=[transformer, Pooling(16, mode)]).eval().encode(TEXTS))
both = SentenceTransformer(modules=[transformer, Pooling(16, ("cls", "max"))]).eval()
poolings["cls,max"] = rows(both.encode(TEXTS))
json.dump(poolings, open(HERE / "poolings.json", "w"))

rng = np.random.default_rng(0)
some = rng.standard_normal((40, 19)).astype(np.float32)
ranges = np.vstack([some.min(0), some.max(0)])
json.dump(
    {
        "embeddings": rows(some),
        "int8": quantize_embeddings(some, "int8", ranges=ranges).tolist(),
        "ubinary": quantize_embeddings(some, "ubinary").tolist(),
    },
    open(HERE / "quantized.json", "w"),
)

# The same model as old versions wrote it.
legacy = HERE / "tiny_legacy"
shutil.rmtree(legacy, ignore_errors=True)
shutil.copytree(HERE / "tiny", legacy)
(legacy / "modules.json").write_text(
    json.dumps(
        [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
            for i, (path, name) in enumerate([("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense"), ("3_Normalize", "Normalize")])
        ]
    )
)
(legacy / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
old = {"word_embedding_dimension": 16} | {
    f"pooling_mode_{key}": key == "mean_tokens" for key in ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
}
(legacy / "1_Pooling" / "config.json").write_text(json.dumps(old))
config = json.loads((legacy / "2_Dense" / "config.json").read_text())
config = {key: config[key] for key in ("in_features", "out_features", "bias")} | {"activation_function": "torch.nn.modules.activation.Tanh"}
(legacy / "2_Dense" / "config.json").write_text(json.dumps(config))
shutil.rmtree(legacy / "3_Normalize", ignore_errors=True)
settings = json.loads((legacy / "tokenizer_config.json").read_text())
settings["model_max_length"] = 512
(legacy / "tokenizer_config.json").write_text(json.dumps(settings))
check = SentenceTransformer(str(legacy)).encode(TEXTS)
assert np.allclose(check, golden["plain"], atol=1e-6)
shutil.rmtree(start)

# A static model: a vector a token.
static = StaticEmbedding(core, embedding_weights=np.random.default_rng(5).standard_normal((len(words), 12)).astype(np.float32))
table = SentenceTransformer(modules=[static, Normalize()])
shutil.rmtree(HERE / "tiny_static", ignore_errors=True)
table.save(str(HERE / "tiny_static"), create_model_card=False)
json.dump(rows(table.encode([text for text in TEXTS if text])), open(HERE / "static.json", "w"))

# A cross-encoder, in the form of version 6.
from sentence_transformers import CrossEncoder
from transformers import BertForSequenceClassification

torch.manual_seed(12)
config = BertConfig(
    vocab_size=len(words), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=20, num_labels=1
)
scorer = BertForSequenceClassification(config).eval()
for parameter in scorer.parameters():
    parameter.data = torch.randn_like(parameter) * 0.3 + (parameter.data.mean() > 0.5) * 1.0
scorer.save_pretrained(start)
tokenizer.save_pretrained(start)
encoder = CrossEncoder(str(start))
pairs = [[a, b] for a in TEXTS[:3] for b in (TEXTS[1], TEXTS[4], TEXTS[5])]
json.dump(
    {
        "pairs": pairs,
        "scores": [float(x) for x in encoder.predict(pairs)],
        "logits": [float(x) for x in encoder.predict(pairs, activation_fn=torch.nn.Identity())],
    },
    open(HERE / "pairs.json", "w"),
)
shutil.rmtree(HERE / "tiny_pairs", ignore_errors=True)
encoder.save_pretrained(str(HERE / "tiny_pairs"))
(HERE / "tiny_pairs" / "README.md").unlink(missing_ok=True)
shutil.rmtree(start)

if len(sys.argv) > 1:
    minilm = SentenceTransformer(sys.argv[1], device="cpu")
    texts = [
        "How tall is the Eiffel Tower?",
        "The Eiffel Tower is 330 metres tall, about the same height as an 81-storey building.",
        "Ein kurzer deutscher Satz mit Umlauten: äöüß.",
        "",
        "word " * 400,
    ]
    json.dump({"texts": texts, "embeddings": [[round(v, 8) for v in row] for row in rows(minilm.encode(texts))]}, open(HERE / "minilm.json", "w"))
