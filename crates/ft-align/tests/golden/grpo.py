"""Trainings of TRL's GRPO on SmolLM2-135M-Instruct on fixed completions: losses and metrics of every step, into grpo.json.

The versions, the model, the initial factors and the optimizer are those of trajectories.py. Usage: python grpo.py MODEL_FOLDER

Each set has 2 prompts with 2 completions, the chosen and the rejected answer of trajectories.py, with rewards 1 and 0.25,
and serves 2 updates: 8 steps. Temperature 0.9.

- grpo: loss_type grpo, beta 0.1
- dapo: loss_type dapo, beta 0, epsilon_high 0.28
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trajectories import LINEAR, PAIRS, start
from trl import GRPOConfig, GRPOTrainer


class Fixed(GRPOTrainer):
    """Answers with what is given."""

    def _generate_single_turn(self, prompt_ids, *args, **kwargs):
        completions = []
        for row, ids in enumerate(prompt_ids):
            pair = next(i for i, known in enumerate(self.prompts) if known == list(ids))
            completions.append(list(self.answers[pair][row % 2]))
        return completions, None


def reward(completions, **_):
    chosen = {pair[1] for pair in PAIRS}
    return [1.0 if c[0]["content"] in chosen else 0.25 for c in completions]


def run(folder, **settings):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=LINEAR, lora_dropout=0.0, task_type="CAUSAL_LM")
    message = lambda role, text: [{"role": role, "content": text}]
    ids = lambda text: tokenizer(text + "<|im_end|>", add_special_tokens=False)["input_ids"]
    prompts = [
        tokenizer.apply_chat_template(message("user", p), add_generation_prompt=True, tokenize=True, return_dict=True)
        for p, _, _ in PAIRS
    ]
    Fixed.prompts = [list(p["input_ids"]) for p in prompts]
    Fixed.answers = [(ids(w), ids(l)) for _, w, l in PAIRS]
    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            output_dir=output, use_cpu=True, bf16=False, seed=0, report_to="none", disable_tqdm=True, logging_steps=1,
            logging_strategy="steps", save_strategy="no", num_train_epochs=1, learning_rate=1e-3,
            lr_scheduler_type="constant", weight_decay=0.0, max_grad_norm=1.0, gradient_checkpointing=False,
            per_device_train_batch_size=4, gradient_accumulation_steps=1, num_generations=2, num_iterations=2,
            max_completion_length=64, temperature=0.9, shuffle_dataset=False, **settings,
        )
        trainer = Fixed(
            model=model, reward_funcs=reward, args=config, processing_class=tokenizer, peft_config=lora,
            train_dataset=Dataset.from_list([{"prompt": message("user", p)} for p, _, _ in PAIRS]),
        )
        start(trainer.model)
        trainer.train()
    steps = [log for log in trainer.state.log_history if "loss" in log]
    assert len(steps) == 8, len(steps)
    keys = ["loss", "kl", "entropy", "clip_ratio/region_mean", "reward", "reward_std", "completions/mean_length"]
    return [{k: s[k] for k in keys if k in s} for s in steps]


def main():
    torch.set_num_threads(2)
    folder = sys.argv[1]
    golden = {
        "grpo": run(folder, loss_type="grpo", beta=0.1),
        "dapo": run(folder, loss_type="dapo", beta=0.0, epsilon_high=0.28),
        "prompts": Fixed.prompts,
        "answers": Fixed.answers,
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
