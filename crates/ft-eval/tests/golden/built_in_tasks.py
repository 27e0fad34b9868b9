"""Golden cases of the built-in tasks: lm-evaluation-harness's own task files on the mock model of harness.py, over
the rows of built_in_rows.py.

Writes built_in_choices.json, built_in_code.json, built_in_more.json, built_in_groups.json and built_in_mmlu.json: the data files, and for each run its options,
results and samples.
Run: python crates/ft-eval/tests/golden/built_in_tasks.py
"""

import hashlib
import json
import os
import shutil
from pathlib import Path

import built_in_rows as rows
import harness
import lm_eval
import yaml
from lm_eval.tasks import TaskManager

TMP = harness.TMP
REFERENCE = Path(lm_eval.__file__).parent / "tasks"

# Task: the reference's file, the folder of the data, its rows, and how many rows each split has.
CHOICES = {
    "piqa": ("piqa/piqa.yaml", "piqa", rows.piqa, {"train": 12, "validation": 70}),
    "arc_easy": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy", rows.arc, {"train": 12, "test": 60}),
    "arc_challenge": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", rows.arc, {"validation": 10, "train": 12, "test": 60}),
    "gsm8k": ("gsm8k/gsm8k.yaml", "gsm8k/main", rows.gsm8k, {"train": 15, "test": 70}),
    "openbookqa": ("openbookqa/openbookqa.yaml", "openbookqa/main", rows.openbookqa, {"train": 10, "validation": 5, "test": 40}),
    "boolq": ("super_glue/boolq/default.yaml", "super_glue/boolq", rows.boolq, {"train": 10, "validation": 40}),
    "commonsense_qa": ("commonsense_qa/default.yaml", "commonsense_qa", rows.commonsense_qa, {"train": 10, "validation": 40}),
    "sciq": ("sciq/sciq.yaml", "allenai/sciq", rows.sciq, {"train": 10, "validation": 5, "test": 40}),
    "lambada_openai": ("lambada/lambada_openai.yaml", "lambada_openai", rows.lambada, {"test": 40}),
    "lambada_standard": ("lambada/lambada_standard.yaml", "cimec/lambada", rows.lambada, {"validation": 10, "test": 40}),
}
CODE = {
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", rows.hellaswag, {"train": 12, "validation": 60}),
    "winogrande": ("winogrande/default.yaml", "winogrande/winogrande_xl", rows.winogrande, {"train": 12, "validation": 60}),
    "truthfulqa_mc1": ("truthfulqa/truthfulqa_mc1.yaml", "truthful_qa/multiple_choice", rows.truthfulqa, {"validation": 40}),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", "truthfulqa_mc2", rows.truthfulqa, {"validation": 50}),
    "wikitext": ("wikitext/wikitext.yaml", "wikitext", rows.wikitext, {"train": 5, "validation": 5, "test": 120}),
    "aime": ("aime/aime.yaml", "aime", rows.aime("Question", "Answer"), {"train": 160}),
    "aime24": ("aime/aime24.yaml", "AIME_2024", rows.aime("Problem", "Answer", numbers=True), {"train": 40}),
    "aime25": ("aime/aime25.yaml", "aime25", rows.aime("problem", "answer"), {"test": 60}),
}
SUBJECTS = sorted(path.stem for path in (REFERENCE / "mmlu/default").glob("mmlu_*.yaml"))
MMLU = {
    task: (f"mmlu/default/{task}.yaml", f"mmlu/{task.removeprefix('mmlu_')}", rows.mmlu, {"dev": 3, "validation": 1, "test": 2 + i % 4})
    for i, task in enumerate(SUBJECTS)
}
assert len(MMLU) == 57
MORE = {
    "swag": ("swag/swag.yaml", "swag/regular", rows.swag, {"train": 10, "validation": 30}),
    "social_iqa": ("siqa/siqa.yaml", "siqa", rows.social_iqa, {"train": 10, "validation": 30}),
    "copa": ("super_glue/copa/default.yaml", "super_glue/copa", rows.copa, {"train": 10, "validation": 40}),
    "sglue_rte": ("super_glue/rte/default.yaml", "super_glue/rte", rows.premises([0, 1]), {"train": 10, "validation": 30}),
    "cb": ("super_glue/cb/default.yaml", "super_glue/cb", rows.premises([0, 0, 1, 2]), {"train": 10, "validation": 30}),
    "wic": ("super_glue/wic/default.yaml", "super_glue/wic", rows.wic, {"train": 10, "validation": 30}),
    "logiqa": ("logiqa/logiqa.yaml", "logiqa", rows.logiqa, {"train": 10, "validation": 5, "test": 30}),
    "race": ("race/race.yaml", "race/high", rows.race, {"test": 40}),
    "triviaqa": ("triviaqa/default.yaml", "trivia_qa/rc.nocontext", rows.triviaqa, {"train": 10, "validation": 60}),
    "nq_open": ("nq_open/nq_open.yaml", "nq_open", rows.nq_open, {"train": 10, "validation": 60}),
}
MATH = {
    "algebra": "algebra",
    "counting_and_prob": "counting_and_probability",
    "geometry": "geometry",
    "intermediate_algebra": "intermediate_algebra",
    "num_theory": "number_theory",
    "prealgebra": "prealgebra",
    "precalc": "precalculus",
}
GROUPS = {
    f"hendrycks_math_{task}": (f"hendrycks_math/hendrycks_math_{task}.yaml", f"hendrycks_math/{name}", rows.hendrycks_math, {"train": 8, "test": 10 + 5 * i})
    for i, (task, name) in enumerate(MATH.items())
}
GROUPS["hendrycks_math500"] = ("hendrycks_math/hendrycks_math500.yaml", "MATH-500", rows.math500, {"test": 40})
GROUPS |= {
    f"mmlu_pro_{name.replace(' ', '_')}": (f"mmlu_pro/mmlu_pro_{name.replace(' ', '_')}.yaml", "MMLU-Pro", rows.mmlu_pro, {"validation": 112, "test": 120})
    for name in rows.CATEGORIES
}


