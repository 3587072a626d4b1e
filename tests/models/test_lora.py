"""LoRA, few bits, the reference that they leave in place, and weights as a whole again."""

import json
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import transformers

from tests.support import tiny_models
from tif import losses
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.model import Lora, Model
from tif.losses import make_loss
from tif.losses.terms import Scored, ScoredBatch
from tif.models import export, references
from tif.models import load as models
from tif.models import lora as adapters
from tif.scoring.token_scores import ValueRequest, score_tokens, score_tokens_and_values
from tif.utils import torch_state

BATCH = tiny_models.batch_of(*tiny_models.ITEMS)


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


def kl_values(policy, kl, original):
    """Values of a retain term that reads the original's distributions."""
    request = ValueRequest(0, len(BATCH.ids), kl, original)
    (values,) = score_tokens_and_values(policy, BATCH, "packed", [request])[1]
    return values


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
    line = "^model.lora.targets: no linear layer is called w_pack; the model has down_proj, gate_proj, k_proj, "
    with pytest.raises(ConfigError, match=line):
        with_lora(targets=["q_proj", "w_pack"])


def test_adapters_are_drawn_from_the_seed_and_the_global_random_state_is_left_alone():
    one, two = tiny_models.model(), tiny_models.model()
    before = torch.get_rng_state()
    for policy in (one, two):
        adapters.attach_adapters(policy, Lora(rank=4), seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_adapter_reference_is_the_original_model_after_training_and_leaves_the_policy_as_it_is(
    kind,
):
    policy = with_lora(kind)
    reference = references.make_reference("adapter", policy, tiny_models.ITEMS, 0, "packed")
    learned(policy).train()
    with torch.no_grad():
        expected = tiny_models.plain_scores(tiny_models.model(kind), tiny_models.ITEMS)
    before = score_tokens(policy.eval(), BATCH).logit.detach()
    policy.train()
    actual = reference.scores(BATCH)
    torch.testing.assert_close(actual.logit, expected.logit, atol=1e-5, rtol=0)
    assert not actual.logit.requires_grad
    assert policy.training
    assert all(w.requires_grad == (".lora_" in name) for name, w in policy.named_parameters())
    assert (before - expected.logit).abs().max() > 0.1
    torch.testing.assert_close(score_tokens(policy.eval(), BATCH).logit, before)


def test_all_references_give_the_same_loss_and_gradient():
    found = {}
    for kind in ("cached", "frozen", "adapter"):
        policy = with_lora()
        reference = references.make_reference(kind, policy, tiny_models.ITEMS, 0, "packed")
        learned(policy)
        scored = ScoredBatch(Scored(score_tokens(policy, BATCH), reference.scores(BATCH)))
        terms = losses.compute_loss(scored, BATCH, make_loss(retain="none"))
        terms.total.backward()
        found[kind] = terms.total.detach(), [w.grad for w in policy.parameters() if w.requires_grad]
    for kind in ("frozen", "adapter"):
        torch.testing.assert_close(found[kind], found["cached"])


def test_the_adapter_reference_serves_losses_that_read_whole_distributions():
    policy, (kl,) = with_lora(), [losses.RETAIN["kl"].per_token(make_loss())]
    reference = references.make_reference("adapter", policy, tiny_models.ITEMS, 0, "packed")
    assert kl_values(policy, kl, reference.use_model).abs().max() < 1e-5
    learned(policy)
    value = kl_values(policy, kl, reference.use_model).sum()
    value.backward()  # the reference ran without adapters within a graph that is made again
    frozen = tiny_models.model()
    again = with_lora()
    learned(again)
    expected = kl_values(again, kl, partial(nullcontext, frozen)).sum()
    expected.backward()
    torch.testing.assert_close(value, expected)
    for a, b in zip(policy.parameters(), again.parameters(), strict=True):
        assert a.grad is None if b.grad is None else torch.allclose(a.grad, b.grad, atol=1e-5)


def test_the_adapter_reference_scores_more_answer_tokens_than_a_chunk_holds():
    policy = learned(with_lora())
    reference = references.ModelReference(policy, "packed")
    with reference.use_model() as model:
        actual = score_tokens(model, BATCH, "packed", chunk_tokens=3)
    torch.testing.assert_close(actual.logit, reference.scores(BATCH).logit)


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "gpt-neox", "gemma2", "qwen3"])
def test_the_export_is_a_plain_model_with_the_same_logits_and_the_policy_goes_on(
    kind, tmp_path, tokenizer
):
    policy = learned(with_lora(kind))
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    export.export_model(policy, tokenizer, tmp_path / "model", "card")
    made = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(made) is type(tiny_models.model(kind))
    assert not any("lora" in name for name in made.state_dict())
    actual, expected = (score_tokens(m.eval(), BATCH).logit for m in (made, policy))
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(weight, before[name]) for name, weight in policy.state_dict().items())
    tied = kind in ("llama-tied", "gpt2")
    assert (
        made.get_output_embeddings().weight is made.get_input_embeddings().weight
    ) is tied or kind == "gemma2"


