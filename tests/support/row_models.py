"""Tiny causal LMs by how they keep packed samples apart, for tests of rows."""

import torch
import transformers

from tests.support import tiny_models
from tests.support.tiny_models import COMMON, LLAMA_LIKE
from tif.scoring.attention import use_sample_by_sample_attention

WINDOW = 26  # longer than the probe's text where no window matters
MOE = {"num_local_experts": 4}
SMALL_STATE = {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
OPT = {"hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
LOCAL_LAYERS = {"attention_types": [[["global", "local"], 1]]}

CONFIGS = {
    # position_ids of a packed row never reach its mask: samples see each other, unless attention
    # runs sample by sample
    "opt": lambda: transformers.OPTConfig(
        **COMMON | OPT, max_position_embeddings=128, word_embed_proj_dim=16
    ),
    # ALiBi and a mask by the place in the row
    "bloom": lambda: transformers.BloomConfig(**COMMON, hidden_size=16, n_layer=2, n_head=2),
    "mpt": lambda: transformers.MptConfig(
        **COMMON, d_model=16, n_layers=2, n_heads=2, max_seq_len=128
    ),
    "falcon-alibi": lambda: transformers.FalconConfig(
        **COMMON, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, alibi=True
    ),
    # a state that runs through the row
    "mamba": lambda: transformers.MambaConfig(**COMMON | SMALL_STATE),
    "rwkv": lambda: transformers.RwkvConfig(
        **COMMON, hidden_size=16, num_hidden_layers=2, attention_hidden_size=16, context_length=64
    ),
    "recurrent_gemma": lambda: transformers.RecurrentGemmaConfig(
        **LLAMA_LIKE, attention_window_size=WINDOW, lru_width=16
    ),
    # a mask of its own, for rows of 128 tokens
    "gpt_neo": lambda: transformers.GPTNeoConfig(
        **COMMON | LOCAL_LAYERS, hidden_size=16, num_layers=2, num_heads=2, window_size=WINDOW,
        max_position_embeddings=128,
    ),
    "mixtral": lambda: transformers.MixtralConfig(**LLAMA_LIKE | MOE),
    "llama4": lambda: transformers.Llama4TextConfig(
        **LLAMA_LIKE | {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 24},
        attention_chunk_size=WINDOW,
    ),
    "mistral": lambda: transformers.MistralConfig(**LLAMA_LIKE, sliding_window=WINDOW),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **LLAMA_LIKE, head_dim=8, sliding_window=WINDOW, query_pre_attn_scalar=8
    ),
    **{kind: tiny_models.CONFIGS[kind] for kind in ("llama", "gpt2", "gemma2", "gpt-neox", "phi")},
}  # fmt: skip


def model(kind, dtype=torch.float32):
    """Return a model with wide random weights, as `tif.models.load` prepares it."""
    net = transformers.AutoModelForCausalLM.from_config(CONFIGS[kind]())
    net = tiny_models.spread(net).to(dtype)
    use_sample_by_sample_attention(net)
    return net
