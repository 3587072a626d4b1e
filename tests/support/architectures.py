"""Every causal LM family of transformers that can be built tiny, from its own configuration.

A family's configuration is that of its class with the known sizes shrunk (`SIZES`), one layer of
each kind that its layer lists name, and the few keys that this leaves wrong (`OPTIONS`). So a
window is 8 tokens, an expert layer has 4 experts, and a hybrid has each of its layers.

`FAMILIES` names them and variants of them, `build` makes one; `NOT_BUILT` says what cannot be made
and why. Seen with transformers 5.25.
"""

from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support import tiny_models

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10000.0}

FACTORS = {"short_factor": [1.0, 1.2], "long_factor": [2.0, 5.0]}


def scaled_rope(kind: str, **keys: Any) -> dict[str, Any]:
    """Return the option of a rotary embedding that is scaled by 4 beyond 16 positions."""
    rope = {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0}
    return {"rope_parameters": rope | {"original_max_position_embeddings": 16} | keys}


# Keys that the shrinking of sizes leaves wrong or out.
OPTIONS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 100, "global_config": {"hidden_size": 32, "head_dim": 8},
        "decoder_config": {"hidden_size_global": 32}, "encoder_config": {"hidden_size_global": 32},
    },
    "cohere_compass_text": {"rope_parameters": {FULL: PLAIN_ROPE}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 2},
    "deepseek_v3": {"first_k_dense_replace": 1},
    "dory": {
        "num_hidden_layers": 4, "layer_types": [SLIDING, FULL] * 2, "n_input_layers": 1,
        "n_output_layers": 1, "n_recurrent_layers": 2,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
              "layer_types": [FULL, SLIDING]},
    "dots3_note_text": {
        "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_q_lora_rank": 8,
        "swa_kv_lora_rank": 8, "swa_head_dim": 8, "swa_qk_nope_head_dim": 4, "swa_v_head_dim": 4,
        "head_dim": 8,
    },
    "falcon_h1": {"mamba_d_ssm": 32},
    "gemma3n_text": {
        "num_hidden_layers": 4, "layer_types": [SLIDING, FULL] * 2, "num_kv_shared_layers": 2,
        "intermediate_size": [24] * 4, "activation_sparsity_pattern": [0.5, 0.0, 0.0, 0.0],
    },
    "gemma4_text": {"per_layer_config": {1: {"head_dim": 8}}},
    "granitemoehybrid": {"layer_types": [LINEAR, FULL]},
    "hunyuan_v1_dense": {"head_dim": 4},
    "hunyuan_v1_moe": {"head_dim": 4, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kolibri1_1": {"head_dim": 16, "index_num_heads": 1},
    "laguna": {"layer_types": [FULL, SLIDING]},
    "lfm2": {"num_hidden_layers": 2, "layer_types": ["conv", FULL], "full_attn_idxs": None},
    "lfm2_moe": {"layer_types": ["conv", FULL, "conv"], "num_hidden_layers": 3,
                 "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "n_groups": 1},
    "mellum": {"layer_types": [FULL, SLIDING]},
    "ministral": {"head_dim": 4, "layer_types": [SLIDING, FULL]},
    "mpt": {"attn_config": {"attn_pdrop": 0}},
    "nemotron": {"num_key_value_heads": 2},
    "phi4_multimodal": {
        "audio_config": {"num_blocks": 1, "ext_pw_out_channel": 16,
                         "depthwise_separable_out_channel": 16, "nemo_conv_channels": 16,
                         "bias_max_distance": 8, "num_attention_heads": 2},
    },
    "qwen4_exp_text": {
        "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
        "indexer_compress_ratio": 2, "ngram_vocab_size_base": 100, "hc_lowrank": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3},
    "reformer": {"axial_pos_embds": False},
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "pronunciation_vocab_size": 70,
                 "shape_vocab_size": 70},
    "xlm": {"causal": True},
    "xmod": {"default_language": "en_XX"},
    "zamba": {
        "layers_block_type": [LINEAR, LINEAR, "hybrid", "hybrid"], "num_hidden_layers": 4,
        "attention_hidden_size": 32, "attention_head_dim": 8, "num_key_value_heads": 4,
        "mamba_dt_rank": 4,
    },
    "zamba2": {
        "layers_block_type": [LINEAR, "hybrid"], "num_hidden_layers": 2, "num_key_value_heads": 4,
        "attention_hidden_size": 32, "attention_head_dim": 8,
    },
    "zaya": {"num_experts_per_tok": 1},
}  # fmt: skip
# Encoders: a causal LM only with `is_decoder`.
ENCODERS = [
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie",
    "megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
    "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
]  # fmt: skip
OPTIONS |= {name: {"is_decoder": True} | OPTIONS.get(name, {}) for name in ENCODERS}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, RoPE linear": ("llama", scaled_rope("linear")),
    "llama, RoPE dynamic": ("llama", {
        "rope_parameters": PLAIN_ROPE | {"rope_type": "dynamic", "factor": 4.0}}),
    "llama, RoPE dynamic, long texts": ("llama", {
        "rope_parameters": PLAIN_ROPE | {"rope_type": "dynamic", "factor": 4.0},
        "max_position_embeddings": 16}),
    "llama, RoPE yarn": ("llama", scaled_rope("yarn")),
    "llama, RoPE longrope": ("llama", scaled_rope(
        "longrope", **FACTORS, original_max_position_embeddings=64)),
    "llama, RoPE longrope, long texts": ("llama", scaled_rope("longrope", **FACTORS)),
    "llama, RoPE llama3": ("llama", scaled_rope(
        "llama3", low_freq_factor=1.0, high_freq_factor=4.0)),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, no end or padding token": ("llama", {
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}),
    "mistral, no window": ("mistral", {"sliding_window": None}),
    "qwen2, windows": ("qwen2", {"use_sliding_window": True, "layer_types": [FULL, SLIDING]}),
    "qwen3, windows": ("qwen3", {"use_sliding_window": True, "layer_types": [FULL, SLIDING]}),
    "falcon, ALiBi": ("falcon", {"alibi": True, "parallel_attn": False, "bias": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True}),
    "gpt_bigcode, all heads": ("gpt_bigcode", {"multi_query": False}),
    "opt, norm after the block": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 8}),
    "stablelm, parallel": ("stablelm", {
        "use_parallel_residual": True, "qk_layernorm": True, "use_qkv_bias": True}),
    "deepseek_v3, RoPE yarn": ("deepseek_v3", scaled_rope("yarn", mscale=1.0, mscale_all_dim=1.0)),
    "gemma3_text, RoPE linear": ("gemma3_text", {"rope_parameters": {
        FULL: scaled_rope("linear")["rope_parameters"], SLIDING: PLAIN_ROPE}}),
    "phi3, RoPE longrope": ("phi3", {"original_max_position_embeddings": 64} | scaled_rope(
        "longrope", **FACTORS, original_max_position_embeddings=64)),
    "phi3, RoPE longrope, long texts": ("phi3", {
        "original_max_position_embeddings": 16} | scaled_rope("longrope", **FACTORS)),
    "gpt2, long texts": ("gpt2", {"n_positions": 16}),
    "bert, both directions": ("bert", {"is_decoder": False}),
    "gemma3_text, both directions": ("gemma3_text", {"use_bidirectional_attention": True}),
    "gemma4_text, experts": ("gemma4_text", {
        "enable_moe_block": True, "num_experts": 4, "top_k_experts": 2,
        "moe_intermediate_size": 24}),
    "gemma4_text, shared keys": ("gemma4_text", {
        "num_hidden_layers": 4, "layer_types": [SLIDING, FULL] * 2, "num_kv_shared_layers": 2,
        "per_layer_config": {1: {"head_dim": 8}, 3: {"head_dim": 8}}}),
    "granitemoehybrid, attention only": ("granitemoehybrid", {"layer_types": [FULL, FULL]}),
}  # fmt: skip
NOT_BUILT = {
    "gemma3n": "its vision tower needs the package timm; gemma3n_text is built",
    "gemma4_assistant": "a draft head: its forward needs the hidden states of another model",
    "gemma4_unified_assistant": (
        "a draft head: its forward needs the hidden states of another model"
    ),
    "musicgen": "reads codes of sounds, no text",
    "musicgen_melody": "reads codes of sounds, no text",
}
FAMILIES = sorted({*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *VARIANTS} - NOT_BUILT.keys())