EXPERTS = {"num_experts_per_tok": 2, "num_hidden_layers": 2}
MOE_CONFIGS = {
    "mixtral": lambda: transformers.MixtralConfig(
        **tiny_models.LLAMA_LIKE | EXPERTS | {"num_local_experts": 4}
    ),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **tiny_models.LLAMA_LIKE
        | EXPERTS
        | {"num_experts": 4, "moe_intermediate_size": 24, "head_dim": 8, "decoder_sparse_step": 1}
    ),
}


@pytest.mark.parametrize("kind", sorted(MOE_CONFIGS))
def test_the_export_merges_adapters_of_fused_experts_and_routers(kind, tmp_path, tokenizer):
    policy = transformers.AutoModelForCausalLM.from_config(MOE_CONFIGS[kind]())
    adapters.attach_adapters(tiny_models.spread(policy), Lora(rank=4), seed=0)
    if kind == "mixtral":
        trained = {name for name, weight in policy.named_parameters() if weight.requires_grad}
        assert any(".experts." in name for name in trained)
        assert any(".gate." in name for name in trained)
    assert_export_gives_the_same_logits(learned(policy), tmp_path, tokenizer)


@pytest.mark.parametrize("kind", ["llama", "llama-tied"])
def test_the_export_merges_adapters_of_the_head_and_unties_it(kind, tmp_path, tokenizer):
    policy = learned(with_lora(kind, targets=["lm_head", "q_proj"]))
    exported = assert_export_gives_the_same_logits(policy, tmp_path, tokenizer)
    assert exported.get_output_embeddings().weight is not exported.get_input_embeddings().weight


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


@pytest.fixture(scope="module", params=["nf4", "int8"])
def few_bits(request, tmp_path_factory):
    """A model whose linear layers bitsandbytes keeps in few bits, with LoRA: (kind, policy, its folder)."""
    folder = tmp_path_factory.mktemp(request.param)
    keys = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2}
    with torch.no_grad():
        made = tiny_models.model(**keys)
        for weight in made.parameters():
            weight *= 0.3
    made.save_pretrained(folder)
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
    made = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert not hasattr(made.config, "quantization_config")
    assert made.dtype == torch.float32
    # int8 rounds what goes into a layer too, so its own numbers are a little others than those of its weights.
    close = {"nf4": 1e-3, "int8": 0.2}[kind]
    difference = (
        (score_tokens(made.eval(), BATCH).logit - score_tokens(policy.eval(), BATCH).logit)
        .abs()
        .max()
    )
    assert difference < close


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


@pytest.mark.slow
@pytest.mark.real
def test_ten_tpo_steps_of_smollm2_in_four_bits_with_lora_evaluated_and_exported(
    smollm2, shared, tmp_path, capsys
):
    """Four bits, adapter reference, TPO on TOFU's forget01; the merged export loads in transformers alone."""
    from tests.support.small_run import rows
    from tif import evaluate, fit

    words = [
        "tofu_smollm2.yaml", f"data.path={shared / 'tofu'}", "data.split=forget01", "data.max_retain=16",
        f"identifier.path={shared / 'tofu_masks/forget01_with_common_words_gpt'}", f"model.path={smollm2}",
        "model.quantize=nf4", "model.lora.rank=8", "model.reference=adapter", "data.batch_size=4",
        "loss/tpo_centred.yaml", "trainer.max_epochs=1", "trainer.accelerator=cpu", "optimizer.lr=1e-3",
        "optimizer.warmup_epochs=0", "eval.before_training=false", "eval.forget_quality=false", "eval.best=none",
        "eval.max_new_tokens=2", "eval.max_samples.forget=4", "eval.max_samples.retain=1",
        "eval.max_samples.real_authors=1", "eval.max_samples.world_facts=1", f"run.folder={tmp_path}", "run.name=four",
    ]  # fmt: skip
    assert fit.main(words) == 0
    found = rows(tmp_path / "four")
    steps = [row for row in found if "train/loss" in row]
    assert len(steps) == 10
    assert steps[0]["train/uw_logprob_change"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["train/uw_logprob_change"] < -0.1
    made = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "four" / "model")
    assert not hasattr(made.config, "quantization_config")
    capsys.readouterr()
    asked = [word for word in words if word.startswith("eval.max_")]
    own = [
        f"model.path={tmp_path / 'four' / 'model'}",
        f"eval.tofu.path={shared / 'tofu'}",
        "eval.tofu.split=forget01",
    ]
    assert (
        evaluate.main([*own, *asked, f"out={tmp_path}", "device=cpu", "draws=100", "--json"]) == 0
    )
    export = json.loads(capsys.readouterr().out)["benchmarks"]["tofu"]
    for name in ("forget", "retain"):  # the same weights, those of four bits written out
        assert export["tasks"][name]["probability"] == pytest.approx(
            found[-1][f"{name}/probability"], rel=0.02
        )
    assert found[-1]["forget/probability"] < 0.2  # 0.27 before training, by these rules
