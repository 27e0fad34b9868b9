"""LoRA fine-tuning with PEFT and transformers' Trainer, f32 on CPU: the peer of the example `sft`.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, accelerate 1.15.0, datasets not needed.
    python sft_trainer.py --model DIR --data ALPACA.json --eval-ids FILE [--max-steps N] [...]

Rows become messages: user = instruction, and "\\n" + input if there is one; assistant = output. The chat
template is applied, the whole text tokenized once, and labels are put on the tokens of the response and its
stop token, not on what the template writes after it. Batches are padded on the right to their longest row.
LoRA on all linear layers without dropout; AdamW without weight decay, gradient norm at most 1.

--eval-ids names a JSON list of row numbers (from 0) to hold out, so that both sides hold out the same.
The evaluation loss is the sum over all labels of those rows divided by their count.
Prints eval_loss_before, eval_loss_after, steps, train_seconds, train_losses, peak_rss_mb and more.
"""

import argparse
import json
import math
import resource
import tempfile
import time

import torch
from peft import LoraConfig, get_peft_model
from pinned import check_versions, load, report, tokenizer_of
from transformers import Trainer, TrainingArguments

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORE_INDEX = -100


def example_of(row, tokenizer, seq_len):
    """Token ids and labels of one row; the tokens that overlap the response or its stop token are labelled."""
    user = "\n".join(part for part in (row["instruction"], row.get("input")) if part)
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": row["output"]}]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(prompt)
    stop = text.rindex(tokenizer.eos_token) + len(tokenizer.eos_token)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if max(start, len(prompt)) < min(end, stop) else IGNORE_INDEX
        for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping)
    ]
    return {"input_ids": encoded.input_ids[:seq_len], "labels": labels[:seq_len]}


def learnable(example):
    """How many labels count: the first token is predicted by nothing."""
    return sum(label != IGNORE_INDEX for label in example["labels"][1:])


def collator(pad_id):
    def collate(examples):
        longest = max(len(example["input_ids"]) for example in examples)

        def padded(values, fill):
            return torch.tensor([row + [fill] * (longest - len(row)) for row in values])

        ids = [example["input_ids"] for example in examples]
        return {
            "input_ids": padded(ids, pad_id),
            "attention_mask": padded([[1] * len(row) for row in ids], 0),
            "labels": padded([example["labels"] for example in examples], IGNORE_INDEX),
        }

    return collate


def evaluate(model, examples, collate, batch_size):
    """Summed loss over all labels, divided by their count."""
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(examples), batch_size):
            batch = collate(examples[start : start + batch_size])
            labels = batch.pop("labels")[:, 1:].flatten()
            logits = model(**batch, use_cache=False).logits[:, :-1].flatten(0, 1)
            # Only the rows that count: the others need not exist in f32 a second time.
            kept = labels != IGNORE_INDEX
            total += torch.nn.functional.cross_entropy(logits[kept], labels[kept], reduction="sum").item()
            count += int(kept.sum())
    return total / count, count


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--eval-ids", required=True, help="JSON list of the held-out row numbers, from 0")
    p.add_argument("--output", help="save the adapter here")
    p.add_argument("--epochs", type=float, default=1.0)
    p.add_argument("--max-steps", type=int, default=-1)
    p.add_argument("--batch-size", type=int, default=8)
    p.add_argument("--grad-accum", type=int, default=1)
    p.add_argument("--seq-len", type=int, default=512)
    p.add_argument("--lr", type=float, default=2e-4)
    p.add_argument("--schedule", choices=["linear", "cosine", "constant"], default="linear")
    p.add_argument("--warmup-steps", type=int, default=0)
    p.add_argument("--r", type=int, default=16)
    p.add_argument("--alpha", type=float, default=32)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--in-order", action="store_true", help="take the rows in the order of the file")
    p.add_argument("--max-eval-rows", type=int, help="evaluate on the first N held-out rows only")
    p.add_argument("--threads", type=int, default=2)
    return p.parse_args()


class InOrder(Trainer):
    """A trainer that does not shuffle."""

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


def main():
    a = arguments()
    check_versions()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    tokenizer = tokenizer_of(a.model)
    with open(a.data, encoding="utf-8") as file:
        rows = json.load(file)
    with open(a.eval_ids, encoding="utf-8") as file:
        held_out = set(json.load(file))
    assert held_out <= set(range(len(rows))), "--eval-ids names rows that are not there"
    examples = [example_of(row, tokenizer, a.seq_len) for row in rows]
    train = [e for i, e in enumerate(examples) if i not in held_out and learnable(e)]
    held = [e for i, e in enumerate(examples) if i in held_out and learnable(e)][: a.max_eval_rows]

    lora = LoraConfig(
        r=a.r, lora_alpha=a.alpha, target_modules=ALL_LINEAR, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    model = get_peft_model(load(a.model), lora)
    collate = collator(tokenizer.pad_token_id)
    before, eval_labels = evaluate(model, held, collate, a.batch_size)
    with tempfile.TemporaryDirectory() as scratch:
        settings = TrainingArguments(
            output_dir=scratch,
            num_train_epochs=a.epochs,
            max_steps=a.max_steps,
            per_device_train_batch_size=a.batch_size,
            gradient_accumulation_steps=a.grad_accum,
            learning_rate=a.lr,
            lr_scheduler_type=a.schedule,
            warmup_steps=a.warmup_steps,
            weight_decay=0.0,
            max_grad_norm=1.0,
            optim="adamw_torch",
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_strategy="no",
            report_to=[],
            seed=a.seed,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
        )
        kind = InOrder if a.in_order else Trainer
        trainer = kind(model=model, args=settings, train_dataset=train, data_collator=collate)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses and all(math.isfinite(loss) for loss in losses)
    after, _ = evaluate(model, held, collate, a.batch_size)
    if a.output:
        model.save_pretrained(a.output, save_embedding_layers=False)
    report(
        peer=f"torch {torch.__version__}",
        eval_loss_before=before,
        eval_loss_after=after,
        steps=trainer.state.global_step,
        train_seconds=round(seconds, 2),
        train_losses=losses,
        train_rows=len(train),
        train_labels=sum(map(learnable, train)),
        eval_rows=len(held),
        eval_labels=eval_labels,
        peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    )


if __name__ == "__main__":
    main()
