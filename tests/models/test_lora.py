"""LoRA adapters, and weights in few bits under them."""

import json

import pytest
import torch
import transformers

from tests.support import architectures, tiny_models
from tests.support.adapters import learned, with_lora
from tif.config.errors import ConfigError
from tif.config.model import Lora, Model
from tif.models import export, references
from tif.models import load as models
from tif.models import lora as adapters
from tif.probes.check_model import check_model
from tif.scoring.token_scores import score_tokens
from tif.utils import torch_state

BATCH = tiny_models.batch_of(*tiny_models.ITEMS)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "gpt-neox"])
def test_fresh_adapters_change_nothing_and_are_all_that_is_trained(kind):
    policy = with_lora(kind)
    torch.testing.assert_close(
        score_tokens(policy, BATCH).logit, score_tokens(tiny_models.model(kind), BATCH).logit
    )
    trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not any("lm_head" in name or "embed_out" in name for name in trained)


def test_only_named_layers_get_adapters_and_unknown_names_are_told():
    policy = with_lora(targets=["q_proj", "v_proj"])
    owners = {
        name.split(".lora_")[0].rpartition(".")[2]
        for name, w in policy.named_parameters()
        if w.requires_grad
    }
    assert owners == {"q_proj", "v_proj"}
    line = (
        "^model.lora.targets: no layer for adapters is called w_pack; "
        "want down_proj, gate_proj, k_proj, "
    )
    with pytest.raises(ConfigError, match=line):
        with_lora(targets=["q_proj", "w_pack"])


