"""Golden cases of the harness: lm-evaluation-harness on a mock model, over task files made here.

Writes harness.json: the files (tasks and data), and for each run its options, results and samples.
Run: python crates/ft-eval/tests/golden/harness.py
"""

import hashlib
import json
import os
import random
import tempfile
from importlib.metadata import version
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["DISABLE_MULTIPROC"] = "1"
os.environ["LMEVAL_LOG_LEVEL"] = "ERROR"
HERE = Path(__file__).parent
TMP = Path(tempfile.mkdtemp())
os.environ["HF_HOME"] = str(TMP / "hf")

assert version("lm_eval") == "0.4.13"

import lm_eval  # noqa: E402
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.loggers import EvaluationTracker  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.utils import handle_non_serializable, make_table  # noqa: E402

# ------------------------------------------------------------------ the mock model

REPLIES = [
    "The answer is 7.\n#### 7",
    " So 3 + 4 = 7, 12 left.\n#### 1,234.5\n\nQuestion: next",
    "#### -3 and #### 5",
    "(B)",
    " The answer: C because",
    "Paris",
    "  paris. ",
    "",
    "I think it is Guilty of Romance",
    "A",
    "12",
    "yes\n\nno",
    "\u00c9t\u00e9 \u00e0 Paris\u2026",
    "$18.00",
    "the end</s>",
    "\u0663 apples",
    "It's the second one: B",
]


def digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).digest()


def share(d):
    return int.from_bytes(d[:4], "big") / 2**32


class Mock(LM):
    tokenizer_name = "mock"

    def loglikelihood(self, requests):
        out = []
        for request in requests:
            d = digest("pair", *request.args)
            # Half of the values are coarse, so that there are ties.
            u = share(d) if d[5] % 2 else int(share(d) * 4) / 4
            out.append((-8.0 * u - 0.5, d[4] % 2 == 0))
        return out

    def loglikelihood_rolling(self, requests):
        return [-len(r.args[0].encode()) * (0.5 + share(digest("text", r.args[0]))) for r in requests]

    def generate_until(self, requests):
        out = []
        for request in requests:
            context, kwargs = request.args
            reply = REPLIES[digest("text", context)[0] % len(REPLIES)]
            if "\u27e6" in context:  # The question says what to reply.
                reply = context.rpartition("\u27e6")[2].partition("\u27e7")[0]
            until = kwargs["until"]
            for stop in [until] if isinstance(until, str) else until:
                reply = reply.split(stop)[0]
            out.append(reply)
        return out

    def apply_chat_template(self, chat_history, add_generation_prompt=True):
        parts = [f"<|{m['role']}|>{m['content']}" for m in chat_history]
        text = "</s>".join(parts)
        return text + "</s><|assistant|>" if add_generation_prompt else text

    def chat_template(self, chat_template=False):
        return "mock template"


# ------------------------------------------------------------------ data

rnd = random.Random(7)
WORDS = (
    "cat dog house r\u00e9sum\u00e9 \u6771\u4eac \u043c\u043e\u0441\u043a\u0432\u0430 it's \"quoted\" {{braces}} "
    "50% a\\b tab\there line\nbreak \U0001f600 e\u0301 \u00a0nbsp ... U.S. x=1 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 I II"
).split(" ")


def words(low, high):
    return " ".join(rnd.choice(WORDS) for _ in range(rnd.randint(low, high)))


def questions(n, wild=False):
    rows = []
    for i in range(n):
        choices = [words(1, 5) for _ in range(4)]
        rows.append(
            {
                "id": i,
                "question": words(0 if i % 7 == 0 else 1, 8) + (" " if i % 5 == 0 else ""),
                "choices": choices,
                "label": 9 if wild and i % 11 == 5 else i % 4,
                "answer": "not there" if i % 6 == 3 else choices[i % 4],
                "golds": [i % 4, (i + 1) % 4] if i % 3 else [i % 4],
                "prefix": ["The answer is", "So: ", ""][i % 3],
                "yes": bool(rnd.getrandbits(1)),
                "weight": i / 2,
                "nested": {"a": i, "b": None if i % 2 else "x"},
                "note": None if i % 4 else "n",
            }
        )
    rows.append(dict(rows[1]))
    rows.append(dict(rows[1]))
    return rows


