"""Exports: plain models with the policy's logits, whole or not at all."""

import pytest
import safetensors.torch
import torch
import transformers

from tests.support import architectures, tiny_models
from tests.support.adapters import learned, with_lora
from tests.support.model_weights import assert_bit_identical, nudge
from tif.config.errors import ConfigError
from tif.config.model import Lora, Model
from tif.models import export
from tif.models import load as models
from tif.models import lora as adapters
from tif.probes.check_model import check_model
from tif.scoring.token_scores import score_tokens

INIT = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BATCH = tiny_models.batch_of(*tiny_models.ITEMS)


def test_an_exported_policy_loads_back_bit_identical_and_in_training_mode(tokenizer, tmp_path):
    policy = models.load_policy(Model(init=INIT), tokenizer, 0)
    export.export_model(policy, tokenizer, tmp_path / "model", "# card")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    assert (tmp_path / "model" / "README.md").read_text() == "# card"
    assert not list((tmp_path / "model").glob("*.bin"))
    cfg = Model(path=str(tmp_path / "model"))
    check_model(cfg)
    loaded = models.load_policy(cfg, tokenizer, seed=99)
    assert_bit_identical(loaded.state_dict(), policy.state_dict())
    assert loaded.training
    text = "Jaime Vasquez"
    assert models.load_tokenizer(cfg, ())(text)["input_ids"] == tokenizer(text)["input_ids"]
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert_bit_identical(plain.state_dict(), policy.state_dict())


def test_an_export_replaces_an_older_one_as_a_whole(tokenizer, tmp_path):
    policy, folder = models.load_policy(Model(init=INIT), tokenizer, 0), tmp_path / "model"
    folder.mkdir()
    (folder / "stale.txt").write_text("from an older run")
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "half.txt").write_text("a run was killed here")
    export.export_model(nudge(policy), tokenizer, folder, "card")
    assert {p.name for p in folder.iterdir()} & {"stale.txt", "half.txt"} == set()
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert torch.equal(saved["model.embed_tokens.weight"], policy.model.embed_tokens.weight)
    assert not (tmp_path / "model.partial").exists()


def test_an_export_that_fails_leaves_the_older_one(tokenizer, tmp_path, monkeypatch):
    policy, folder = models.load_policy(Model(init=INIT), tokenizer, 0), tmp_path / "model"
    export.export_model(policy, tokenizer, folder, "old")

    def full_disk(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(type(tokenizer), "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        export.export_model(nudge(policy), tokenizer, folder, "new")
    assert (folder / "README.md").read_text() == "old"
    assert (folder / "config.json").is_file()


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "gpt-neox", "gemma2", "qwen3"])
def test_the_export_is_a_plain_model_with_the_same_logits_and_the_policy_goes_on(
    kind, tmp_path, tokenizer
):
    policy = learned(with_lora(kind))
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    export.export_model(policy, tokenizer, tmp_path / "model", "card")
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(exported) is type(tiny_models.model(kind))
    assert not any("lora" in name for name in exported.state_dict())
    actual, expected = (score_tokens(m.eval(), BATCH).logit for m in (exported, policy))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
    tied = kind in ("llama-tied", "gpt2")
    assert (
        exported.get_output_embeddings().weight is exported.get_input_embeddings().weight
    ) is tied or kind == "gemma2"


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "glm4_moe", "deepseek_v3"])
def test_the_export_merges_adapters_of_fused_experts_and_routers(family, tmp_path, tokenizer):
    policy = architectures.build(family)
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert any(".experts." in name for name in trained)
    assert any(".gate." in name for name in trained)
    assert_export_gives_the_same_logits(learned(policy), tmp_path, tokenizer)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_the_export_merges_adapters_of_the_head_and_unties_it(kind, tmp_path, tokenizer):
    policy = learned(with_lora(kind, targets=["lm_head", "q_proj"]))
    exported = assert_export_gives_the_same_logits(policy, tmp_path, tokenizer)
    assert exported.get_output_embeddings().weight is not exported.get_input_embeddings().weight


def test_a_model_that_reads_its_dtype_from_its_config_is_exported_twice(tmp_path, tokenizer):
    policy = architectures.build("apertus")
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    policy.config.dtype = "float32"  # a text, as saving leaves it
    assert_export_gives_the_same_logits(learned(policy), tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("family", "merge", "line"),
    [
        (
            "mllama",
            True,
            "model.path: AutoModelForCausalLM does not read the mllama_text_model that ",
        ),
        (
            "laguna",
            False,
            "model.lora.merge: false, but peft would not find 6 of the adapters again ",
        ),
    ],
)
def test_an_export_that_could_not_be_read_again_is_refused(family, merge, line):
    policy = architectures.build(family)
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    with pytest.raises(ConfigError, match=f"^{line}"):
        export.check_export(policy, Lora(rank=4, merge=merge))
    if not merge:
        export.check_export(policy, Lora(rank=4))


def assert_export_gives_the_same_logits(policy, folder, tokenizer):
    state, ids = torch.get_rng_state(), torch.tensor([[5, 9, 3, 7, 11, 2, 8]])
    export.export_model(policy, tokenizer, folder / "model", "card")
    assert torch.equal(torch.get_rng_state(), state)
    exported = transformers.AutoModelForCausalLM.from_pretrained(folder / "model").eval()
    with torch.no_grad():
        actual, expected = (model.eval()(ids).logits for model in (exported, policy))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    return exported


def test_adapters_alone_are_in_pefts_format(tmp_path, tokenizer):
    from peft import PeftModel

    policy = learned(with_lora())
    export.export_model(policy, tokenizer, tmp_path / "model", "card", merge=False)
    assert {p.name for p in (tmp_path / "model").iterdir()} >= {
        "adapter_model.safetensors",
        "adapter_config.json",
    }
    assert not (tmp_path / "model" / "model.safetensors").exists()
    put_on = PeftModel.from_pretrained(tiny_models.model(), tmp_path / "model").eval()
    torch.testing.assert_close(
        score_tokens(put_on, BATCH).logit, score_tokens(policy.eval(), BATCH).logit
    )