def test_adapters_are_drawn_from_the_seed_and_the_global_random_state_is_left_alone():
    policy, other = tiny_models.model(), tiny_models.model()
    before = torch.get_rng_state()
    for model in (policy, other):
        adapters.attach_adapters(model, Lora(rank=4), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(policy.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.fixture(scope="module", params=["nf4", "int8"])
def few_bits(request, tmp_path_factory):
    """A model with linear layers in few bits (bitsandbytes) and LoRA: (kind, policy, folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    keys = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2}
    with torch.no_grad():
        model = tiny_models.model(**keys)
        for weight in model.parameters():
            weight *= 0.3
    model.save_pretrained(folder)
    cfg = Model(path=str(folder), quantize=request.param, lora=Lora(rank=4))
    return request.param, models.load_policy(cfg, None, 0), folder


def test_few_bits_stay_as_they_are_through_training_and_evaluation(few_bits):
    kind, policy, folder = few_bits
    reference = references.ModelReference(policy, "packed")
    original = transformers.AutoModelForCausalLM.from_pretrained(folder)
    close = {"nf4": 0.2, "int8": 0.05}[kind]
    start = reference.scores(BATCH).logit
    assert 0 < (start - score_tokens(original.eval(), BATCH).logit).abs().max() < close
    optimizer = torch.optim.AdamW([w for w in policy.parameters() if w.requires_grad], lr=0.05)
    for _ in range(3):
        policy.train()
        score_tokens(policy, BATCH).logprob.sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        with torch_state.evaluation_mode(policy):
            score_tokens(policy, BATCH)
    assert torch.equal(reference.scores(BATCH).logit, start)
    assert (score_tokens(policy.eval(), BATCH).logit - start).abs().max() > 0.1


def test_the_export_of_few_bits_is_a_plain_model_of_what_they_stand_for(
    few_bits, tmp_path, tokenizer
):
    kind, policy, _ = few_bits
    export.export_model(learned(policy), tokenizer, tmp_path / "model", "card")
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not hasattr(exported.config, "quantization_config")
    assert exported.dtype == torch.float32
    # int8 rounds what goes into a layer too, so its numbers are a little others than its weights'.
    close = {"nf4": 1e-3, "int8": 0.2}[kind]
    difference = (
        (score_tokens(exported.eval(), BATCH).logit - score_tokens(policy.eval(), BATCH).logit)
        .abs()
        .max()
    )
    assert difference < close


@pytest.mark.guard
@pytest.mark.slow
@pytest.mark.real
def test_ten_tpo_steps_of_smollm2_in_four_bits_with_lora_evaluated_and_exported(
    smollm2, shared, tmp_path, capsys
):
    """Four bits, adapter reference, TPO on forget01; transformers alone loads the merged export."""
    import tif.evaluate as evaluate
    from tests.support.small_run import rows
    from tif import fit

    words = [
        "tofu.yaml", "model=smollm2_135m", f"data.path={shared / 'tofu'}", "data.split=forget01",
        "data.max_retain=16",
        f"identifier.path={shared / 'tofu_masks/forget01_with_common_words_gpt'}",
        f"model.path={smollm2}", "model.quantize=nf4", "model.lora.rank=8",
        "model.reference=adapter", "data.batch_size=4", "loss/tpo_centred.yaml",
        "trainer.max_epochs=1", "trainer.accelerator=cpu", "optimizer.lr=1e-3",
        "optimizer.warmup_epochs=0", "eval.before_training=false", "eval.forget_quality=false",
        "eval.best=none", "eval.max_new_tokens=2", "eval.max_samples.forget=4",
        "eval.max_samples.retain=1", "eval.max_samples.real_authors=1",
        "eval.max_samples.world_facts=1", f"run.folder={tmp_path}", "run.name=four",
    ]  # fmt: skip
    assert fit.main(words) == 0
    log_rows = rows(tmp_path / "four")
    steps = [row for row in log_rows if "train/loss" in row]
    assert len(steps) == 10
    assert steps[0]["train/uw_logprob_change"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["train/uw_logprob_change"] < -0.1
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "four" / "model")
    assert not hasattr(exported.config, "quantization_config")
    capsys.readouterr()
    limits = [word for word in words if word.startswith("eval.max_")]
    model_words = [
        f"model.path={tmp_path / 'four' / 'model'}",
        f"eval.tofu.path={shared / 'tofu'}",
        "eval.tofu.split=forget01",
    ]
    assert (
        evaluate.main(
            [*model_words, *limits, f"out={tmp_path}", "device=cpu", "draws=100", "--json"]
        )
        == 0
    )
    export = json.loads(capsys.readouterr().out)["benchmarks"]["tofu"]
    for name in ("forget", "retain"):  # the same weights, those of four bits written out
        assert export["tasks"][name]["probability"] == pytest.approx(
            log_rows[-1][f"{name}/probability"], rel=0.02
        )
    assert log_rows[-1]["forget/probability"] < 0.2  # 0.27 before training, by these rules


def trained_layers(policy):
    """Return the names of the layers whose adapters learn, without the numbers of their layers."""
    names = {n.partition(".lora_")[0] for n, w in policy.named_parameters() if w.requires_grad}
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize(
    ("family", "left_out"),
    [
        ("phimoe", "router"),  # returns two tensors
        ("llama4_text", "router"),
        ("dory", "lm_head"),  # scales its output
        ("jamba", "dt_proj"),  # the mixer reads its weight
        ("mamba", "dt_proj"),
        ("zamba", "up_proj"),  # two layers share the weight
    ],
)
def test_layers_that_would_not_merge_get_no_adapter_and_are_refused_by_name(family, left_out):
    policy = architectures.build(family)
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    assert left_out not in trained_layers(policy)
    policy(input_ids=BATCH.input_ids[:1]).logits.sum().backward()
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(architectures.build(family).config)
    line = f"^model.lora.targets: no layer for adapters is called {left_out}; want "
    with pytest.raises(ConfigError, match=line):
        adapters.attach_adapters(empty, Lora(rank=4, targets=[left_out]), seed=0)


@pytest.mark.parametrize(
    ("family", "keys", "line"),
    [
        (
            "mixtral",
            {"dropout": 0.1},
            "model.lora.dropout: got 0.1, but the adapters of fused experts and routers have none; "
            "want 0, or model.lora.targets without these",
        ),
        (
            "glm4_moe",
            {"targets": ["gate_proj"]},
            "model.lora.targets: Cannot convert PEFT target.s. gate_proj without also targeting "
            "up_proj .*; want some of down_proj, gate_proj, ",
        ),
    ],
)
def test_what_peft_cannot_adapt_is_refused_with_the_key(family, keys, line):
    with pytest.raises(ConfigError, match=f"^{line}"):
        adapters.attach_adapters(architectures.build(family), Lora(rank=4, **keys), seed=0)


def test_the_usual_targets_reach_the_fused_experts_too():
    policy = architectures.build("qwen3_moe")
    targets = ["q_proj", "gate_proj", "up_proj", "down_proj"]
    adapters.attach_adapters(policy, Lora(rank=4, targets=targets), seed=0)
    assert trained_layers(policy) == {"q_proj", "experts", "base_layer"}


@pytest.mark.parametrize(
    ("family", "where"), [("gemma3", ".vision_tower."), ("bart", ".encoder_attn.")]
)
def test_adapters_that_text_does_not_reach_are_frozen_and_named(family, where, capsys):
    policy = architectures.build(family).train()
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    state = torch.get_rng_state()
    adapters.freeze_idle_adapters(policy, [], BATCH, "padded")
    assert torch.equal(torch.get_rng_state(), state)
    assert policy.training
    learning = {name: w for name, w in policy.named_parameters() if w.requires_grad}
    assert learning
    assert not any(where in name for name in learning)
    assert all(weight.grad is None for weight in learning.values())
    assert any(where in name for name, _ in policy.named_parameters() if ".lora_" in name)
    assert (
        f"LoRA: adapters that learn nothing on model.{'decoder' if family == 'bart' else 'vision'}"
        in (capsys.readouterr().out)
    )
    score_tokens(policy, BATCH, "padded").logprob.sum().backward()
    assert all(weight.grad is not None for weight in learning.values())


def test_weights_without_an_adapter_are_named(capsys):
    policy = architectures.build("gpt_oss")
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    adapters.freeze_idle_adapters(policy, [], BATCH, "padded")
    assert capsys.readouterr().out == (
        "LoRA: no adapters on model.layers.*.mlp.experts.gate_up_proj, "
        "model.layers.*.mlp.experts.down_proj\n"
    )
    policy = architectures.build("llama")
    adapters.attach_adapters(policy, Lora(rank=4, targets=["q_proj"]), seed=0)
    adapters.freeze_idle_adapters(policy, ["q_proj"], BATCH, "padded")
    assert capsys.readouterr().out == ""


def test_a_model_whose_adapters_get_no_gradient_is_refused():
    policy = architectures.build("reformer")  # its layers begin from embeddings without a gradient
    adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    with pytest.raises(
        ConfigError, match="^model.lora.rank: no adapter of ReformerModelWithLMHead"
    ):
        adapters.freeze_idle_adapters(policy, [], BATCH, "padded")


def few_bits_policy(family, folder, kind="nf4"):
    """Return a family's model with weights of half the spread, in few bits, and the original."""
    model = architectures.build(family)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 0.5
    model.save_pretrained(folder)
    settings = Model(path=str(folder), quantize=kind, lora=Lora(rank=4))
    check_model(settings)
    return models.load_policy(settings, None, 0).eval(), model


def test_layers_whose_weights_a_models_code_reads_stay_out_of_few_bits(tmp_path):
    for family, layer in (("mamba", "x_proj"), ("deepseek_v32", "indexer.weights_proj")):
        policy, _ = few_bits_policy(family, tmp_path / family)
        few = [
            name
            for name, weight in policy.named_parameters()
            if type(weight).__name__ == "Params4bit"
        ]
        assert few
        assert not any(layer in name for name in few)
        policy(input_ids=BATCH.input_ids[:1]).logits.sum().backward()


@pytest.mark.parametrize("family", ["gpt2", "deepseek_v32"])
def test_few_bits_are_exported_as_what_the_policy_computes_with(family, tmp_path, tokenizer):
    policy, original = few_bits_policy(family, tmp_path / "start")
    export.export_model(learned(policy), tokenizer, tmp_path / "model", "card")
    exported = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.tensor([[5, 9, 3, 7, 11, 6, 8, 40, 33, 20, 50, 44, 31]])
    with torch.no_grad():
        actual, expected = (m(input_ids=ids, use_cache=False).logits for m in (exported, policy))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    for name, weight in original.state_dict().items():
        if "head" not in name and weight.dim() == 2 and "lora" not in name:
            assert exported.state_dict()[name].shape == weight.shape


def test_a_model_of_which_bitsandbytes_knows_no_layer_is_refused(tmp_path):
    line = "^model.quantize: nf4, but bitsandbytes knows no layer of FalconForCausalLM; want none"
    with pytest.raises(ConfigError, match=line):
        few_bits_policy("falcon", tmp_path)


def test_a_bloom_that_reads_slices_of_its_weights_gets_no_adapters():
    policy = architectures.build("bloom")
    policy.config.slow_but_exact = True
    with pytest.raises(ConfigError, match="^model.lora.rank: slow_but_exact in its config.json"):
        adapters.attach_adapters(policy, Lora(rank=4), seed=0)
