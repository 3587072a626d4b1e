"""python -m tests.identifiers.masked_lm_for_table FOLDER TOFU [epochs]: the masked LM of the README's identifier table.

For machines without a model hub: a BERT of 4 layers, from scratch, on the answers of TOFU's retain90 and on answers
about other invented authors than the quickstart's. It has seen how such answers are worded and none of the forget
sets. With a hub, distilbert-base-uncased is what the paper takes.
"""

import random
import sys

import torch
import transformers
from tokenizers import BertWordPieceTokenizer

from tif.data.fictitious import fictitious
from tif.data.tofu import tofu
from tif.terminal import track


def texts(folder):
    """Question and answer of each retain sample, in one line."""
    invented = fictitious(authors=40, questions_per_author=20, forget_share=0.1, seed=1)
    return [f"{s.prompt} {s.answer}" for s in (*tofu(folder, "forget10").retain, *invented.retain)]


def main(folder, data, epochs="10"):
    lines, draw = texts(data), random.Random(0)
    made = BertWordPieceTokenizer()
    made.train_from_iterator(lines, vocab_size=6000, show_progress=False)
    tokenizer = transformers.BertTokenizerFast(tokenizer_object=made._tokenizer, model_max_length=512)
    torch.manual_seed(0)
    model = transformers.BertForMaskedLM(
        transformers.BertConfig(
            vocab_size=len(tokenizer), hidden_size=256, intermediate_size=1024, num_hidden_layers=4,
            num_attention_heads=4,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 5e-4)
    ids = sorted(tokenizer(lines, truncation=True, max_length=160)["input_ids"], key=len)
    batches = [ids[at : at + 32] for at in range(0, len(ids), 32)]
    steps = int(epochs) * len(batches)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-4, steps)
    for epoch in range(int(epochs)):
        draw.shuffle(batches)
        total = 0.0
        for batch in track(batches, f"epoch {epoch + 1}"):
            padded = tokenizer.pad({"input_ids": batch}, return_tensors="pt")
            chosen = torch.rand(padded["input_ids"].shape) < 0.15
            chosen &= padded["input_ids"] > 4  # [PAD] [UNK] [CLS] [SEP] [MASK]
            labels = padded["input_ids"].masked_fill(~chosen, -100)
            padded["input_ids"] = padded["input_ids"].masked_fill(chosen, tokenizer.mask_token_id)
            loss = model(**padded, labels=labels).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            total += loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(batches):.3f}", flush=True)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(*sys.argv[1:])