def sums(n):
    rows = []
    for i in range(n):
        a, b = rnd.randint(0, 9), rnd.randint(0, 9)
        rows.append(
            {
                "question": f"{words(1, 3)} {a}+{b}?",
                "answer": f"{a} + {b} = {a + b}\n#### {rnd.choice([a + b, 7, 5, '1,234.5', -3])}",
                "number": rnd.choice([7, 12, 5, 3]),
                "city": rnd.choice(["Paris", "paris.", "\u00c9t\u00e9 \u00e0 paris\u2026", "A", ""]),
                "cities": rnd.choice([["Paris", "Rome"], ["yes", "no"], ["12"], ["x"]]),
                "choices": ["Guilty", "Guilty of Romance", "Paris", " the END "],
                "letter": rnd.choice(["(A)", "(B)", "(C)", "(D)"]),
            }
        )
    return rows


def texts(n):
    return [{"page": words(0 if i == 3 else 1, 30), "n": i} for i in range(n)]


def jsonl(rows):
    return "".join(json.dumps(row, ensure_ascii=i % 2 == 0) + "\n" for i, row in enumerate(rows))


DATA = {
    "data/questions_test.jsonl": jsonl(questions(24, wild=True)),
    "data/questions_train.jsonl": jsonl(questions(12)),
    "data/questions_small.json": json.dumps(questions(7)),
    "data/sums_test.jsonl": jsonl(sums(24)),
    "data/sums_train.jsonl": jsonl(sums(30)),
    "data/texts.json": json.dumps({"rows": texts(12)}),
}

# ------------------------------------------------------------------ tasks

