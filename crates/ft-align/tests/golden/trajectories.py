"""Trainings of TRL on SmolLM2-135M-Instruct with LoRA: tokens, losses and metrics of every step, into trajectories.json.

trl 1.16.0, torch 2.15.0, transformers 5.23.0, peft 0.21.2. Usage: python trajectories.py MODEL_FOLDER
Takes two minutes on two cores. Other machines write other last digits.

- dpo: DPOTrainer, loss_type sigmoid, 2 pairs a step; dpo_ipo: the same with ipo
- kto: KTOTrainer, 4 answers a step; chosen and rejected answers in turn

Rank 4 on all linear layers, lora_alpha 8. The factors A are not drawn: entry k of module m (in the order of their
names, counted in rows) is sin(0.7 k + m) / 16; B is zero. AdamW, constant rate 1e-3, no decay, norms clipped at 1.
The rows are in the order of the file, twice: 8 steps.
"""

import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import torch

for package, pinned in {"trl": "1.16.0", "torch": "2.15.0", "transformers": "5.23.0", "peft": "0.21.2"}.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden file needs {pinned}"

from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from torch.utils.data import SequentialSampler  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer  # noqa: E402

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PAIRS = [
    ("Name a fruit.", "An apple.", "I do not like questions."),
    ("What is 2 + 3?", "2 + 3 is 5.", "It is 23, because one writes them side by side."),
    ("Say hello.", "Hello! How can I help you?", "No."),
    ("Where is Rome?", "Rome is in Italy.", "Rome is a city."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes.", "Eggs are boiled by boiling."),
    ("Is water wet?", "Yes, in the usual sense of the word.", "Ask somebody else, please."),
    ("Write a word that rhymes with cat.", "Hat.", "Dog."),
    ("Thank you!", "You are welcome.", "You are welcome. You are welcome. You are welcome."),
]


def start(model):
    """The initial factors."""
    names = sorted(name for name, _ in model.named_parameters() if "lora_A" in name)
    tensors = dict(model.named_parameters())
    for m, name in enumerate(names):
        a = tensors[name]
        k = torch.arange(a.numel(), dtype=torch.float64)
        a.data = ((0.7 * k + m).sin() / 16).float().reshape(a.shape)
        assert tensors[name.replace("lora_A", "lora_B")].abs().sum() == 0


def run(trainer_class, config_class, model_folder, dataset, batch, **settings):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, lora_dropout=0.0, task_type="CAUSAL_LM")
    with tempfile.TemporaryDirectory() as folder:
        config = config_class(
            output_dir=folder, use_cpu=True, bf16=False, seed=0, report_to="none", disable_tqdm=True, logging_steps=1,
            logging_strategy="steps", save_strategy="no", num_train_epochs=2, learning_rate=1e-3,
            lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, gradient_checkpointing=False,
            per_device_train_batch_size=batch, gradient_accumulation_steps=1, max_length=512, beta=0.1, **settings,
        )
        trainer = trainer_class(
            model=model, args=config, processing_class=tokenizer, peft_config=lora, train_dataset=dataset,
        )
        trainer._get_train_sampler = lambda *a, **k: SequentialSampler(trainer.train_dataset)
        start(trainer.model)
        batches, collate = [], trainer.data_collator

        def kept(rows):
            found = collate(rows)
            batches.append({k: v.tolist() for k, v in found.items() if torch.is_tensor(v)})
            return found

        trainer.data_collator = kept
        trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == 8, len(steps)
    return steps, batches, trainer


def sequences(batch, ids, mask, completion):
    """Rows without padding: tokens, and the number of prompt tokens."""
    rows = []
    for tokens, real, counted in zip(batch[ids], batch[mask], batch[completion]):
        length = sum(real)
        rows.append({"ids": tokens[:length], "prompt": counted.index(1)})
        assert all(counted[rows[-1]["prompt"] : length]) and real[:length] == [1] * length
    return rows


def main():
    folder = sys.argv[1]
    torch.set_num_threads(2)
    message = lambda role, text: [{"role": role, "content": text}]
    pairs = Dataset.from_list([
        {"prompt": message("user", p), "chosen": message("assistant", w), "rejected": message("assistant", l)}
        for p, w, l in PAIRS
    ])
    golden = {}
    keys = ["loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
            "logps/rejected"]
    for name, loss in (("dpo", "sigmoid"), ("dpo_ipo", "ipo")):
        steps, batches, _ = run(DPOTrainer, DPOConfig, folder, pairs, 2, loss_type=loss)
        rows = [sequences(b, "input_ids", "attention_mask", "completion_mask") for b in batches[:4]]
        golden[name] = {
            # The batch is the chosen rows, then the rejected ones.
            "pairs": [[r[i], r[i + 2]] for r in rows for i in range(2)],
            "steps": [{k: s[k] for k in keys} for s in steps],
        }
    assert golden["dpo"]["pairs"] == golden["dpo_ipo"].pop("pairs")
    answers = Dataset.from_list([
        {"prompt": message("user", p), "completion": message("assistant", text), "label": label}
        for p, w, l in PAIRS for text, label in ((w, True), (l, False))
    ])
    steps, batches, _ = run(KTOTrainer, KTOConfig, folder, answers, 4)
    print({k: (len(v), len(v[0]) if isinstance(v[0], list) else None) for k, v in batches[0].items()})
    print(steps[0])
    rows = [sequences(b, "input_ids", "attention_mask", "completion_mask") for b in batches[:4]]
    keys = ["loss", "rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected", "kl"]
    golden["kto"] = {
        "rows": [row for r in rows for row in r[:4]],
        "steps": [{k: s[k] for k in keys if k in s} for s in steps],
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
