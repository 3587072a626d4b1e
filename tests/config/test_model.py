"""Keys of section `model` that do not go together."""

import pytest

from tif.config import load as config
from tif.config.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["model.quantize=nf4"], "model.quantize: nf4 weights cannot be trained"),
        (["model.reference=adapter"], "model.reference: adapter is the policy with its"),
        (["model.lora.rank=100000000"], "model.lora.rank: must be <= 8192, got 100000000"),
        (["model.lora.rank=4", "model.reference=frozen"], "model.reference: frozen would copy"),
        (
            ["model.lora.rank=4", "model.quantize=nf4", "trainer.strategy=fsdp2"],
            "model.quantize: nf4",
        ),
        (["model.lora.rank=4", "loss.task_vector=1"], "model.lora.rank: loss.task_vector"),
        (["loss.task_vector=1", "trainer.strategy=fsdp2"], "trainer.strategy: want ddp or auto"),
        (["optimizer.name=adamw8bit", "trainer.strategy=fsdp2"], "optimizer.name: adamw8bit"),
        (["data.batching=packed", "trainer.strategy=fsdp2"], "data.batching: packed, but packed"),
        (["trainer.strategy=fsdp"], "trainer.strategy: fsdp is the older FSDP"),
        (["model.lora.rank=4", "model.path=null"], "model.lora.rank: adapters on weights"),
        (
            ["model.lora.rank=4", "model.quantize=nf4", "trainer.precision=bf16-true"],
            "trainer.precision: bf16-true would convert the nf4 weights of model.quantize",
        ),
        (
            ["model.lora.rank=4", "model.quantize=int8", "trainer.precision=bf16-true"],
            "trainer.precision: bf16-true would convert the int8 weights of model.quantize",
        ),
        (["model.dtype=float16"], "model.dtype: float16 weights cannot be trained"),
        (
            ["model.dtype=float16", "trainer.precision=16-mixed"],
            "model.dtype: float16 weights cannot be trained",
        ),
        (
            ["model.dtype=float16", "model.lora.rank=4", "trainer.precision=bf16-mixed"],
            "trainer.precision: bf16-mixed does not go with the other 16 bits",
        ),
        (
            ["model.dtype=bfloat16", "trainer.precision=16-mixed"],
            "trainer.precision: 16-mixed does not go with the other 16 bits",
        ),
        (["trainer.precision=16-true"], "trainer.precision: want one of 32-true, bf16-mixed"),
        (["trainer.precision=64-true"], "trainer.precision: want one of 32-true, bf16-mixed"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_by_name(words, line):
    with pytest.raises(ConfigError) as caught:
        config.load(["quickstart.yaml", *words])
    assert any(problem.startswith(line) for problem in str(caught.value).splitlines()), caught.value
