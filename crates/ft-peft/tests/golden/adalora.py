"""A training with AdaLoRA as PEFT does it: losses, importances, masks, and the adapter at the end.

torch 2.15.0, transformers 5.23.0, peft 0.21.2, safetensors 0.8.0. Run from anywhere: python adalora.py
Deterministic: the same versions write the same bytes.

The base is peft_llama/. In adalora/:

- start/: the adapter before the first step, in PEFT's files
- end/: the same after the last one, trimmed, with its rank_pattern
- golden.safetensors: input_ids [steps, 2, 12]; losses [steps], with the orthogonality; masks [steps, ranks]: whether each
  singular value is not zero after a step, layers in order of their names; sensitivity.<key> and uncertainty.<key>
  after the last step before the last allocation; logits [2, 12, vocab] at the end, on the ids of the first step

Steps count from 1, so that the last allocation is made whatever tfinal is. AdamW, rate 0.02, without decay.
"""

import shutil

import torch
from adapters import VOCAB
from golden_files import HERE, check_versions, load_base, save_adapter
from peft import AdaLoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file

check_versions()

STEPS, FINAL = 9, 2
OUT = HERE / "adalora"


def main():
    generator = torch.Generator().manual_seed(7)
    torch.manual_seed(7)
    shutil.rmtree(OUT, ignore_errors=True)
    config = AdaLoraConfig(
        init_r=4, target_r=2, tinit=2, tfinal=FINAL, deltaT=2, total_step=STEPS, lora_alpha=6, beta1=0.8, beta2=0.9,
        orth_reg_weight=0.3, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM",
    )
    model = get_peft_model(load_base(HERE / "peft_llama"), config)
    save_adapter(model, OUT / "start", "peft_llama")
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02, weight_decay=0.0)
    input_ids = torch.randint(0, VOCAB, (STEPS, 2, 12), generator=generator)
    golden = {"input_ids": input_ids}
    losses, masks = [], []
    allocator = model.base_model.rankallocator
    for step, ids in enumerate(input_ids, 1):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
        values = sorted((n, p) for n, p in model.named_parameters() if "lora_E" in n)
        masks.append(torch.cat([(p != 0).flatten() for _, p in values]).float())
        if step == STEPS - FINAL - 1:
            for kind, averages in (("sensitivity", allocator.exp_avg_ipt), ("uncertainty", allocator.exp_avg_unc)):
                for name, value in averages.items():
                    golden[f"{kind}.{name.replace('.default', '')}"] = value.clone()
    assert 0 < masks[-1].sum() < len(masks[-1]), "some ranks are removed"
    golden["losses"] = torch.tensor(losses)
    golden["masks"] = torch.stack(masks)
    save_adapter(model, OUT / "end", "peft_llama")
    loaded = PeftModel.from_pretrained(load_base(HERE / "peft_llama"), OUT / "end").eval()
    with torch.no_grad():
        golden["logits"] = loaded(input_ids=input_ids[0]).logits
        model.eval()
        difference = (golden["logits"] - model(input_ids=input_ids[0]).logits).abs().max()
    assert difference < 1e-5, difference
    save_file({name: value.contiguous() for name, value in golden.items()}, OUT / "golden.safetensors")


if __name__ == "__main__":
    main()
