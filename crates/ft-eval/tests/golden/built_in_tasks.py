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


MARKS = ["[header] ", " [title] ", " [step]", "  ", " [a [b] c]", "]", "e\u0301 "]


def marked(n=9):
    return "".join(word + rnd.choice([" ", " ", " ", *MARKS]) for word in harness.words(1, n).split(" "))


def hellaswag(n):
    return [{"ind": i, "activity_label": harness.words(1, 3), "ctx_a": marked(), "ctx_b": rnd.choice(["", "he goes", "ÉTÉ ÇA", "ﬁnally [x] y"]), "ctx": "",
             "endings": [marked(7) for _ in range(4)], "source_id": "x", "split": "val", "label": rnd.choice([str(rnd.randint(0, 3)), f" {rnd.randint(0, 3)} "])} for i in range(n)]


def winogrande(n):
    return [{"sentence": f"{harness.words(0, 6)} _ {harness.words(1, 6)}" + rnd.choice(["", " ", "_ more", " \t"]), "option1": harness.words(1, 2), "option2": harness.words(1, 2),
             "answer": rnd.choice("12")} for _ in range(n)]


def truthfulqa(n):
    rows = []
    for _ in range(n):
        mc1 = [harness.words(1, 7) for _ in range(rnd.randint(2, 5))]
        mc2 = [harness.words(1, 7) for _ in range(rnd.randint(2, 7))]
        labels = [1] + [rnd.randint(0, 1) for _ in mc2[1:]]
        rows.append({"question": harness.words(2, 9) + "?", "mc1_targets": {"choices": mc1, "labels": [1] + [0] * (len(mc1) - 1)}, "mc2_targets": {"choices": mc2, "labels": labels}})
    return rows


WIKI = [" = Title = \n", " = = Part = = \n", " 1 @,@ 234 @.@ 5 @-@ year ", " \" quoted words \" ", " ( in brackets ) ", " [ 1 ] ", " { x } ", " the dogs ' bone ", " it 's N % ", " 20 \u00b0 C ",
        " ; and : so . ", " ! ? , ", "/' 7/", " ' single ' ", "\n \n", "= = = =", "s '", "汉字 。", "  "]


def wikitext(n):
    return [{"page": "".join(rnd.choice([harness.words(1, 6), *rnd.sample(WIKI, 4)]) for _ in range(rnd.randint(0, 14)))} for _ in range(n)]


def mmlu(n):
    return [{"question": harness.words(2, 12) + rnd.choice(["", " ", "\n"]), "subject": "x", "choices": [harness.words(1, 5) for _ in range(4)], "answer": rnd.randint(0, 3)} for _ in range(n)]


def aime(question, answer):
    return lambda n: [{"ID": str(i), question: harness.words(3, 12), answer: rnd.choice([7, 12, 204] if answer == "Answer" else ["7", "12", "-3", "007"])} for i in range(n)]


def boolq(n):
    return [{"question": harness.words(2, 8), "passage": harness.words(5, 30), "idx": i, "label": rnd.randint(0, 1)} for i in range(n)]


def openbookqa(n):
    return [{"id": f"q{i}", "question_stem": harness.words(2, 9), "choices": {"text": [harness.words(1, 5) for _ in range(4)], "label": list("ABCD")}, "answerKey": rnd.choice(["A", "B", " C", "D"])} for i in range(n)]


def commonsense_qa(n):
    return [{"id": f"q{i}", "question": harness.words(2, 9) + " " * (i % 3), "question_concept": "x", "choices": {"label": list("ABCDE"), "text": [harness.words(1, 3) for _ in range(5)]}, "answerKey": rnd.choice("ABCDE")} for i in range(n)]


def sciq(n):
    return [{"question": harness.words(2, 9), **{f"distractor{k}": harness.words(1, 3) for k in (1, 2, 3)}, "correct_answer": harness.words(1, 3), "support": rnd.choice(["", "  ", "\n"]) + harness.words(0, 15)} for _ in range(n)]


def lambada(n):
    return [{"text": harness.words(3, 25).strip() + rnd.choice([" end", " e\u0301nd", " don't"])} for _ in range(n)]


PLAIN = {
    "piqa": ("piqa/piqa.yaml", "piqa", piqa, {"train": 12, "validation": 70}),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy", arc, {"train": 12, "test": 60}),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", arc, {"validation": 10, "train": 12, "test": 60}),
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k/main", gsm8k, {"train": 15, "test": 70}),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", hellaswag, {"train": 12, "validation": 50}),
    "winogrande": ("winogrande/default.yaml", "winogrande/winogrande_xl", winogrande, {"train": 12, "validation": 50}),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", "truthful_qa/multiple_choice", truthfulqa, {"validation": 40}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "truthful_qa/multiple_choice", None, {"validation": 40}),
    "mmlu_anatomy": ("mmlu/default/mmlu_anatomy.yaml", "mmlu/anatomy", mmlu, {"dev": 5, "test": 30}),
    "mmlu_us_foreign_policy": ("mmlu/default/mmlu_us_foreign_policy.yaml", "mmlu/us_foreign_policy", mmlu, {"dev": 5, "test": 30}),
    "aime": ("aime/aime.yaml", "aime-1983-2024", aime("Question", "Answer"), {"train": 30}),
    "aime24": ("aime/aime24.yaml", "AIME_2024", aime("Problem", "Answer"), {"train": 30}),
    "aime25": ("aime/aime25.yaml", "aime25", aime("problem", "answer"), {"test": 30}),
    "boolq": ("super_glue/boolq/default.yaml", "super_glue/boolq", boolq, {"train": 8, "validation": 30}),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa/main", openbookqa, {"train": 8, "test": 30}),
    "commonsense_qa": ("commonsense_qa/default.yaml", "commonsense_qa", commonsense_qa, {"train": 8, "validation": 30}),
    "sciq": ("sciq/sciq.yaml", "sciq", sciq, {"train": 8, "test": 30}),
    "lambada_openai": ("lambada/lambada_openai.yaml", "lambada_openai/default", lambada, {"test": 30}),
}
TASKS = PLAIN | {"wikitext": ("wikitext/wikitext.yaml", "wikitext_document_level/wikitext-2-raw-v1", wikitext, {"train": 3, "validation": 3, "test": 40})}
RUNS = [
    {"name": "as it is", "tasks": list(TASKS), "options": {"bootstrap_iters": 0}},
    {"name": "three shots", "tasks": list(PLAIN), "options": {"num_fewshot": 3, "limit": 8, "bootstrap_iters": 0}},
    {"name": "chat", "tasks": list(PLAIN), "options": {"num_fewshot": 2, "limit": 4, "apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}},
]


def main():
    os.chdir(TMP)
    files = {}
    for task, (path, folder, rows, splits) in TASKS.items():
        data = {}
        for split, count in splits.items():
            name = f"{folder}/{split}.jsonl"
            if rows:
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
