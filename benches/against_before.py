"""ft before and after a change, in turn: a row of Markdown for each benchmark of `against_peers.py`.

Both sides are checkouts of this repository, which are built by `cargo bench --no-run`. Each figure is the median of
`--pairs` runs; the ratio is the median of the pairs' ratios, with the smallest and the largest of them. The losses of the
first step, or the greedy texts, must agree.

    git worktree add ../before COMMIT
    python3 benches/against_before.py --before ../before --model DIR --data alpaca.json
"""
import argparse
import statistics

from against_peers import DECODE, STEPS, built, median, pairs


def row(name, before, after, key):
    ratios = sorted(b[key] / a[key] for a, b in zip(before, after))
    a, b = median(before, key), median(after, key)
    ratio = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    print(f"| {name} | {a:.1f} | {b:.1f} | {ratio} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--before", required=True)
    p.add_argument("--after", default=".")
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--steps", default="4")
    p.add_argument("--threads", default="2")
    p.add_argument("--only", default="", help="rows whose name contains this")
    a = p.parse_args()
    before, after = built(a.before), built(a.after)
    common = ["--model", a.model, "--threads", a.threads]
    print("| | before | after | after / before |\n|---|---|---|---|")
    for name, both, alone in [row for row in STEPS if a.only in row[0]]:
        arguments = common + ["--data", a.data, "--steps", a.steps] + both + alone
        sides = pairs([before["sft_step"]] + arguments, [after["sft_step"]] + arguments, a.pairs)
        first = [run["losses"][0] for side in sides for run in side]
        if max(first) - min(first) > 1e-4:
            raise SystemExit(f"{name}: the first losses differ: {first}")
        row(f"{name}, tokens/s", *sides, "tokens_per_s")
        row(f"{name}, MB", *sides, "peak_rss_mb")
    for name, alone in [row for row in DECODE if a.only in row[0]]:
        sides = pairs([before["decode"]] + common + alone, [after["decode"]] + common + alone, a.pairs)
        if len({run["text"] for side in sides for run in side}) > 1:
            raise SystemExit(f"{name}: the texts differ")
        row(f"{name}, tokens/s", *sides, "decode_tokens_per_s")
        row(f"{name.replace('decoding', 'prompt')}, tokens/s", *sides, "prompt_tokens_per_s")


if __name__ == "__main__":
    main()
