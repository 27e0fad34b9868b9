"""Measures of rankings by trec_eval, ranx and the evaluator of sentence-transformers.

pytrec-eval-terrier 0.5.11 (trec_eval), ranx 0.3.21, sentence-transformers 6.2.0. Run from anywhere: python retrieval.py

retrieval.json holds qrels and two runs, one without and one with many ties of scores, as {query: {document: number}}, and of each
package the values by run, measure and query. ranx is asked about the run without ties only: it breaks ties by chance.
"""

import importlib.metadata
import json
import random
from pathlib import Path

import pytrec_eval
import ranx
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

for package, pinned in {"pytrec-eval-terrier": "0.5.11", "ranx": "0.3.21", "sentence-transformers": "6.2.0"}.items():
    assert importlib.metadata.version(package) == pinned

HERE = Path(__file__).parent
rng = random.Random(4)
documents = [f"d{i}" for i in range(60)]
qrels, apart, tied = {}, {}, {}
for query in (f"q{i}" for i in range(12)):
    qrels[query] = {d: rng.choice([0, 1, 1, 2, 3]) for d in rng.sample(documents, rng.randint(2, 15))}
    qrels[query][rng.choice(documents)] = 1
    found = rng.sample(documents, 40)
    apart[query] = {d: round(rng.random() + (0.4 if qrels[query].get(d, 0) else 0) + i * 1e-6, 8) for i, d in enumerate(found)}
    tied[query] = {d: rng.choice([0.1, 0.2, 0.3, 0.5]) + (0.25 if qrels[query].get(d, 0) > 1 else 0) for d in found}

trec = {
    "mrr": "recip_rank",
    "map": "map",
    "map@10": "map_cut_10",
    "ndcg": "ndcg",
    "ndcg@5": "ndcg_cut_5",
    "ndcg@10": "ndcg_cut_10",
    "precision@5": "P_5",
    "recall@10": "recall_10",
    "r-precision": "Rprec",
    "hit_rate@5": "success_5",
}
golden = {"qrels": qrels, "runs": {"apart": apart, "tied": tied}, "trec_eval": {}, "ranx": {}, "sentence_transformers": {}}
names = {"recip_rank", "map", "map_cut", "ndcg", "ndcg_cut", "P", "recall", "Rprec", "success"}
for name, run in golden["runs"].items():
    values = pytrec_eval.RelevanceEvaluator(qrels, names).evaluate(run)
    golden["trec_eval"][name] = {ours: {q: values[q][theirs] for q in values} for ours, theirs in trec.items()}

measures = ["mrr", "mrr@3", "map", "map@10", "ndcg@10", "ndcg_burges@10", "precision@5", "recall@10", "f1@10", "r-precision", "hit_rate@5"]
run = ranx.Run(apart)
values = ranx.evaluate(ranx.Qrels(qrels), run, measures, return_mean=False)
for measure in measures:
    golden["ranx"][measure] = dict(zip(list(ranx.Qrels(qrels).keys()), [float(x) for x in values[measure]]))

relevant = {q: {d for d, r in judged.items() if r > 0} for q, judged in qrels.items()}
evaluator = InformationRetrievalEvaluator(
    {q: q for q in qrels}, {d: d for d in documents}, relevant,
    accuracy_at_k=[5], precision_recall_at_k=[5, 10], mrr_at_k=[10], ndcg_at_k=[10], map_at_k=[10], show_progress_bar=False,
)
for name, run in golden["runs"].items():
    lists = [
        [{"corpus_id": d, "score": s} for d, s in sorted(run[q].items(), key=lambda x: (-x[1], x[0]))] for q in evaluator.queries_ids
    ]
    values = evaluator.compute_metrics(lists)
    golden["sentence_transformers"][name] = {
        "hit_rate@5": values["accuracy@k"][5], "precision@5": values["precision@k"][5], "recall@10": values["recall@k"][10],
        "mrr@10": values["mrr@k"][10], "ndcg@10": values["ndcg@k"][10], "map_at_most@10": values["map@k"][10],
    }
json.dump(golden, open(HERE / "retrieval.json", "w"))
