"""Sizes of the models of configs/model, as their config.json files on the hub give them."""

import transformers

# preset -> (config class, hidden, intermediate, layers, heads, key-value heads,
# vocabulary, tied, further keys)
SHAPES = {
    "gemma_2_2b": ("Gemma2Config", 2304, 9216, 26, 8, 4, 256000, True, {"head_dim": 256}),
    "gemma_2_9b": ("Gemma2Config", 3584, 14336, 42, 16, 8, 256000, True, {"head_dim": 256}),
    "gemma_3_1b": ("Gemma3TextConfig", 1152, 6912, 26, 4, 1, 262144, True, {"head_dim": 256}),
    "gemma_3_4b": ("Gemma3TextConfig", 2560, 10240, 34, 8, 4, 262208, True, {"head_dim": 256}),
    "llama_2_7b_chat": ("LlamaConfig", 4096, 11008, 32, 32, 32, 32000, False, {}),
    "llama_3_1_8b": ("LlamaConfig", 4096, 14336, 32, 32, 8, 128256, False, {}),
    "llama_3_2_1b": ("LlamaConfig", 2048, 8192, 16, 32, 8, 128256, True, {"head_dim": 64}),
    "llama_3_2_3b": ("LlamaConfig", 3072, 8192, 28, 24, 8, 128256, True, {"head_dim": 128}),
    "mistral_7b": ("MistralConfig", 4096, 14336, 32, 32, 8, 32768, False, {"head_dim": 128}),
    "phi_1_5": ("PhiConfig", 2048, 8192, 24, 32, 32, 51200, False, {}),
    "phi_3_5_mini": ("Phi3Config", 3072, 8192, 32, 32, 32, 32064, False, {}),
    "qwen_2_5_0_5b": ("Qwen2Config", 896, 4864, 24, 14, 2, 151936, True, {}),
    "qwen_2_5_1_5b": ("Qwen2Config", 1536, 8960, 28, 12, 2, 151936, True, {}),
    "qwen_2_5_3b": ("Qwen2Config", 2048, 11008, 36, 16, 2, 151936, True, {}),
    "qwen_2_5_7b": ("Qwen2Config", 3584, 18944, 28, 28, 4, 152064, False, {}),
    "qwen_3_0_6b": ("Qwen3Config", 1024, 3072, 28, 16, 8, 151936, True, {"head_dim": 128}),
    "qwen_3_1_7b": ("Qwen3Config", 2048, 6144, 28, 16, 8, 151936, True, {"head_dim": 128}),
    "qwen_3_4b": ("Qwen3Config", 2560, 9728, 36, 32, 8, 151936, True, {"head_dim": 128}),
    "qwen_3_8b": ("Qwen3Config", 4096, 12288, 36, 32, 8, 151936, False, {"head_dim": 128}),
    "smollm2_135m": ("LlamaConfig", 576, 1536, 30, 9, 3, 49152, True, {}),
    "smollm2_360m": ("LlamaConfig", 960, 2560, 32, 15, 5, 49152, True, {}),
    "smollm2_1_7b": ("LlamaConfig", 2048, 8192, 24, 32, 32, 49152, True, {}),
}


def make_shape(preset: str) -> transformers.PretrainedConfig:
    """Return the configuration of a published model's shape."""
    name, hidden, intermediate, layers, heads, kv_heads, vocabulary, tied, more = SHAPES[preset]
    return getattr(transformers, name)(
        hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv_heads, vocab_size=vocabulary,
        tie_word_embeddings=tied, pad_token_id=0, **more,
    )  # fmt: skip