OPTIONS["dots3_note"] = {
    "text_config": OPTIONS["dots3_note_text"],
    "vision_config": {"adapter_in_dim": 16, "adapter_out_dim": 16},
    "audio_config": {"adapter_out_dim": 16, "adapter_input_size": 16},
}
OPTIONS["qwen4_exp"] = {"text_config": OPTIONS["qwen4_exp_text"]}
LIST_OF_LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "decoder_layers",
    "depth",
)
SIZES_BY_VALUE = {
    tiny_models.VOCAB: "vocab_size vocab_size_per_layer_input unpadded_vocab_size",
    128: "max_position_embeddings n_positions n_ctx max_seq_len context_length model_max_length"
    " original_max_position_embeddings max_source_positions max_target_positions",
    32: "image_size",
    24: "intermediate_size intermediate_size_mlp moe_intermediate_size ffn_dim n_inner d_ff "
    "ffn_hidden_size shared_expert_intermediate_size shared_intermediate_size "
    "expert_ffn_hidden_size decoder_ffn_dim dense_intermediate_size prefix_dense_intermediate_size "
    "shared_experts_intermediate_size dff",
    16: "index_n_heads hidden_size n_embd d_model dim embedding_dim embed_dim "
    "attention_hidden_size emb_dim lru_width word_embed_proj_dim projection_dim vision_output_dim "
    "text_hidden_size input_embedding_size",
    8: "kv_lora_rank q_lora_rank mamba_n_heads mamba_num_heads index_head_dim patch_size index_topk"
    " sliding_window sliding_window_size attention_window_size attention_chunk_size window_size"
    " mamba_chunk_size chunk_size rel_extent ngram_size_table",
    4: "num_attention_heads n_head n_heads attention_heads num_heads decoder_attention_heads "
    "swa_num_attention_heads head_dim attention_head_dim swa_head_dim qk_rope_head_dim "
    "qk_nope_head_dim v_head_dim kv_channels linear_key_head_dim linear_value_head_dim "
    "mamba_d_head mamba_head_dim linear_head_dim state_size mamba_d_state ssm_state_size "
    "rotary_dim d_rel laurel_rank hidden_size_per_layer_input num_experts num_local_experts "
    "n_routed_experts moe_num_experts d_kv router_hidden_size",
    2: "num_key_value_heads num_kv_heads n_kv_heads num_query_groups swa_num_key_value_heads"
    " num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts linear_num_key_heads"
    " linear_num_value_heads linear_num_heads n_mamba_heads",
    1: ("n_shared_experts num_shared_experts moe_num_shared_experts n_group topk_group "
        "num_expert_group"),
    0.0: "attention_dropout hidden_dropout attn_pdrop embd_pdrop resid_pdrop dropout "
    "activation_dropout hidden_dropout_prob attention_probs_dropout_prob layerdrop "
    "embedding_dropout residual_dropout emb_pdrop attention_probs_dropout resid_dropout "
    "embed_dropout",
}  # fmt: skip
SIZES: dict[str, float] = {}
for size, size_names in SIZES_BY_VALUE.items():
    SIZES |= dict.fromkeys(size_names.split(), size)


