"""Tiny policies with LoRA adapters, fresh or trained."""

import torch

from tests.support import tiny_models
from tif.config.model import Lora
from tif.models import lora as adapters


def learned(policy, seed=1):
    """The adapters after some training; only they move."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in policy.parameters():
            if weight.requires_grad:
                weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return policy


def with_lora(kind="llama", **keys):
    policy = tiny_models.model(kind)
    adapters.attach_adapters(policy, Lora(rank=4, **keys), seed=0)
    return policy
