"""ft and its peers in turn, with the same batches and threads: a row of Markdown for each comparison.

The peers are scripts that print one JSON line: `sft_step.py`, `peft_step.py`, `distill_step.py` (PyTorch, PEFT), `dpo_step.py`,
`grpo_step.py` (TRL), `qlora_step.py` (bitsandbytes), `generate.py` (transformers, llama.cpp), `encoder_step.py` (transformers), `embed_encode.py` and
`embed_train.py` (sentence-transformers), in the folder `--peers`; `--python` is an interpreter that has what they import. ft's side
is built by `cargo bench --no-run`. Each figure is the median of `--pairs` runs; the losses of the first step, the greedy texts, or the
embeddings, must agree. Beside llama.cpp texts may differ, since both round inputs, each in its own way.

    python3 benches/against_peers.py --model DIR --data alpaca.json --peers DIR --python PYTHON
"""
import argparse
import json
import statistics
import subprocess
import tempfile

LORA = ["--mode", "lora"]
LONG = ["--batch", "1", "--seq", "2048"]
AGAIN = ["--recompute"]
STORED, WIDE = ["--weights", "stored"], ["--weights", "f32"]
NF4 = ["--weights", "nf4"]
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
# Adapters of `peft_step.py`; ft begins with what PEFT saved before its first step, where PEFT has the method.
ADAPTERS = ["lora", "dora", "ia3", "vera", "prefix", "prompt", "bitfit", "loha", "lokr", "oft", "miss", "adalora"]
NOT_IN_PEFT = ["bitfit"]
# PEFT's prompt tuning also scores the first token of a row, which the last virtual token predicts, if its label is not masked:
# one term more a row than here.
OTHER_LOSS = ["prompt"]
DECODE = [("decoding, f32", WIDE), ("decoding, weights as stored", STORED)]
# `qlora_step.py` needs bitsandbytes. Its NF4 has the numbers of ft's, but its embedding is in f32.
QLORA = "QLoRA 4×256, NF4"
# Beside llama.cpp, on the same file, with the logits of the prompt's last token.
GGUF = ["q4_0", "q4_k_m", "q8_0", "f16"]


def built(checkout=".", names=("sft_step", "decode"), kind="bench"):
    """The paths of the benchmarks, or examples, that cargo built in a checkout."""
    command = {"bench": ["bench", "--no-run"], "example": ["build", "--release"]}[kind]
    build = ["cargo"] + command + ["--locked", "--message-format=json"]
    build += [argument for name in names for argument in (f"--{kind}", name)]
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


def adapter(method, a, ft, common):
    both = common + ["--data", a.data, "--steps", a.steps, "--method", method]
    theirs, ours = [a.python, f"{a.peers}/peft_step.py"] + both, [ft["peft_step"]] + both
    with tempfile.TemporaryDirectory() as start:
        if method not in NOT_IN_PEFT:
            run(theirs + ["--save-start", start])
            ours += ["--adapter", start]
            theirs += ["--save-start", f"{start}/again"]
        theirs, ours = pairs(theirs, ours, a.pairs)
    # AdaLoRA's own loss has a penalty on top.
    first = [r.get("losses_ce", r["losses"])[0] for r in theirs + ours]
    if method not in OTHER_LOSS and max(first) - min(first) > 2e-4:
        raise SystemExit(f"{method}: the first losses differ: {first}")
    row(f"adapter {method}", theirs, ours, "tokens_per_s")


def preferences(a, ft, common):
    both = common + ["--data", a.preferences, "--steps", a.steps]
    theirs, ours = pairs([a.python, f"{a.peers}/dpo_step.py"] + both, [ft["dpo_step"]] + both, a.pairs)
    # Factors are random on both sides, and change nothing in the first step.
    agree("DPO", theirs, ours, 1)
    row("DPO 4 pairs × 256", theirs, ours, "tokens_per_s")


