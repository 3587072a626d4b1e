"""A stand-in for the flash-attn package on a CPU: its two functions, computed plainly.

transformers' own way to them (its masks, its unpadding, its borders from position_ids) runs as on a
GPU; only the kernel is another.
"""

import torch
from transformers import modeling_flash_attention_utils as flash


def _attend(q, k, v, causal, window, scale, softcap):
    """Attend within one sample: (T, heads, d) each -> (T, heads, d); `window` = (left, right)."""
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * (scale or q.shape[-1] ** -0.5)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    distance = torch.arange(len(q))[:, None] - torch.arange(len(k))
    is_seen = distance >= 0 if causal else torch.ones_like(distance, dtype=torch.bool)
    if window[0] >= 0:
        is_seen = is_seen & (distance <= window[0])
    weights = scores.masked_fill(~is_seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


def flash_attn_func(
    q, k, v, dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, **_
):
    """Attend within each row: (B, T, heads, d)."""
    settings = (causal, window_size, softmax_scale, softcap)
    return torch.stack([_attend(*row, *settings) for row in zip(q, k, v, strict=True)])


def flash_attn_varlen_func(
    q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q=None, max_seqlen_k=None, dropout_p=0.0,
    softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, **_,
):  # fmt: skip
    """Attend within each sample of one row: (N, heads, d)."""
    lengths = cu_seqlens_q.diff().tolist()
    assert torch.equal(cu_seqlens_q, cu_seqlens_k)
    samples = zip(*(tensor.split(lengths) for tensor in (q, k, v)), strict=True)
    settings = (causal, window_size, softmax_scale, softcap)
    return torch.cat([_attend(*sample, *settings) for sample in samples])


def use_stand_in(monkeypatch, model):
    """Let a model attend by "flash_attention_2", whose kernel is the stand-in, during a test."""
    functions = (
        flash_attn_func,
        flash_attn_varlen_func,
        None,
        flash._pad_input,
        flash._unpad_input,
    )
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: functions)
    monkeypatch.setattr(flash, "_loaded_implementation", None)
    # set_attn_implementation asks for the package
    for config in {
        id(m.config): m.config for m in model.modules() if hasattr(m, "config")
    }.values():
        config._attn_implementation = "flash_attention_2"
    return model
