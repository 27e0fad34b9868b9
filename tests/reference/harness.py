"""The example `harness` beside lm-evaluation-harness on the same model and the same rows: every log-likelihood, every
choice, every generated text, every number; with --speed, documents a second of both in turn; with --exact, how far both are from
PIQA's log-likelihoods in f64.

Rows of PIQA's and GSM8K's fields are made here from a seed (varied lengths, Unicode, one-word choices, spaces at the
ends); --data takes other rows, DIR/piqa/validation.jsonl and DIR/gsm8k/main/{train,test}.jsonl. The task files are those
of the package lm_eval, with local data.

Needs lm_eval 0.4.13, transformers and torch. Run:
    cargo build --release --example harness
    python tests/reference/harness.py --model DIR [--piqa 120] [--gsm8k 24] [--num-fewshot 2] [--speed 3]
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

ROOT = Path(__file__).resolve().parents[2]
NOUNS = "door bottle shoe candle rope window towel jar lamp brush ladder pan bucket nail shirt box wheel knife glass map".split()
VERBS = "open clean dry hang fix fold store heat cool cut tie paint lift fill move hide wash".split()
PLACES = "in the sun|under the sink|on a warm stove|with a damp cloth|behind the house|over night|in cold water|with two hands".split("|")
ODD = ["naïve café", "über 30 °C", "汉字 text", "🦀 crab", "tab\there", "a  b", "½ cup", "e\u0301", "“quoted”", "x_y-z/1.5"]


def piqa(count, rnd):
    rows = []
    for i in range(count):
        goal = f"How do you {rnd.choice(VERBS)} a {rnd.choice(NOUNS)} {rnd.choice(PLACES)}?"
        if i % 6 == 1:
            goal += " " + rnd.choice(ODD)
        if i % 5 == 2:
            goal = " ".join([goal] * rnd.randint(2, 6)) + " "
        sols = []
        for _ in range(2):
            steps = rnd.randint(1, 4) if i % 4 else rnd.randint(4, 9)
            sols.append(", then ".join(f"{rnd.choice(VERBS)} the {rnd.choice(NOUNS)} {rnd.choice(PLACES)}" for _ in range(steps)) + ".")
        if i % 9 == 4:
            sols = rnd.sample(["yes", "no", "water", "salt ", "🦀", "left"], 2)
        if i % 11 == 5:
            sols[1] = sols[0] + " " + rnd.choice(ODD)
        rows.append({"goal": goal, "sol1": sols[0], "sol2": sols[1], "label": rnd.randint(0, 1)})
    return rows


def gsm8k(count, rnd):
    rows = []
    for _ in range(count):
        a, b = rnd.randint(2, 60), rnd.randint(2, 60)
        noun = rnd.choice(NOUNS)
        if rnd.random() < 0.5:
            question, answer = f"Mary has {a} {noun}s and buys {b} more. How many {noun}s does she have now?", a + b
            work = f"{a}+{b}=<<{a}+{b}={a + b}>>{a + b}"
        else:
            question, answer = f"A box holds {a} {noun}s. How many {noun}s are there in {b} boxes?", a * b
            work = f"{a}*{b}=<<{a}*{b}={a * b}>>{a * b}"
        rows.append({"question": question, "answer": f"That is {work} {noun}s.\n#### {answer:,}"})
    return rows


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def task_files(folder, data):
    """The package's own task files on local rows."""
    import lm_eval
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("!", lambda loader, suffix, node: node.value)
    reference = Path(lm_eval.__file__).parent / "tasks"
    for name, path, rows in [("piqa", "piqa/piqa.yaml", "piqa"), ("gsm8k", "gsm8k/gsm8k.yaml", "gsm8k/main")]:
        config = yaml.load((reference / path).read_text(encoding="utf-8"), Loader)
        files = {file.stem: str(file) for file in sorted((data / rows).glob("*.jsonl"))}
        config["dataset_path"] = "json"
        config.pop("dataset_name", None)
        config["dataset_kwargs"] = {"data_files": files}
        if "train" not in files:
            config.pop("training_split", None)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def theirs(args, folder, tasks, model=None, batch_size=1):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        model=model or "hf",
        model_args=None if model else {"pretrained": args.model, "dtype": "float32", "device": "cpu"},
        tasks=tasks,
        batch_size=batch_size,
        num_fewshot=args.num_fewshot,
        apply_chat_template=args.apply_chat_template,
        fewshot_as_multiturn=args.apply_chat_template,
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        random_seed=0,
    )


def ours(args, data, output, tasks):
    command = [args.binary, "--model", args.model, "--tasks", ",".join(tasks), "--data", str(data), "--output", str(output), "--log-samples", "--json"]
    if args.num_fewshot is not None:
        command += ["--num-fewshot", str(args.num_fewshot)]
    if args.apply_chat_template:
        command += ["--apply-chat-template"]
    start = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    summary = json.loads(done.stdout.splitlines()[-1])
    summary["wall"] = time.monotonic() - start
    samples = {}
    for file in Path(summary["results_file"]).parent.glob("samples_*.jsonl"):
        task = file.name.removeprefix("samples_").rsplit("_", 1)[0]
        samples[task] = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    return summary, samples


