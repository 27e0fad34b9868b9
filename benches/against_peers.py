"""ft and its peers in turn, with the same batches and threads: a row of Markdown for each comparison.

The peers are scripts that print one JSON line: `sft_step.py` (PyTorch + PEFT) and `generate.py`
(transformers), in the folder `--peers`; `--python` is an interpreter that has what they import. ft's side
is built by `cargo bench --no-run`. Each figure is the median of `--pairs` runs; the losses of the first
step, or the greedy texts, must agree.

    python3 benches/against_peers.py --model DIR --data alpaca.json --peers DIR --python PYTHON
"""
import argparse
import json
import statistics
import subprocess

LORA = ["--mode", "lora"]
LONG = ["--batch", "1", "--seq", "2048"]
AGAIN = ["--recompute"]
STORED, WIDE = ["--weights", "stored"], ["--weights", "f32"]
# name, arguments of both, arguments of ft alone
STEPS = [
    ("LoRA 4×256", LORA, WIDE),
    ("LoRA 4×256, weights as stored", LORA, STORED),
    ("LoRA 1×2048", LORA + LONG, WIDE),
    ("LoRA 1×2048, weights as stored", LORA + LONG, STORED),
    ("LoRA 1×2048, recompute", LORA + LONG + AGAIN, WIDE),
    ("LoRA 1×2048, recompute, weights as stored", LORA + LONG + AGAIN, STORED),
    ("full 4×256", ["--mode", "full"], []),
]
DECODE = [("decoding, f32", WIDE), ("decoding, weights as stored", STORED)]


def built(checkout="."):
    """The paths of the benchmarks that cargo built in a checkout."""
    build = ["cargo", "bench", "--locked", "--no-run", "--message-format=json"]
    build += ["--bench", "sft_step", "--bench", "decode"]
    done = subprocess.run(build, check=True, stdout=subprocess.PIPE, text=True, cwd=checkout)
    lines = done.stdout.splitlines()
    found = [json.loads(line) for line in lines if line.startswith("{")]
    return {m["target"]["name"]: m["executable"] for m in found if m.get("executable")}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pairs(theirs, ours, count):
    """Runs both in turn; their results and ours."""
    results = [(run(theirs), run(ours)) for _ in range(count)]
    return [r[0] for r in results], [r[1] for r in results]


def median(results, key):
    return statistics.median(r[key] for r in results)


def row(name, theirs, ours, speed, memory=True):
    a, b = median(theirs, speed), median(ours, speed)
    cells = [name, f"{a:.1f}", f"{b:.1f}", f"{b / a:.2f}"]
    if memory:
        a, b = median(theirs, "peak_rss_mb"), median(ours, "peak_rss_mb")
        cells += [f"{a:.0f}", f"{b:.0f}", f"{b / a:.2f}"]
    print("| " + " | ".join(cells) + " |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--peers", required=True)
    p.add_argument("--python", default="python3")
    p.add_argument("--pairs", type=int, default=3)
    p.add_argument("--steps", default="4")
    p.add_argument("--threads", default="2")
    p.add_argument("--only", default="", help="rows whose name contains this")
    a = p.parse_args()
    ft = built()
    common = ["--model", a.model, "--threads", a.threads]
    print("| | peer, tokens/s | ft, tokens/s | ratio | peer, MB | ft, MB | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, both, alone in [row for row in STEPS if a.only in row[0]]:
        both = common + ["--data", a.data, "--steps", a.steps] + both
        theirs = [a.python, f"{a.peers}/sft_step.py"] + both
        theirs, ours = pairs(theirs, [ft["sft_step"]] + both + alone, a.pairs)
        first = [r["losses"][0] for r in theirs + ours]
        if max(first) - min(first) > 1e-4:
            raise SystemExit(f"{name}: the first losses differ: {first}")
        row(name, theirs, ours, "tokens_per_s")
    for name, alone in [row for row in DECODE if a.only in row[0]]:
        theirs = [a.python, f"{a.peers}/generate.py"] + common
        theirs, ours = pairs(theirs, [ft["decode"]] + common + alone, a.pairs)
        texts = {r["text"] for r in theirs + ours}
        if len(texts) > 1:
            raise SystemExit(f"{name}: the texts differ: {texts}")
        row(name, theirs, ours, "decode_tokens_per_s", memory=False)
        row(name.replace("decoding", "prompt"), theirs, ours, "prompt_tokens_per_s", memory=False)


if __name__ == "__main__":
    main()