def shrunk_keys(config_class: type[PreTrainedConfig], options: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of a tiny configuration of a class; `options` stand over them."""
    default = config_class(**{key: options[key] for key in options if key == "is_decoder"})
    values = default.to_dict()
    keys = {key: SIZES[key] for key in values if key in SIZES and values[key] is not None}
    for key in values:
        part = vars(default).get(key)  # per-layer keys cannot be read as attributes
        if isinstance(part, PreTrainedConfig):
            keys[key] = shrunk_keys(type(part), options.get(key, {}))
    rope = values.get("rope_parameters") or {}
    if "original_max_position_embeddings" in rope:
        keys["rope_parameters"] = rope | {"original_max_position_embeddings": 16}
    if values.get("kv_lora_rank"):  # latent attention has as many key heads as query heads
        keys["num_key_value_heads"] = SIZES["num_attention_heads"]
    for key, token in (("bos_token_id", 1), ("pad_token_id", 2), ("eos_token_id", 0)):
        if values.get(key) is not None:
            keys[key] = token
    keys |= _pick_layers(values)
    return keys | {key: options[key] for key in options if not isinstance(keys.get(key), dict)}


def _pick_layers(values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's layer lists cut to one layer of each kind, two at least."""
    count_key = next((key for key in LIST_OF_LAYERS if isinstance(values.get(key), int)), None)
    if count_key is None:
        return {}
    count = values[count_key]
    lists = {
        key: value
        for key, value in values.items()
        if isinstance(value, list | tuple) and len(value) == count
    }
    layers = list(zip(*lists.values(), strict=True))
    kinds = [str(layer) for layer in layers]
    picked = [index for index, kind in enumerate(kinds) if kind not in kinds[:index]][:4]
    picked += range(len(picked), 2)
    counts = dict.fromkeys([key for key in LIST_OF_LAYERS if key in values], len(picked))
    return counts | {key: [value[index] for index in picked] for key, value in lists.items()}


def make_config(name: str) -> PreTrainedConfig:
    """Return a family's tiny configuration."""
    model_type, options = VARIANTS.get(name, (name, {}))
    config_class = CONFIG_MAPPING[model_type]
    return config_class(**shrunk_keys(config_class, OPTIONS.get(model_type, {}) | options))


def build(name: str, seed: int = 0) -> transformers.PreTrainedModel:
    """Return a family's tiny model in evaluation mode, with the weights of `tiny_models.spread`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(make_config(name))
        return tiny_models.spread(model, seed)
