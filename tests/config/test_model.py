"""Keys of section `model` that do not go together."""

import pytest

from tif.config import load as config
from tif.config.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.quantize=nf4"], "model.quantize: nf4 weights cannot be trained; want model.lora.rank > 0"),
        (["model.reference=adapter"], "model.reference: adapter is the policy with its LoRA adapters off; want model."),
        (["model.lora.rank=4", "model.reference=frozen"], "model.reference: frozen would copy weights that"),
        (["model.lora.rank=4", "model.quantize=nf4", "trainer.strategy=fsdp2"], "model.quantize: nf4 weights cannot"),
        (["model.lora.rank=4", "loss.task_vector=1"], "model.lora.rank: loss.task_vector negates whole weights"),
        (["loss.task_vector=1", "trainer.strategy=fsdp2"], "trainer.strategy: loss.task_vector needs whole weights"),
        (["optimizer.name=adamw8bit", "trainer.strategy=fsdp2"], "optimizer.name: adamw8bit (bitsandbytes) updates"),
        (["trainer.strategy=fsdp"], "trainer.strategy: fsdp is the older FSDP, which tif does not shard for; want"),
        (["model.lora.rank=4", "model.path=null"], "model.lora.rank: adapters on weights that nobody has trained"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_name(words, line):
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", *words])
    assert any(own.startswith(line) for own in str(caught.value).splitlines()), caught.value