def compare(reference, summary, samples):
    """Differences, and how far log-likelihoods are apart."""
    wrong, furthest, count = [], 0.0, 0
    for task, rows in reference["samples"].items():
        found = {(row["doc_id"], row["filter"]): row for row in samples[task]}
        for row in rows:
            mine = found[(row["doc_id"], row["filter"])]
            count += 1
            for (theirs,), (own,) in zip(row["resps"], mine["resps"], strict=True):
                if isinstance(theirs, str):
                    if theirs != own:
                        wrong.append(f"{task} {row['doc_id']}: {own!r}, the reference has {theirs!r}")
                    continue
                logp, greedy = (float(theirs[0]), bool(theirs[1]))
                own_logp, own_greedy = float(own[0]), str(own[1]) == "True"
                furthest = max(furthest, abs(logp - own_logp))
                if greedy != own_greedy:
                    wrong.append(f"{task} {row['doc_id']}: greedy {own_greedy}, the reference {greedy}")
            for metric in row["metrics"]:
                if float(mine[metric]) != float(row[metric]):
                    wrong.append(f"{task} {row['doc_id']}: {metric} {mine[metric]}, the reference {row[metric]}")
        for key, value in reference["results"][task].items():
            if isinstance(value, float) and "stderr" not in key and abs(summary["results"][task][key] - value) > 1e-9:
                wrong.append(f"{task}: {key} {summary['results'][task][key]}, the reference {value}")
    return wrong, furthest, count


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--binary", default=str(ROOT / "target/release/examples/harness"))
    parser.add_argument("--data", help="folder of rows, instead of made ones")
    parser.add_argument("--piqa", type=int, default=120)
    parser.add_argument("--gsm8k", type=int, default=24)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--num-fewshot", type=int)
    parser.add_argument("--apply-chat-template", action="store_true")
    parser.add_argument("--tasks", default="piqa,gsm8k")
    parser.add_argument("--exact", type=int, default=0, help="so many documents of PIQA are computed in f64 too (zero-shot, plain)")
    parser.add_argument("--speed", type=int, default=0, help="pairs of timed runs of PIQA")
    parser.add_argument("--batch-sizes", default="1,8,16", help="of the reference, for --speed")
    args = parser.parse_args()
    rnd = random.Random(args.seed)
    tasks = args.tasks.split(",")
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        data = Path(args.data) if args.data else tmp / "data"
        if not args.data:
            write(data / "piqa/validation.jsonl", piqa(args.piqa, rnd))
            write(data / "piqa/train.jsonl", piqa(20, random.Random(args.seed + 1)))
            write(data / "gsm8k/main/test.jsonl", gsm8k(args.gsm8k, rnd))
            write(data / "gsm8k/main/train.jsonl", gsm8k(12, rnd))
        (tmp / "tasks").mkdir()
        task_files(tmp / "tasks", data)
        reference = theirs(args, tmp / "tasks", tasks)
        summary, samples = ours(args, data, tmp / "ours", tasks)
        wrong, furthest, count = compare(reference, summary, samples)
        print("\n".join(wrong))
        print(json.dumps({"samples": count, "different": len(wrong), "largest_logp_difference": furthest, "results": summary["results"]}))
        if args.exact:
            exact(args, data, reference, samples)
        if args.speed:
            speed(args, tmp, data)
        sys.exit(1 if wrong or furthest > 1e-3 else 0)


def exact(args, data, reference, samples):
    """The rounding of either side."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float64).eval()
    rows = [json.loads(line) for line in (data / "piqa/validation.jsonl").read_text(encoding="utf-8").split("\n") if line]
    furthest = {"reference": 0.0, "ours": 0.0}
    for i, row in enumerate(rows[: args.exact]):
        for k, choice in enumerate((row["sol1"], row["sol2"])):
            context = f"Question: {row['goal']}\nAnswer:"
            ids, start = tokenizer.encode(f"{context} {choice}"), len(tokenizer.encode(context))
            with torch.no_grad():
                logps = torch.log_softmax(model(torch.tensor([ids[:-1]])).logits[0], -1)
            logp = logps[start - 1 :].gather(1, torch.tensor(ids[start:])[:, None]).sum().item()
            for side, found in (("reference", reference["samples"]), ("ours", samples)):
                (answer,) = next(sample for sample in found["piqa"] if sample["doc_id"] == i)["resps"][k]
                furthest[side] = max(furthest[side], abs(float(answer[0]) - logp))
    print(json.dumps({"documents_in_f64": min(args.exact, len(rows)), "largest_difference_from_f64": furthest}))


def speed(args, tmp, data):
    """Seconds of the answers alone: neither side's start nor loading of weights counts."""
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=args.model, dtype="float32", device="cpu")
    times = {}
    for batch_size in args.batch_sizes.split(","):
        model.batch_size_per_gpu = int(batch_size)
        start = time.monotonic()
        theirs(args, tmp / "tasks", ["piqa"], model, int(batch_size))
        times[batch_size] = time.monotonic() - start
    best = min(times, key=times.get)
    model.batch_size_per_gpu = int(best)
    rows = []
    for _ in range(args.speed):
        summary, _ = ours(args, data, tmp / "speed", ["piqa"])
        start = time.monotonic()
        theirs(args, tmp / "tasks", ["piqa"], model, int(best))
        rows.append((time.monotonic() - start, summary["seconds"]))
        memory = summary["peak_rss_mb"]
    ratios = [reference / own for reference, own in rows]
    print(json.dumps({"documents": args.piqa, "batch_size": best, "seconds_by_batch_size": times, "seconds": rows,  # of the reference, and ours
                      "ratios": ratios, "median_ratio": statistics.median(ratios), "peak_mb": [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, memory]}))


if __name__ == "__main__":
    main()
