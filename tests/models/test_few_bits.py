"""Weights in few bits: loaded in place, never moved or converted, and right in every precision."""

import lightning as L
import pytest
import torch
import transformers
from transformers import BitsAndBytesConfig

from tests.support import architectures, tiny_models
from tif.config.errors import ConfigError
from tif.config.model import Lora, Model
from tif.models import load as models
from tif.probes.check_model import check_model
from tif.probes.packed_rows import choose_batching
from tif.scoring.token_scores import score_tokens
from tif.training.prepare import place_model

KINDS = {
    "nf4": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "int8": BitsAndBytesConfig(load_in_8bit=True),
}
BATCH = tiny_models.batch_of(*tiny_models.ITEMS)
IDS = list(range(3, 33))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Folder of a tiny model with layers that bitsandbytes takes."""
    folder = tmp_path_factory.mktemp("plain")
    model = tiny_models.model(hidden_size=64, intermediate_size=64, num_key_value_heads=2)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.3
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_loaded_on_their_device_and_stay_there(plain, kind, monkeypatch):
    """transformers refuses to move int8 with bitsandbytes below 0.48, also to where it is."""
    devices = []
    original = transformers.AutoModelForCausalLM.from_pretrained

    def from_pretrained(*args, **options):
        devices.append(options.get("device_map"))
        return original(*args, **options)

    def refuse(*_, **__):
        raise ValueError("bitsandbytes>=0.48.0 moves int8")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(transformers.PreTrainedModel, "to", refuse)
    trainer = L.Trainer(
        accelerator="cpu", precision="bf16-mixed", logger=False, enable_checkpointing=False
    )
    settings = Model(path=str(plain), quantize=kind, lora=Lora(rank=4))
    device = trainer.strategy.root_device
    policy = models.load_policy(settings, None, 0, device=device)
    assert devices[-1] == {"": device}  # before it, shapes are read on the meta device
    expected = score_tokens(policy.eval(), BATCH).logit
    place_model(policy, trainer)
    assert torch.equal(score_tokens(policy, BATCH).logit, expected)
    with pytest.raises(ValueError, match="bitsandbytes"):  # others are moved
        place_model(tiny_models.model(), trainer)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_they_compute_what_their_numbers_stand_for_in_every_precision(
    plain, kind, dtype, precision
):
    settings = Model(path=str(plain), quantize=kind, dtype=dtype)
    few = models.load_pretrained(settings).eval()
    numbers = models.load_pretrained(settings).dequantize().float().eval()
    expected = score_tokens(numbers, BATCH).logprob
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        actual = score_tokens(few, BATCH).logprob
    is_exact = (kind, dtype, precision) == ("nf4", "float32", "32-true")
    assert (actual - expected).abs().max() < (1e-4 if is_exact else 0.06)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_that_holds_few_bits_already_is_refused(plain, kind, tmp_path):
    """Only its norms and embeddings would be trained."""
    stored = transformers.AutoModelForCausalLM.from_pretrained(
        plain, quantization_config=KINDS[kind]
    )
    stored.save_pretrained(tmp_path)
    for quantize in ("none", "int8"):
        with pytest.raises(ConfigError, match="^model.path: .* stored in few bits .* want a copy"):
            check_model(Model(path=str(tmp_path), quantize=quantize, lora=Lora(rank=4)))


def test_a_model_whose_layers_bitsandbytes_does_not_compute_is_refused_in_one_line(tmp_path):
    """DeepSeek 3.2 gives a layer four dimensions; int8 of bitsandbytes 0.50 takes up to three."""
    architectures.build("deepseek_v32").save_pretrained(tmp_path)
    line = "does not run on 12 tokens .*; want another kind of few bits, or none$"
    for kind in KINDS:
        policy = models.load_policy(Model(path=str(tmp_path), quantize=kind, lora=Lora(4)), None, 0)
        if kind == "nf4":
            choose_batching("auto", policy, [IDS])
            continue
        with pytest.raises(ConfigError, match=f"^model.quantize: DeepseekV32ForCausalLM {line}"):
            choose_batching("auto", policy, [IDS])


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "gemma3_text, both directions"])
def test_int8_that_rounds_by_batch_is_no_sign_of_a_model_that_reads_ahead(family, tmp_path):
    """LLM.int8 leaves columns with large activations in full; all tokens decide which ones."""
    architectures.build(family).save_pretrained(tmp_path)
    policy = models.load_policy(Model(path=str(tmp_path), quantize="int8", lora=Lora(4)), None, 0)
    if family.endswith("both directions"):
        with pytest.raises(ConfigError, match="^model.path: .* is no causal LM"):
            choose_batching("auto", policy, [IDS])
    else:
        assert choose_batching("auto", policy, [IDS]) == "packed"
