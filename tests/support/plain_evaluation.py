"""Losses and greedy answers, one sample at a time, by the plain loops that tif does not use."""

import torch

TEMPLATE = "Question: {prompt}\nAnswer:"


def plain_loss(model, tokenizer, sample, answer):
    """Return mean negative log-likelihood and number of the answer's tokens and the end token."""
    before = f"Question: {sample.prompt}\nAnswer: "
    ids = [*tokenizer(before + answer)["input_ids"], tokenizer.eos_token_id]
    first = next(t for t in range(len(ids)) if len(tokenizer.decode(ids[: t + 1])) > len(before))
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), -1)
    picked = [logprobs[t - 1, ids[t]].item() for t in range(first, len(ids))]
    return -sum(picked) / len(picked), len(picked)


def plain_greedy(model, prompt, eos_id, max_new_tokens):
    """Return the new tokens before the end token, decoded greedily by transformers itself."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=eos_id,
        pad_token_id=0,
    )
    new = output[0, len(prompt) :].tolist()
    return new[: new.index(eos_id)] if eos_id in new else new