QUESTIONS = """
dataset_path: json
dataset_kwargs:
  data_files: {train: data/questions_train.jsonl, test: data/questions_test.jsonl, small: data/questions_small.json}
"""
SUMS = """
dataset_path: json
dataset_kwargs: {data_files: {train: data/sums_train.jsonl, test: data/sums_test.jsonl}, trust_remote_code: true}
test_split: test
output_type: generate_until
"""
TASKS = {
    "tasks/_questions": QUESTIONS + "test_split: test\nmetadata: {version: 1.0}\n",
    "tasks/mc_all.yaml": """
include: _questions
task: mc_all
tag: [mc, mc_or_ll]
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: label
training_split: train
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
  - {metric: acc_bytes, aggregation: median, higher_is_better: true}
  - {metric: exact_match, aggregation: nanmean}
  - {metric: mcc}
  - {metric: likelihood, aggregation: bypass, higher_is_better: true}
""",
    "tasks/mc_text.yaml": """
include: _questions
task: mc_text
task_alias: text targets
tag: mc
output_type: multiple_choice
description: "About {{question | upper}}: {{weight + 1}} {{note}} {{nested}}\\n"
doc_to_text: "{{question.strip()}}{% if yes %} (yes){% endif %}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: "\\n"
fewshot_split: train
fewshot_config: {sampler: first_n, target_delimiter: " -> ", fewshot_delimiter: "\\n##\\n"}
num_fewshot: 3
metadata: {version: 2.1, note: "\u00e9"}
""",
    "tasks/mc_pair.yaml": """
include: _questions
task: mc_pair
tag: mc
output_type: multiple_choice
doc_to_text: "{{choices | join(', ')}} {{ [choices[0], id] }} {{question|regex_replace('[aeiou]+(.)', '<\\\\\\\\1>')}}"
doc_to_choice: "{{[choices[0], choices[1] ~ '!']}}"
doc_to_target: "{{ id % 2 }}"
fewshot_split: test
num_fewshot: 2
metric_list:
  - {metric: acc}
  - {metric: brier_score}
  - {metric: f1}
  - {metric: mcc}
  - {metric: acc_norm, aggregation: perplexity}
""",
    "tasks/mc_bool.yaml": """
include: _questions
task: mc_bool
output_type: multiple_choice
doc_to_text: question
doc_to_choice: ["no", "yes"]
doc_to_target: "yes"
description: question
metric_list: [{metric: acc}, {metric: f1, higher_is_better: null}, {metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}]
""",
    "tasks/mc_many.yaml": """
include: _questions
task: mc_many
tag: mc
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: {first: one, second: "two \u00e9", third: " x", fourth: "four four"}
doc_to_target: "{{golds}}"
validation_split: train
fewshot_config:
  samples:
    - {question: "Sample \u00e9?", golds: [1], choices: []}
    - {question: "Second", golds: [0, 2], choices: []}
  doc_to_target: "{{ ['one', 'two'][golds[0]] }}"
  doc_to_text: "Q: {{question}}"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}, {metric: exact_match}]
""",
    "tasks/mc_inputs.yaml": """
include: _questions
task: mc_inputs
output_type: multiple_choice
doc_to_text: "{{ id % 2 }}"
doc_to_choice: "{{ [choices[0] + ' then', choices[1] + ' then'] }}"
doc_to_target: "{{choices[2]}}"
training_split: train
""",
    "tasks/mc_mutual.yaml": """
include: _questions
task: mc_mutual
tag: mc
output_type: multiple_choice
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: choices
doc_to_target: label
gen_prefix: prefix
fewshot_split: small
metric_list: [{metric: acc}, {metric: acc_mutual_info}, {metric: exact_match}]
""",
    "tasks/mc_validation.yaml": QUESTIONS + """
task: mc_validation
tag: mc
output_type: multiple_choice
validation_split: small
doc_to_text: "{{question}}:"
doc_to_choice: "{{choices[:3]}}"
doc_to_target: "{{ id % 3 }}"
num_fewshot: 4
gen_prefix: "My pick:"
""",
    "tasks/ll.yaml": """
include: _questions
task: ll
tag: mc_or_ll
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{choices[0]}}"
fewshot_split: train
fewshot_delimiter: "\\n"
target_delimiter: ""
""",
    "tasks/rolling.yaml": """
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {test: data/texts.json}, field: rows}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: page
""",
    "tasks/gsm.yaml": "task: gsm\n" + SUMS + """
training_split: train
fewshot_split: train
num_fewshot: 5
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["Question:", "</s>", "<|im_end|>"], do_sample: false, temperature: 0}
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "#### (\\\\-?[0-9\\\\.\\\\,]+)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{2,})|(-?[0-9]+)"}, {function: take_first}]
metadata: {version: 3.0}
""",
    "tasks/gen_number.yaml": "task: gen_number\n" + SUMS + """
doc_to_text: "{{question}}"
doc_to_target: number
gen_prefix: "Sum: "
metric_list: [{metric: exact_match, ignore_numbers: false}]
repeats: 3
filter_list:
  - {name: vote, filter: [{function: regex, regex_pattern: "[0-9]+", fallback: "none"}, {function: majority_vote}, {function: take_first}]}
  - {name: two, filter: [{function: remove_whitespace}, {function: take_first_k, k: 2}]}
  - {name: mapped, filter: [{function: lowercase}, {function: map, mapping_dict: {paris: "12", "12": "7", a: "5"}, default_value: "3"}, {function: take_first}]}
""",
    "tasks/gen_city.yaml": "task: gen_city\n" + SUMS + """
doc_to_text: "City?\\n{{question}} "
doc_to_target: city
fewshot_split: test
fewshot_config: {gen_prefix: "It is", sampler: default}
num_fewshot: 1
metric_list: [{metric: exact_match, ignore_case: true, ignore_punctuation: true, ignore_numbers: true}, {metric: bypass}]
filter_list:
  - {name: strip, filter: [{function: remove_whitespace}, {function: take_first}]}
  - {name: upper, filter: [{function: uppercase}, {function: take_first}]}
""",
    "tasks/gen_cities.yaml": "task: gen_cities\n" + SUMS + """
doc_to_text: "{{question}}"
doc_to_target: cities
generation_kwargs: {max_gen_toks: 32}
""",
    "tasks/gen_choice.yaml": "task: gen_choice\n" + SUMS + """
doc_to_text: "{{question}}"
doc_to_target: letter
filter_list:
  - {name: flexible, filter: [{function: multi_choice_regex, group_select: 0, ignore_case: true, ignore_punctuation: true, regex_pattern: "(\\\\([A-Z]\\\\))"}, {function: take_first}]}
  - {name: last, filter: [{function: multi_choice_regex, group_select: -1, regexes_to_ignore: ["of "], regex_pattern: "zzz"}, {function: take_first}]}
""",
    "tasks/gen_index.yaml": "task: gen_index\n" + SUMS + """
doc_to_text: "{{question}}"
doc_to_choice: ["Paris", "A", "12"]
doc_to_target: "{{ number % 3 }}"
""",
    "tasks/own/utils.py": '''
def process_docs(dataset):
    def one(doc):
        return {"query": doc["question"].strip().upper(), "gold": doc["id"] % 2, "size": len(doc["choices"])}

    return dataset.filter(lambda doc: doc["id"] % 3 != 0).map(one)


def doc_to_text(doc):
    return doc["query"] + "?"


def doc_to_choice(doc):
    return [doc["choices"][0], doc["query"][:5] + "x"]


def process_results(doc, results):
    best = max(range(len(results)), key=lambda i: results[i][0])
    metrics = {"hit": float(best == doc["gold"]), "pair": (doc["gold"], best)}
    if doc["size"] % 2 == 0 and doc["id"] % 2:
        metrics["odd"] = best
    return metrics


def share_of_ones(items):
    return sum(gold == best == 1 for gold, best in items) / len(items)
''',
    "tasks/own/own.yaml": QUESTIONS + """
task: own
test_split: test
fewshot_split: train
process_docs: !function utils.process_docs
output_type: multiple_choice
doc_to_text: !function utils.doc_to_text
doc_to_choice: !function utils.doc_to_choice
doc_to_target: gold
process_results: !function utils.process_results
metric_list:
  - {metric: hit, aggregation: mean, higher_is_better: true}
  - {metric: pair, aggregation: !function utils.share_of_ones}
""".replace("aggregation: !function utils.share_of_ones}", "aggregation: !function utils.share_of_ones, higher_is_better: false}"),
    "tasks/groups.yaml": """
group: everything
group_alias: All of them
task:
  - mc_all
  - group: inner
    task: [mc_text, {task: mc_pair, num_fewshot: 1, task_alias: renamed}]
    aggregate_metric_list: [{metric: acc, weight_by_size: false}]
  - mc_validation
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: acc_norm, aggregation: mean, weight_by_size: false, filter_list: none}
metadata: {version: 4}
""",
    "tasks/tagged.yaml": """
group: tagged
description: "From the group."
num_fewshot: 1
task: [mc, ll]
aggregate_metric_list: {metric: acc}
""",
    "tasks/plain.yaml": "group: plain\ntask: [mc_bool, rolling]\n",
    "tasks/filters.yaml": """
group: filters
task: [gsm, gen_number]
aggregate_metric_list: [{metric: exact_match, weight_by_size: true}, {metric: exact_match, filter_list: [vote]}]
""",
}

