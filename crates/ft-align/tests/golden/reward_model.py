"""Eight steps of TRL's RewardTrainer with LoRA on a tiny random Llama.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, trl 1.16.0, safetensors 0.8.0. Run from anywhere: python reward_model.py
Deterministic: the same versions write the same bytes. (Rows that are tokenized already need no text.)

reward_model/ holds the base with its random head, adapter/ as it is before the first step (r 4, alpha 8, all linear layers,
modules_to_save score, both factors random), and trajectory.json: the settings; pairs of chosen and rejected ids, in the
order of training; loss and metrics of each step; the scores of all rows after the last step.
"""

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoModelForSequenceClassification, LlamaConfig, PreTrainedTokenizerFast
from trl import RewardConfig, RewardTrainer

PINNED = {"torch": "2.15.0", "transformers": "5.23.0", "peft": "0.21.2", "trl": "1.16.0", "safetensors": "0.8.0"}
for package, pinned in PINNED.items():
    found = importlib.metadata.version(package).split("+")[0]
    assert found == pinned, f"{package} {found} is installed, the golden files need {pinned}"

FOLDER = Path(__file__).parent / "reward_model"
VOCAB, PAIRS, BATCH, EPOCHS = 61, 8, 4, 4
SETTINGS = {"batch_size": BATCH, "epochs": EPOCHS, "learning_rate": 0.01, "center_rewards_coefficient": 0.01}
METRICS = ["accuracy", "margin", "min_reward", "mean_reward", "max_reward"]
LLAMA = LlamaConfig(
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=32,
    num_labels=1,
    pad_token_id=0,
)


class Trainer(RewardTrainer):
    """Keeps the order of the rows and the losses without rounding."""

    losses = []

    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        self.losses.append((loss[0] if isinstance(loss, tuple) else loss).item())
        return loss


def random_pairs(generator):
    """Answers end with tokens below 30 if they are chosen, and above if they are rejected."""

    def ids(low, high, most):
        count = torch.randint(1, most + 1, (1,), generator=generator).item()
        return torch.randint(low, high, (count,), generator=generator).tolist()

    pairs = []
    for _ in range(PAIRS):
        prompt = ids(2, VOCAB, 6)
        pairs.append([prompt + ids(2, 30, 5), prompt + ids(30, VOCAB, 5)])
    return pairs


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(LLAMA, attn_implementation="eager")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.2 * noise)
    shutil.rmtree(FOLDER, ignore_errors=True)
    model.save_pretrained(FOLDER)

    pairs = random_pairs(generator)
    rows = [{"chosen_ids": chosen, "rejected_ids": rejected} for chosen, rejected in pairs]
    vocabulary = {"<pad>": 0, "<eos>": 1} | {str(i): i for i in range(2, VOCAB)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, unk_token="<eos>")), pad_token="<pad>", eos_token="<eos>"
    )
    lora = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules="all-linear",
        modules_to_save=["score"],
        task_type="SEQ_CLS",
        init_lora_weights=False,
    )
    with tempfile.TemporaryDirectory() as output:
        args = RewardConfig(
            output,
            per_device_train_batch_size=BATCH,
            learning_rate=SETTINGS["learning_rate"],
            center_rewards_coefficient=SETTINGS["center_rewards_coefficient"],
            num_train_epochs=EPOCHS,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model, args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora
        )
        trainer.model.peft_config["default"].base_model_name_or_path = "reward_model"
        trainer.model.save_pretrained(FOLDER / "adapter", save_embedding_layers=False)
        trainer.train()

    logs = [log for log in trainer.state.log_history if "margin" in log]
    steps = [{"loss": loss} | {name: log[name] for name in METRICS} for loss, log in zip(trainer.losses, logs, strict=True)]
    assert len(steps) == EPOCHS * PAIRS // BATCH
    trained = trainer.model.eval()
    with torch.no_grad():
        scores = [trained(input_ids=torch.tensor([row])).logits.item() for pair in pairs for row in pair]
    (FOLDER / "adapter" / "README.md").unlink(missing_ok=True)
    # PEFT writes a set, in an order that changes from run to run.
    path = FOLDER / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())
    config["target_modules"].sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    trajectory = SETTINGS | {"pairs": pairs, "steps": steps, "scores": scores}
    (FOLDER / "trajectory.json").write_text(json.dumps(trajectory) + "\n")
    for step in steps:
        print({name: round(value, 4) for name, value in step.items()})


if __name__ == "__main__":
    main()