def policies(a, ft, common):
    """Steps a minute: what is sampled differs, its amount does not."""
    both = common + ["--data", a.data, "--steps", a.steps]
    theirs, ours = pairs([a.python, f"{a.peers}/grpo_step.py"] + both, [ft["grpo_step"]] + both, a.pairs)
    for result in theirs + ours:
        result["steps_a_minute"] = 60 / result["seconds"]["step"]
    row("GRPO 4 prompts × 4 completions × 64, steps a minute", theirs, ours, "steps_a_minute")


def in_bf16(a, ft, common):
    """Weights and all operations are of `bf16` there, the factors of matrix products here: losses are near, not equal."""
    rows = [("LoRA 4×256", "sft_step", a.data, LORA, STORED), ("GRPO 4 × 4 × 64, steps a minute", "grpo_step", a.data, [], [])]
    if a.preferences:
        rows.insert(1, ("DPO 4 pairs × 256", "dpo_step", a.preferences, [], []))
    for name, script, data, both, alone in [row for row in rows if a.only in f"{row[0]}, bf16"]:
        both = common + ["--data", data, "--steps", a.steps] + both
        theirs = [a.python, f"{a.peers}/{script}.py", "--dtype", "bfloat16"] + both
        theirs, ours = pairs(theirs, [ft[script], "--matmul-precision", "bf16"] + both + alone, a.pairs)
        for result in theirs + ours:
            if "seconds" in result:
                result["steps_a_minute"] = 60 / result["seconds"]["step"]
        row(f"{name}, bf16", theirs, ours, "steps_a_minute" if script == "grpo_step" else "tokens_per_s")


def distillation(a, ft):
    with tempfile.TemporaryDirectory() as folder:
        both = ["--teacher", a.model, "--student", f"{folder}/student", "--data", a.data, "--threads", a.threads]
        for name, alone in [("distillation 4×256", WIDE), ("distillation 4×256, teacher's weights as stored", STORED)]:
            theirs, ours = pairs([a.python, f"{a.peers}/distill_step.py"] + both, [ft["distill_step"]] + both + alone, a.pairs)
            agree("distillation", theirs, ours, 8)
            row(name, theirs, ours, "tokens_per_s")
        # Other divergences and weights agree too.
        for settings in (["--beta", "0.5"], ["--beta", "1"], ["--alpha", "0.5"]):
            both_with = both + settings
            theirs, ours = pairs([a.python, f"{a.peers}/distill_step.py"] + both_with, [ft["distill_step"]] + WIDE + both_with, 1)
            agree(" ".join(settings), theirs, ours, 8)


def encoders(a, ft):
    """Texts or pairs a second."""
    common = ["--data", a.data, "--threads", a.threads]
    if a.only in "embedding 600 texts":
        embed = built(names=("embed",), kind="example")["embed"]
        theirs = [a.python, f"{a.peers}/embed_encode.py", "--model", a.encoder, "--passes", "3"] + common
        ours = [embed, "--model", a.encoder, "--texts", a.data, "--columns", "instruction,output", "--limit", "600"]
        ours += ["--passes", "3", "--threads", a.threads, "--json"]
        theirs, ours = pairs(theirs, ours, a.pairs)
        cosines = [r["mean_pair_cosine"] for r in theirs + ours]
        if max(cosines) - min(cosines) > 1e-5:
            raise SystemExit(f"the embeddings differ: {cosines}")
        row("embedding 600 texts", theirs, ours, "sentences_per_s")
    common += ["--steps", str(max(8, int(a.steps)))]
    if a.only in "training of embeddings, 32 pairs":
        both = ["--model", a.encoder] + common
        theirs, ours = pairs([a.python, f"{a.peers}/embed_train.py"] + both, [ft["embed_step"]] + both, a.pairs)
        agree("training of embeddings", theirs, ours, 8)
        row("training of embeddings, 32 pairs", theirs, ours, "pairs_per_s")
    if a.only in "classification, 32 texts":
        with tempfile.TemporaryDirectory() as folder:
            write = [a.python, f"{a.peers}/encoder_step.py", "--model", a.encoder, "--write", folder]
            subprocess.run(write, check=True, capture_output=True)
            both = ["--model", folder] + common
            theirs, ours = pairs([a.python, f"{a.peers}/encoder_step.py"] + both, [ft["encoder_step"]] + both, a.pairs)
        agree("classification", theirs, ours, 8)
        row("classification, 32 texts", theirs, ours, "examples_per_s")


