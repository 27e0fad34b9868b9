"""BERTScore of bert_score 0.3.13 with all-MiniLM-L6-v2, into bert_score.json beside this file.

    python tests/reference/bert_score.py FOLDER     (of the model)

Texts come from crates/ft-eval/tests/golden/nasty_texts.py. bert_score 0.3.13 asks tokenizers for a method that transformers 5 has
dropped (build_inputs_with_special_tokens, for empty texts); it is put back here.
"""

import json
import random
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "crates/ft-eval/tests/golden"))
sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).parent]  # this file is called as the package

import bert_score.utils  # noqa: E402
from bert_score import BERTScorer  # noqa: E402
from nasty_texts import edited, pairs  # noqa: E402
from transformers import PreTrainedTokenizerBase  # noqa: E402

assert version("bert_score") == "0.3.13"
if not hasattr(PreTrainedTokenizerBase, "build_inputs_with_special_tokens"):
    PreTrainedTokenizerBase.build_inputs_with_special_tokens = lambda self, ids: [self.cls_token_id, *ids, self.sep_token_id]

folder = sys.argv[1]
rng = random.Random(3)
texts = [[a, [b]] for a, b in pairs(9, 190, 25)] + [[a, [b, edited(rng, b), b[::-1]]] for a, b in pairs(8, 130, 10)[90:]]
texts.append(["word " * 700 + "end", ["word " * 690 + "other end"]])
predictions, references = [t[0] for t in texts], [t[1] for t in texts]
runs = []
baseline = Path(__file__).with_suffix(".tsv")
baseline.write_text("LAYER,P,R,F\n" + "".join(f"{i},{0.1 * i + 0.05:.3f},{0.1 * i + 0.06:.3f},{0.1 * i + 0.07:.3f}\n" for i in range(7)))
for layers, idf, rescale in [(5, False, False), (6, True, False), (3, False, True), (1, True, True)]:
    scorer = BERTScorer(model_type=folder, num_layers=layers, idf=idf, idf_sents=[r for refs in references for r in refs], batch_size=1,
                        rescale_with_baseline=rescale, baseline_path=str(baseline) if rescale else None, lang="en", device="cpu")
    scores = scorer.score(predictions, references, batch_size=1)
    runs.append({"layers": layers, "idf": idf, "rescale": rescale, "scores": [[round(float(x), 7) for x in row] for row in zip(*scores)]})
Path(__file__).with_suffix(".json").write_text(json.dumps({"texts": texts, "runs": runs}, ensure_ascii=False, separators=(",", ":")))
print(len(texts))
