"""The example `dpo` and TRL's DPOTrainer on the same pairs, from the same model, with the same settings: accuracy and margin
on the same held-out pairs.

Every tenth pair is held out. Pairs with more than --seq-len tokens are left out on both sides. Both train LoRA of rank 16 on
all linear layers for an epoch, from the same factors. Their orders of the rows differ, and so do their results, as those of two
seeds of one side do. With --order, a JSON list of row numbers, TRL takes the training rows in that order: in that of ft, the losses
and margins of all steps agree to 4e-4.

Needs trl, peft, transformers and torch. Run:
    cargo build --release --example dpo
    python tests/reference/dpo.py --model DIR --data preferences.json [--seq-len 512] [--lr 5e-5] [--max-steps N] [--order FILE]
"""

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

ROOT = Path(__file__).resolve().parents[2]
ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def rows(path, tokenizer, seq_len):
    """Pairs in TRL's conversational form whose answers fit."""
    for row in json.load(open(path, encoding="utf-8")):
        turns = [{"role": ROLES[m["from"]], "content": m["value"]} for m in row["conversations"]]
        sides = {k: [{"role": "assistant", "content": row[k]["value"]}] for k in ("chosen", "rejected")}
        lengths = [len(tokenizer.apply_chat_template(turns + side, tokenize=True, return_dict=True)["input_ids"]) for side in sides.values()]
        if max(lengths) <= seq_len and sides["chosen"] != sides["rejected"]:
            yield {"prompt": turns, **sides}


def write_start(a, folder):
    """An adapter before the first step."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules=LINEAR, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(a.model, dtype="float32"), lora).save_pretrained(folder)


def ours(a, start, train, held_out):
    with tempfile.TemporaryDirectory() as output:
        files = []
        for name, part in [("train", train), ("held_out", held_out)]:
            files.append(os.path.join(output, name + ".jsonl"))
            Path(files[-1]).write_text("".join(json.dumps(row) + "\n" for row in part))
        command = [ROOT / "target/release/examples/dpo", "--model", a.model, "--data", files[0], "--eval-data", files[1]]
        command += ["--adapter", start, "--reference", "start"]
        command += ["--output", os.path.join(output, "run"), "--lr", str(a.lr), "--seq-len", str(a.seq_len + 8), "--batch-size", "4", "--json"]
        command += ["--max-steps", str(a.max_steps)] if a.max_steps else []
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    return {k: [found["eval_before"][k], found["eval_after"][k]] for k in ("loss", "accuracy", "margin")}


def trl(a, start, tokenizer, train, held_out):
    from datasets import Dataset
    from peft import PeftModel
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForCausalLM
    from trl import DPOConfig, DPOTrainer

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, *_, **__):
            return SequentialSampler(self.train_dataset)

    if a.order:
        train = [train[row] for row in json.load(open(a.order))]
    with tempfile.TemporaryDirectory() as output:
        config = DPOConfig(
            output_dir=output, per_device_train_batch_size=4, per_device_eval_batch_size=1, learning_rate=a.lr, num_train_epochs=1,
            max_steps=a.max_steps or -1, lr_scheduler_type="linear", warmup_steps=0, weight_decay=0.0, beta=0.1, max_length=None,
            bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no", use_cpu=True, seed=42,
        )
        model = AutoModelForCausalLM.from_pretrained(a.model, dtype="float32")
        trainer = (InOrder if a.order else DPOTrainer)(
            PeftModel.from_pretrained(model, start, is_trainable=True), args=config, train_dataset=Dataset.from_list(train),
            eval_dataset=Dataset.from_list(held_out), processing_class=tokenizer,
        )
        before = trainer.evaluate()
        trainer.train()
        after = trainer.evaluate()
    names = {"loss": "eval_loss", "accuracy": "eval_rewards/accuracies", "margin": "eval_rewards/margins"}
    return {k: [before[v], after[v]] for k, v in names.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--seq-len", type=int, default=512)
    p.add_argument("--lr", type=float, default=5e-5)
    p.add_argument("--max-steps", type=int)
    p.add_argument("--order", help="JSON list of row numbers: the order in which TRL takes the training rows")
    a = p.parse_args()
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(a.model)
    pairs = list(rows(a.data, tokenizer, a.seq_len))
    held_out = pairs[::10]
    train = [pair for i, pair in enumerate(pairs) if i % 10]
    print(f"{len(train)} pairs to train on, {len(held_out)} held out", flush=True)
    with tempfile.TemporaryDirectory() as start:
        write_start(a, start)
        print("ft", json.dumps(ours(a, start, train, held_out)), flush=True)
        print("TRL", json.dumps(trl(a, start, tokenizer, train, held_out)), flush=True)


if __name__ == "__main__":
    main()