def packed(a, ft, mixes):
    with tempfile.TemporaryDirectory() as folder:
        for mix in mixes:
            file, threads = f"{folder}/{mix}.gguf", ["--threads", a.threads]
            run([ft["quantize"], "--model", a.model, "--format", mix, "--output", file, "--json"])
            theirs, ours = [a.python, f"{a.peers}/generate.py", "--gguf", file], [ft["decode"], "--model", file, "--last"]
            theirs, ours = pairs(theirs + threads, ours + threads, a.pairs)
            row(f"decoding, {mix}", theirs, ours, "decode_tokens_per_s", memory=False)
            row(f"prompt, {mix}", theirs, ours, "prompt_tokens_per_s", memory=False)


def agree(name, theirs, ours, steps):
    for step, losses in enumerate(zip(*[r["losses"][:steps] for r in theirs + ours])):
        if max(losses) - min(losses) > 1e-3 * max(1, abs(losses[0])):
            raise SystemExit(f"{name}: the losses of step {step + 1} differ: {losses}")


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
    p.add_argument("--preferences", help="pairs in LLaMA-Factory's form, for the row of DPO")
    p.add_argument("--qlora", action="store_true", help="the row of QLoRA, too; needs bitsandbytes")
    p.add_argument("--bf16", action="store_true", help="the rows in bf16, too; needs a processor with AVX-512 BF16")
    p.add_argument("--gguf", action="store_true", help="the rows of GGUF files, too; needs llama-cpp-python")
    p.add_argument("--encoder", help="all-MiniLM-L6-v2, for the rows of encoders")
    a = p.parse_args()
    ft = built(names=("sft_step", "decode", "peft_step", "dpo_step", "grpo_step", "distill_step", "embed_step", "encoder_step"))
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
    if a.qlora and a.only in QLORA:
        both = common + ["--data", a.data, "--steps", a.steps]
        theirs = [a.python, f"{a.peers}/qlora_step.py"] + both
        theirs, ours = pairs(theirs, [ft["sft_step"]] + both + LORA + NF4, a.pairs)
        agree(QLORA, theirs, ours, 1)
        row(QLORA, theirs, ours, "tokens_per_s")
    for method in [method for method in ADAPTERS if a.only in f"adapter {method}"]:
        adapter(method, a, ft, common)
    if a.preferences and a.only in "DPO":
        preferences(a, ft, common)
    if a.only in "GRPO":
        policies(a, ft, common)
    if a.bf16:
        in_bf16(a, ft, common)
    if a.only in "distillation":
        distillation(a, ft)
    if a.encoder:
        encoders(a, ft)
    for name, alone in [row for row in DECODE if a.only in row[0]]:
        theirs = [a.python, f"{a.peers}/generate.py"] + common
        theirs, ours = pairs(theirs, [ft["decode"]] + common + alone, a.pairs)
        texts = {r["text"] for r in theirs + ours}
        if len(texts) > 1:
            raise SystemExit(f"{name}: the texts differ: {texts}")
        row(name, theirs, ours, "decode_tokens_per_s", memory=False)
        row(name.replace("decoding", "prompt"), theirs, ours, "prompt_tokens_per_s", memory=False)
    mixes = [mix for mix in GGUF if a.only in f"decoding, {mix}"]
    if a.gguf and mixes:
        packed(a, ft | built(names=("quantize",), kind="example"), mixes)


if __name__ == "__main__":
    main()