ALL = ["mc_all", "mc_text", "mc_pair", "mc_bool", "mc_many", "mc_inputs", "mc_mutual", "mc_validation", "ll",
       "rolling", "gsm", "gen_number", "gen_city", "gen_cities", "gen_choice", "gen_index", "own"]
FEWSHOT = ["mc_all", "mc_text", "mc_pair", "mc_many", "mc_inputs", "mc_mutual", "mc_validation", "ll", "gsm", "gen_city", "own"]
TASKS["tasks/translate.yaml"] = """
task: translate
dataset_path: json
dataset_kwargs: {data_files: {test: data/sums_test.jsonl}}
test_split: test
output_type: generate_until
doc_to_text: "Say it: {{question}}"
doc_to_target: "The answer is {{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 10}
metric_list:
  - {metric: bleu}
  - {metric: chrf, aggregation: chrf, higher_is_better: true}
  - {metric: chrf++}
  - {metric: ter, aggregation: ter, higher_is_better: false}
  - {metric: exact_match}
metadata: {version: 1.0}
"""
RUNS = [
    {"name": "all", "tasks": ALL, "bootstrap_iters": 2500},
    {"name": "two shots", "tasks": FEWSHOT, "num_fewshot": 2, "limit": 0.3, "fewshot_random_seed": 42, "bootstrap_iters": 0},
    {"name": "chat", "tasks": FEWSHOT, "num_fewshot": 1, "limit": 4, "apply_chat_template": True,
     "fewshot_as_multiturn": True, "system_instruction": "Be good.", "bootstrap_iters": 10},
    {"name": "chat in one turn", "tasks": FEWSHOT + ["gen_choice"], "num_fewshot": 2, "limit": 4,
     "apply_chat_template": True, "fewshot_as_multiturn": False, "bootstrap_iters": 10},
    {"name": "system only", "tasks": ["mc_text", "gsm"], "system_instruction": "Be short.\n", "limit": 3,
     "bootstrap_iters": 0, "gen_kwargs": {"until": ["#"], "max_gen_toks": 5}},
    {"name": "nested groups", "tasks": ["everything", "plain"], "bootstrap_iters": 200},
    {"name": "tagged group", "tasks": ["tagged"], "limit": 5, "bootstrap_iters": 200},
    {"name": "filters of a group", "tasks": ["filters"], "limit": 6},
    {"name": "translations", "tasks": ["translate"], "bootstrap_iters": 300},
    {"name": "a tag", "tasks": ["mc_or_ll"], "limit": 1, "bootstrap_iters": 200},
]


