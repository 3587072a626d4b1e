"""Models in shards."""

import tempfile

import pytest
import torch
import transformers
from torch.distributed.device_mesh import init_device_mesh

from tests.support import tiny_models
from tests.support.adapters import learned, with_lora
from tests.support.process_groups import together
from tif.config.model import Lora
from tif.models import export, fsdp
from tif.models import lora as adapters
from tif.utils import distributed

IDS = torch.tensor([[5, 9, 3, 7, 11, 2, 8]])
HEAD = Lora(rank=4, targets=["lm_head", "q_proj"])


def logits_of(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def shard_and_export():
    """Return the logits of a policy in shards, and of its merged export in the first process."""
    if distributed.is_first_rank():
        policy = learned(with_lora("llama-tied", targets=HEAD.targets))
    else:
        with torch.device("meta"):
            config = tiny_models.CONFIGS["llama-tied"]()
            policy = transformers.AutoModelForCausalLM.from_config(config)
        adapters.attach_adapters(policy, HEAD, seed=0)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("data_parallel",))
    fsdp.shard_model(policy, mesh, torch.device("cpu"), "32-true")
    logits = logits_of(policy)
    assert policy.lm_head.base_layer.weight is policy.model.embed_tokens.weight
    weights = export.gather_weights(policy)
    if not distributed.is_first_rank():
        return logits, None
    with tempfile.TemporaryDirectory() as folder:
        export.build_plain_model(policy, weights).save_pretrained(folder)
        return logits, logits_of(transformers.AutoModelForCausalLM.from_pretrained(folder))


@pytest.mark.guard
@pytest.mark.slow
def test_a_tied_head_with_adapters_is_cut_into_shards_and_exported():
    expected = logits_of(learned(with_lora("llama-tied", targets=HEAD.targets)))
    (first, exported), (second, _) = together(2, shard_and_export)
    for actual in (first, second, exported):
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
