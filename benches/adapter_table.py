"""One run of `sft` for every way to train, on the same rows and steps: a row of Markdown for each.

    python3 benches/adapter_table.py --model DIR --data alpaca.json

The learning rate is that of the method (`sft --help`). The loss is that of the held-out rows: the mean over the seeds, and how far
they are apart, below which rows do not differ. Memory is that of the whole run.
Time is that of all threads on the processor, for the whole run with both evaluations: other work on the machine changes it little,
and the parts that are the same for all methods are in it.
"""
import argparse
import json
import resource
import statistics
import subprocess
import tempfile

LINEAR = ["--target-modules", "all-linear"]
ATTENTION = ["--target-modules", "q_proj,k_proj,v_proj,o_proj"]
# name, options
METHODS = [
    ("LoRA, r 16", ["--method", "lora"]),
    # The scale of LoRA above: alpha / √r = 2.
    ("rsLoRA, r 16, alpha 8", ["--method", "rslora", "--alpha", "8"]),
    ("DoRA, r 16", ["--method", "dora"]),
    ("PiSSA, r 16", ["--method", "pissa"]),
    ("OLoRA, r 16", ["--method", "olora"]),
    ("AdaLoRA, r 24 to 16", ["--method", "adalora", "--set", "init_r=24", "--set", "target_r=16"] + LINEAR),
    ("VeRA, r 256", ["--method", "vera"] + LINEAR),
    ("LoHa, r 16", ["--method", "loha", "--r", "16", "--alpha", "32"] + LINEAR),
    ("LoKr, r 16", ["--method", "lokr", "--r", "16", "--alpha", "32"] + LINEAR),
    ("MiSS, r 64", ["--method", "miss", "--r", "64"] + LINEAR),
    ("OFT, blocks of 32", ["--method", "oft"] + LINEAR),
    ("BOFT, blocks of 4", ["--method", "boft"] + LINEAR),
    ("HRA, r 8", ["--method", "hra"] + LINEAR),
    ("FourierFT, 1000", ["--method", "fourierft"] + LINEAR),
    ("IA3", ["--method", "ia3"]),
    ("BitFit, zeros added", ["--method", "bitfit"]),
    ("norms", ["--method", "ln_tuning"]),
    ("bottleneck", ["--method", "bottleneck"]),
    ("prefix, 32", ["--method", "prefix", "--set", "num_virtual_tokens=32"]),
    ("prompt, 32", ["--method", "prompt", "--set", "num_virtual_tokens=32"]),
    ("P-tuning, 32", ["--method", "ptuning", "--set", "num_virtual_tokens=32"]),
    ("last 4 blocks", ["--method", "freeze:4"]),
    ("everything", ["--method", "full"]),
]
# The guide's questions: where, how large, how strong. The scale is 2 (alpha / r, with rsLoRA alpha / √r) where no alpha is named.
ADVICE = [
    ("all linear layers, r 16", ["--r", "16"]),
    ("attention only, r 16", ["--r", "16"] + ATTENTION),
    ("attention only, r 64", ["--r", "64", "--alpha", "128"] + ATTENTION),
    ("all linear layers, r 4", ["--r", "4", "--alpha", "8"]),
    ("all linear layers, r 64", ["--r", "64", "--alpha", "128"]),
    ("r 64, alpha 32: scale 0.5", ["--r", "64", "--alpha", "32"]),
    ("rsLoRA, r 64, alpha 16: scale 2", ["--r", "64", "--alpha", "16", "--rslora"]),
    ("rsLoRA, r 64, alpha 32: scale 4", ["--r", "64", "--alpha", "32", "--rslora"]),
    ("r 16, alpha 64: scale 4", ["--r", "16", "--alpha", "64"]),
]


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--format", default="alpaca")
    p.add_argument("--steps", default="40")
    p.add_argument("--batch-size", default="4")
    p.add_argument("--seq-len", default="256")
    p.add_argument("--eval-fraction", default="0.05")
    p.add_argument("--seeds", default="42", help="runs of each row, separated by commas: 1,2,3")
    p.add_argument("--advice", action="store_true", help="LoRA's settings instead of the methods")
    p.add_argument("--only", default="", help="rows whose name contains this")
    p.add_argument("--built", action="store_true", help="take target/release/examples/sft as it is")
    a = p.parse_args()
    if not a.built:
        subprocess.run(["cargo", "build", "--locked", "--release", "--example", "sft"], check=True)
    print("| | trained numbers | held-out loss | CPU seconds | MB |\n|---|---|---|---|---|")
    seeds = a.seeds.split(",")
    for name, options in [row for row in (ADVICE if a.advice else METHODS) if a.only in row[0]]:
        runs, failure = [], None
        for seed in seeds:
            with tempfile.TemporaryDirectory() as output:
                command = ["target/release/examples/sft", "--model", a.model, "--data", a.data, "--format", a.format]
                command += ["--output", output, "--max-steps", a.steps, "--batch-size", a.batch_size, "--json", "--seed", seed]
                command += ["--seq-len", a.seq_len, "--eval-fraction", a.eval_fraction, "--save-every", "1000000"] + options
                before = cpu_seconds()
                done = subprocess.run(command, capture_output=True, text=True)
                seconds = cpu_seconds() - before
            if done.returncode != 0:
                failure = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
                break
            runs.append(json.loads(done.stdout.strip().splitlines()[-1]) | {"seconds": seconds})
        if failure:
            print(f"| {name} | failed: {failure} |", flush=True)
            continue
        mean = {key: statistics.mean(run[key] for run in runs) for key in ("eval_loss_before", "eval_loss_after", "seconds")}
        loss = f"{mean['eval_loss_before']:.4f} to {mean['eval_loss_after']:.4f}"
        if len(runs) > 1:
            after = [run["eval_loss_after"] for run in runs]
            loss += f" ± {(max(after) - min(after)) / 2:.4f}"
        memory = max(run["peak_rss_mb"] for run in runs)
        cells = [name, f"{runs[0]['trainable_parameters']:,}", loss, f"{mean['seconds']:.0f}", f"{memory:.0f}"]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