def plain(value):
    return json.loads(json.dumps(value, default=handle_non_serializable))


def without_paths(config):
    config["metadata"].pop("config_source", None)
    return config


def main():
    os.chdir(TMP)
    for name, text in {**DATA, **TASKS}.items():
        path = TMP / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    runs = []
    for run in RUNS:
        options = {key: value for key, value in run.items() if key not in ("name", "tasks")}
        manager = TaskManager(include_path=str(TMP / "tasks"), include_defaults=False)
        tracker = EvaluationTracker(output_path=str(TMP / "out" / run["name"].replace(" ", "_")))
        results = lm_eval.simple_evaluate(
            Mock(), tasks=run["tasks"], task_manager=manager, evaluation_tracker=tracker, **dict(options)
        )
        samples = results.pop("samples")
        table = make_table(results)
        groups_table = make_table(results, "groups") if "groups" in results else None
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, rows in samples.items():
            tracker.save_results_samples(task_name=task, samples=rows)
        (folder,) = (TMP / "out" / run["name"].replace(" ", "_")).iterdir()
        written = json.loads(next(folder.glob("results_*.json")).read_text())
        rows = {}
        seen = set()
        for path in folder.glob("samples_*.jsonl"):
            task = path.name[len("samples_"):path.name.rindex("_")]
            for line in path.read_text(encoding="utf-8").split("\n"):
                if not line:
                    continue
                row = json.loads(line)
                arguments = json.dumps(row["arguments"], ensure_ascii=False)
                kept = {
                    "doc_id": row["doc_id"],
                    "filter": row["filter"],
                    "arguments_sha": hashlib.sha256(arguments.encode()).hexdigest()[:24],
                    "hashes": [row[key][:24] for key in ("doc_hash", "prompt_hash", "target_hash")],
                    "metrics": {key: row[key] for key in row["metrics"] if key != "brier_score"},
                }
                if run["name"] == "all" or "gen_kwargs" in run:
                    kept["filtered_resps"] = row["filtered_resps"]
                if (task, row["filter"]) not in seen:
                    seen.add((task, row["filter"]))
                    if run["name"] in ("all", "chat", "chat in one turn"):
                        kept["arguments"] = row["arguments"]
                    kept["line_keys"] = list(row)
                    kept["resps"] = row["resps"]
                    kept["target"] = row["target"]
                rows.setdefault(task, []).append(kept)
        written["configs"] = {
            task: without_paths(plain(config))
            for task, config in written["configs"].items()
            if run["name"] in ("all", "system only") and task not in ("own",)
        }
        kept = {key: written[key] for key in (
            "results", "groups", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better",
            "n-samples", "task_hashes", "system_instruction", "system_instruction_sha", "fewshot_as_multiturn",
            "chat_template", "chat_template_sha") if key in written}
        runs.append({"name": run["name"], "tasks": run["tasks"], "options": options, "results": kept,
                     "samples": rows, "table": table, "groups_table": groups_table, "keys": list(written),
                     "config_keys": list(written["config"])})
    files = {name: text for name, text in {**DATA, **TASKS}.items() if not name.endswith(".py")}
    golden = {"files": files, "runs": runs}
    out = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (HERE / "harness.json").write_text(out + "\n", encoding="utf-8")
    print(len(out), sum(len(rows) for run in runs for rows in run["samples"].values()), "samples")


if __name__ == "__main__":
    main()
