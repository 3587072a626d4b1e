"""Tiny causal LMs, token sequences made by hand, and scores by a plain loop."""

import torch
import transformers

from tif.data.encoding import Encoded, collate
from tif.scoring.token_scores import TokenScores

VOCAB = 61
COMMON = {"vocab_size": VOCAB, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
LLAMA_LIKE = COMMON | {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
CAPS = {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 2.0}

CONFIGS = {
    "llama": lambda **keys: transformers.LlamaConfig(
        **LLAMA_LIKE | {"tie_word_embeddings": False} | keys
    ),
    "llama-tied": lambda **keys: transformers.LlamaConfig(
        **LLAMA_LIKE | {"tie_word_embeddings": True} | keys
    ),
    "gpt2": lambda **keys: transformers.GPT2Config(
        **COMMON | NO_DROPOUT | {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128} | keys
    ),
    "gemma2": lambda **keys: transformers.Gemma2Config(
        **LLAMA_LIKE
        | CAPS
        | {"head_dim": 8, "sliding_window": 64, "query_pre_attn_scalar": 8}
        | keys
    ),
    # A window shorter than the texts: the first layer forgets their beginning.
    "gemma2-window": lambda **keys: transformers.Gemma2Config(
        **LLAMA_LIKE
        | CAPS
        | {"head_dim": 8, "sliding_window": 4, "query_pre_attn_scalar": 8}
        | keys
    ),
    "gpt-neox": lambda **keys: transformers.GPTNeoXConfig(
        **{k: v for k, v in LLAMA_LIKE.items() if k != "num_key_value_heads"}
        | {"rotary_pct": 0.5}
        | keys
    ),
    "qwen3": lambda **keys: transformers.Qwen3Config(**LLAMA_LIKE | {"head_dim": 8} | keys),
    "phi": lambda **keys: transformers.PhiConfig(
        **LLAMA_LIKE | {"num_key_value_heads": 2, "resid_pdrop": 0.0} | keys
    ),
}


def model(kind="llama", seed=0, **keys):
    """Return a causal LM in eval mode with random weights, see `spread`."""
    return spread(transformers.AutoModelForCausalLM.from_config(CONFIGS[kind](**keys)), seed)


def spread(net, seed=0):
    """Draw weights so wide that a wrong position or a leak between samples shows."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            weight.copy_(
                torch.randn(weight.shape, generator=generator) * (0.4 if weight.dim() > 1 else 0.2)
            )
            if weight.dim() == 1:
                weight += 0.5
    return net.eval()


def encoded(name, labels, seed=0):
    """Return random ids; `labels` has a letter a token: p = prompt, u = unwanted, g = general."""
    generator = torch.Generator().manual_seed(seed + sum(map(ord, name + labels)))
    ids = torch.randint(1, VOCAB, (len(labels),), generator=generator).tolist()
    return Encoded(name, ids, [c == "u" for c in labels], [c == "g" for c in labels])


def batch_of(*items, pad_id=0):
    """Return encoded samples as a batch."""
    return collate(items, range(len(items)), pad_id)


# Lengths 7, 4, 9, 5; "c" has two stretches of unwanted words, "d" none, "b" one prompt token.
ITEMS = (
    encoded("a", "pppuugg"),
    encoded("b", "pugg"),
    encoded("c", "ppugguugg"),
    encoded("d", "pppgg"),
)


def plain_scores(net, items):
    """Return token scores by the model's own forward, one sample at a time."""
    width = max(len(e.input_ids) for e in items) - 1
    logit, logprob, mean = (torch.zeros(len(items), width) for _ in range(3))
    for row, e in enumerate(items):
        logits = net(input_ids=torch.tensor([e.input_ids])).logits[0].float()
        logprobs = torch.log_softmax(logits, -1)
        for t in range(1, len(e.input_ids)):
            if e.uw[t] or e.gw[t]:
                logit[row, t - 1] = logits[t - 1, e.input_ids[t]]
                logprob[row, t - 1] = logprobs[t - 1, e.input_ids[t]]
                mean[row, t - 1] = logits[t - 1].mean()
    return TokenScores(logit, logprob, mean)


def shuffled(order, pad_id=0):
    """Return the samples of ITEMS in this order; `index` says which is which."""
    return collate([ITEMS[i] for i in order], order, pad_id)