def runs_of(tasks, *more):
    return [
        {"name": "as it is", "tasks": tasks, "options": {"bootstrap_iters": 0}},
        {"name": "three shots", "tasks": tasks, "options": {"num_fewshot": 3, "limit": 15, "bootstrap_iters": 0}},
        {"name": "chat", "tasks": tasks, "options": {"num_fewshot": 2, "limit": 6, "apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}},
        *more,
    ]


FILES = {
    "built_in_choices": (CHOICES, runs_of(list(CHOICES))),
    "built_in_code": (
        CODE,
        runs_of(list(CODE), {"name": "one turn", "tasks": list(CODE), "options": {
            "num_fewshot": 1, "limit": 5, "apply_chat_template": True, "fewshot_as_multiturn": False, "system_instruction": "Be brief.", "bootstrap_iters": 0}}),
    ),
    "built_in_more": (MORE, runs_of(list(MORE))),
    "built_in_groups": (GROUPS, [
        {"name": "all", "tasks": ["hendrycks_math", "hendrycks_math500", "mmlu_pro"], "options": {"bootstrap_iters": 100}},
        {"name": "one shot", "tasks": ["hendrycks_math", "hendrycks_math500", "mmlu_pro_math"], "options": {"num_fewshot": 1, "limit": 4, "bootstrap_iters": 0}},
        {"name": "chat", "tasks": ["hendrycks_math_geometry", "mmlu_pro"], "options": {
            "num_fewshot": 2, "limit": 2, "apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}},
    ]),
    "built_in_mmlu": (MMLU, [
        {"name": "all", "tasks": ["mmlu"], "options": {"bootstrap_iters": 100}},
        {"name": "three shots", "tasks": ["mmlu_stem", "mmlu_high_school_us_history"], "options": {"num_fewshot": 3, "bootstrap_iters": 0}},
        {"name": "chat", "tasks": ["mmlu_social_sciences"], "options": {"num_fewshot": 2, "limit": 2, "apply_chat_template": True, "fewshot_as_multiturn": True, "bootstrap_iters": 0}},
    ]),
}


def write_task(task, path, folder, make_rows, splits):
    """The data files of a task by name; its task file is the reference's, on these."""
    files, data = {}, {}
    for split, count in splits.items():
        name = f"{folder}/{split}.jsonl"
        data[split] = str(TMP / name)
        if not (TMP / name).exists():  # Tasks may share their data.
            files[name] = harness.jsonl(make_rows(count))
            (TMP / name).parent.mkdir(parents=True, exist_ok=True)
            (TMP / name).write_text(files[name], encoding="utf-8")
    override = {"include": str(REFERENCE / path), "task": task, "dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": data}}
    if task in MMLU:
        override["tag"] = yaml.safe_load((REFERENCE / path).read_text())["tag"]
    (TMP / "tasks" / f"{task}.yaml").write_text(yaml.safe_dump(override))
    return files


def samples_of(results):
    samples = {}
    for task, rows_of_task in results["samples"].items():
        for row in rows_of_task:
            row = harness.plain(row)
            first = task not in samples and not task.startswith("mmlu")
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
    return samples


def main():
    os.chdir(TMP)
    (TMP / "tasks").mkdir(exist_ok=True)
    for group in [*REFERENCE.glob("mmlu/default/_mmlu*.yaml"), REFERENCE / "mmlu_pro/_mmlu_pro.yaml", REFERENCE / "hendrycks_math/hendrycks_math.yaml"]:
        shutil.copy(group, TMP / "tasks")
    for name, (tasks, runs) in FILES.items():
        files = {}
        for task, described in tasks.items():
            files.update(write_task(task, *described))
        done = []
        for run in runs:
            manager = TaskManager(include_path=str(TMP / "tasks"), include_defaults=False)
            results = lm_eval.simple_evaluate(harness.Mock(), tasks=run["tasks"], task_manager=manager, **run["options"])
            keys = [key for key in ("results", "groups", "group_subtasks", "n-shot", "higher_is_better", "versions", "n-samples") if key in results]
            done.append({**run, "samples": samples_of(results), "results": harness.plain({key: results[key] for key in keys})})
        out = json.dumps({"files": files, "runs": done}, ensure_ascii=False, separators=(",", ":"))
        (harness.HERE / f"{name}.json").write_text(out + "\n", encoding="utf-8")
        print(name, len(out.encode()), sum(len(rows) for run in done for rows in run["samples"].values()), "samples")


if __name__ == "__main__":
    main()
