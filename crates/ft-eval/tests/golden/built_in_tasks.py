"""Golden cases of the built-in tasks: lm-evaluation-harness's own task files on the mock model of harness.py, over
rows made here in the fields that the hub's datasets have.

Writes built_in_tasks.json: the data files, and for each run its options, results and samples.
Run: python crates/ft-eval/tests/golden/built_in_tasks.py
"""

import hashlib
import json
import os
import random
import string
from pathlib import Path

import harness
import lm_eval
import yaml
from lm_eval.tasks import TaskManager

TMP = harness.TMP
REFERENCE = Path(lm_eval.__file__).parent / "tasks"
rnd = random.Random(11)


def piqa(n):
    rows = []
    for i in range(n):
        first, second = harness.words(1, 9), harness.words(1, 9)
        if i % 7 == 3:
            second = first  # A tie.
        if i % 9 == 4:
            first, second = "yes", "no "
        rows.append({"goal": harness.words(1, 8) + " " * (i % 4 == 1), "sol1": first, "sol2": second, "label": rnd.randint(0, 1)})
    return rows


def arc(n):
    rows = []
    for i in range(n):
        count = rnd.choice([3, 4, 4, 4, 5])
        labels = list("12345" if i % 5 == 2 else string.ascii_uppercase)[:count]
        texts = [harness.words(1, 6) for _ in labels]
        rows.append({"id": f"row_{i}", "question": harness.words(2, 12), "choices": {"text": texts, "label": labels}, "answerKey": rnd.choice(labels)})
    return rows


def gsm8k(n):
    rows = []
    for i in range(n):
        a, b = rnd.randint(0, 9), rnd.randint(0, 9)
        number = rnd.choice([a + b, 7, 12, "1,234.5", 5, -3, "18.00", "18", 0])
        rows.append({"question": f"{harness.words(2, 6)} {a} and {b}?", "answer": f"It is <<{a}+{b}={a + b}>>{a + b}.\n#### {number}"})
    return rows


TASKS = {
    "piqa": ("piqa/piqa.yaml", "piqa", piqa, {"train": 12, "validation": 70}),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy", arc, {"train": 12, "test": 60}),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", arc, {"validation": 10, "train": 12, "test": 60}),
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k/main", gsm8k, {"train": 15, "test": 70}),
}
RUNS = [
    {"name": "as it is", "tasks": list(TASKS), "options": {"bootstrap_iters": 0}},
    {"name": "three shots", "tasks": list(TASKS), "options": {"num_fewshot": 3, "limit": 15, "bootstrap_iters": 0}},
    {"name": "chat", "tasks": list(TASKS), "options": {"num_fewshot": 2, "limit": 6, "apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}},
]


def main():
    os.chdir(TMP)
    files = {}
    for task, (path, folder, rows, splits) in TASKS.items():
        data = {}
        for split, count in splits.items():
            name = f"{folder}/{split}.jsonl"
            files[name] = harness.jsonl(rows(count))
            data[split] = str(TMP / name)
            (TMP / name).parent.mkdir(parents=True, exist_ok=True)
            (TMP / name).write_text(files[name], encoding="utf-8")
        # The reference's file, on local rows.
        override = {"include": str(REFERENCE / path), "task": task, "dataset_path": "json", "dataset_name": None,
                    "dataset_kwargs": {"data_files": data}}
        (TMP / "tasks").mkdir(exist_ok=True)
        (TMP / "tasks" / f"{task}.yaml").write_text(yaml.safe_dump(override))
    runs = []
    for run in RUNS:
        manager = TaskManager(include_path=str(TMP / "tasks"), include_defaults=False)
        results = lm_eval.simple_evaluate(harness.Mock(), tasks=run["tasks"], task_manager=manager, **run["options"])
        samples = {}
        for task, rows in results["samples"].items():
            for row in rows:
                row = harness.plain(row)
                first = task not in samples
                # As EvaluationTracker writes them.
                arguments = {f"gen_args_{i}": {f"arg_{j}": value for j, value in enumerate(request)} for i, request in enumerate(row["arguments"])}
                kept = {
                    "doc_id": row["doc_id"],
                    "filter": row["filter"],
                    "arguments_sha": hashlib.sha256(json.dumps(arguments, ensure_ascii=False).encode()).hexdigest()[:24],
                    "hashes": [row["doc_hash"][:24], row["prompt_hash"][:24], row["target_hash"][:24]],
                    "metrics": {key: row[key] for key in row["metrics"]},
                }
                if first:
                    kept["arguments"] = arguments
                samples.setdefault(task, []).append(kept)
        runs.append({**run, "samples": samples, "results": harness.plain({key: results[key] for key in ("results", "n-shot", "higher_is_better", "versions", "n-samples")})})
    out = json.dumps({"files": files, "runs": runs}, ensure_ascii=False, separators=(",", ":"))
    (harness.HERE / "built_in_tasks.json").write_text(out + "\n", encoding="utf-8")
    print(len(out), sum(len(rows) for run in runs for rows in run["samples"].values()), "samples")


if __name__ == "__main__":
    main()
