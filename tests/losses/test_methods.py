"""Every file of configs/loss on a tiny model: what must hold whatever it is composed of."""

import dataclasses

import pytest
import torch
from omegaconf import OmegaConf

from tests.support import tiny_models
from tests.support.modules import unlearning_module
from tests.support.tiny_unlearning import RETAIN, cfg_of
from tif import losses
from tif.config import load as config
from tif.config.schema import Config
from tif.data.encoding import collate
from tif.models.derived import WhpReference
from tif.models.references import ModelReference
from tif.scoring.token_scores import score_tokens

LOSSES = config.own_configs() / "loss"
METHODS = sorted(
    p.stem
    for p in LOSSES.glob("*.yaml")
    if p.stem not in ("finetune", "task_vector", "whp_inference")
)
NO_PL = {"preserve": "none"}
REFUSALS = [tiny_models.encoded(f"no{i}", "ppgggg"[: 5 + i % 2]) for i in range(4)]
ALL_UNWANTED = tuple(
    tiny_models.encoded(labels, labels) for labels in ("ppuuu", "puu", "puuuu", "pu")
)


def module(cfg, batching="packed"):
    """A policy that has moved a little from the original."""
    torch.manual_seed(0)
    unlearning = unlearning_module(
        tiny_models.model(),
        Config(loss=cfg),
        batching,
        ModelReference(tiny_models.model(), batching),
    )
    unlearning.reference = WhpReference(unlearning.reference, tiny_models.model(seed=5), 1.0)
    with torch.no_grad():
        for weight in unlearning.policy.parameters():
            weight += 0.02 * torch.randn_like(weight)
    return unlearning


def batch_of(order, items=tiny_models.ITEMS, pad_id=0):
    batch = collate([items[i] for i in order], order, pad_id)
    batch.retain = collate([RETAIN[i] for i in order], order, pad_id)
    batch.alternate = collate([REFUSALS[i] for i in order], order, pad_id)
    return batch


@pytest.mark.parametrize("name", METHODS)
def test_batching_padding_and_order_change_no_methods_loss(name):
    expected = module(cfg_of(name)).loss(batch_of((0, 1, 2, 3))).total
    others = (
        ("padded", (0, 1, 2, 3), 0),
        ("padded", (2, 0, 3, 1), 17),
        ("packed", (3, 2, 1, 0), 9),
    )
    for batching, order, pad_id in others:
        actual = module(cfg_of(name), batching).loss(batch_of(order, pad_id=pad_id)).total
        torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def true_probability(unlearning, batch):
    """Sum of log(1 / (1 - p)) over what ceu sees: all answer tokens but the first."""
    with torch.no_grad():
        logprob = score_tokens(unlearning.policy, batch).logprob
    answer = batch.answer[:, 1:]
    return -torch.log1p(-logprob.exp())[answer & (answer.cumsum(1) > 1)].sum()


@pytest.mark.parametrize("name", METHODS)
def test_a_small_step_along_the_gradient_lowers_a_methods_loss(name):
    unlearning, batch = module(cfg_of(name)), batch_of((0, 1, 2, 3))
    before = unlearning.loss(batch).total
    before.backward()
    likely = true_probability(unlearning, batch)
    with torch.no_grad():
        norm = torch.stack(
            [p.grad.norm() for p in unlearning.policy.parameters() if p.grad is not None]
        ).norm()
        for p in unlearning.policy.parameters():
            if p.grad is not None:
                p -= 1e-3 * p.grad / norm
    # Their target or weights move with the policy: what must fall is the true tokens' probability.
    if name in ("ceu", "tnpo"):
        assert true_probability(unlearning, batch) < likely
    else:
        assert unlearning.loss(batch).total < before


@pytest.mark.parametrize("name", METHODS)
def test_targeted_equals_classic_when_every_token_is_unwanted(name):
    batch = batch_of((0, 1, 2, 3), ALL_UNWANTED)
    targeted, classic = (
        module(cfg_of(name, on=on, **NO_PL)).loss(batch).total for on in ("uw", "all")
    )
    torch.testing.assert_close(targeted, classic)


@pytest.mark.parametrize("name", METHODS)
def test_targeted_differs_from_classic_when_some_tokens_are_general(name):
    batch, part = batch_of((0, 1, 2, 3)), losses.get_forget_term(cfg_of(name))
    both = (module(cfg_of(name, on=on, **NO_PL)).loss(batch).parts for on in ("uw", "all"))
    targeted, classic = (next(iter(parts.values())) for parts in both)
    # idk looks at refusals alone
    assert torch.equal(targeted, classic) is (part is losses.FORGET["idk"])


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_with_nothing_unwanted_trains_on_finite_gradients(name):
    unlearning = module(cfg_of(name, on="uw", **NO_PL))
    terms = unlearning.loss(batch_of((3,)))
    terms.total.backward()
    assert torch.isfinite(terms.total)
    assert all(
        torch.isfinite(p.grad).all() for p in unlearning.policy.parameters() if p.grad is not None
    )
    forget = next(iter(terms.parts.values())).item()
    assert forget == 0 or cfg_of(name).forget == "idk"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_compares_with_nothing_runs_without_a_reference(name):
    cfg = cfg_of(name)
    unlearning = unlearning_module(tiny_models.model(), Config(loss=cfg), "packed", None)
    if losses.required_reference(cfg) == "none":
        assert torch.isfinite(unlearning.loss(batch_of((0, 1))).total)
    else:
        with pytest.raises(AssertionError):
            unlearning.loss(batch_of((0, 1)))


@pytest.mark.guard
@pytest.mark.slow
def test_what_the_methods_need_of_the_original_model():
    needs = {"none": set(), "scores": set(), "model": set()}
    for name in METHODS:
        needs[losses.required_reference(cfg_of(name))].add(name)
    assert needs == {
        "none": {"simnpo", "simnpo_gdr", "ga", "ga_gdr", "wga", "satimp", "idk", "ceu", "pdu",
                 "etw", "gap"},
        "scores": {"tpo", "tpo_recommended", "tpo_released", "tpo_gdr", "tpo_centred", "npo",
                   "npo_gdr", "tnpo", "wtnpo"},
        "model": {
            "tpo_klr", "npo_klr", "ga_klr", "dpo", "dpo_gdr", "dpo_klr", "kto", "kto_gdr", "undial",
            "muse_logit_npo", "rmu", "altpo", "whp", "tif", "rkld",
            "palu",
        },
    }  # fmt: skip


def test_skip_leaves_the_first_answer_tokens_out_of_the_forget_term():
    batch = batch_of((0, 2))  # a: uugg, c: ugguugg
    inside = torch.zeros(2, 8).bool()
    inside[0, 3] = inside[1, 4] = inside[1, 5] = (
        True  # without the first two answer tokens: a nothing else but g
    )
    inside[0, 3] = False
    unlearning = module(cfg_of("ga", on="uw", skip=2))
    scores = score_tokens(unlearning.policy, batch)
    expected = scores.logprob[inside].mean()
    torch.testing.assert_close(unlearning.loss(batch).total, expected)


def test_finetuning_reads_no_key_of_an_unlearning_method():
    # Stages inherit the section of the run that they are made for.
    cfg = dataclasses.replace(
        cfg_of("pdu", skip=2, forget_weight=0.1), forget="ce", on="all", retain="none"
    )
    plain = dataclasses.replace(cfg_of("ga"), forget="ce", on="all", retain="none")
    batch = batch_of((0, 1, 2, 3))
    assert torch.equal(module(cfg).loss(batch).total, module(plain).loss(batch).total)
    assert cfg.find_problems("full") == []


@pytest.mark.parametrize("name", [p.stem for p in sorted(LOSSES.glob("*.yaml"))])
def test_no_method_file_leaves_a_key_of_another_one_in_place(name):
    base, file = OmegaConf.structured(Config()), config.read_yaml(LOSSES / f"{name}.yaml")
    alone = OmegaConf.to_object(OmegaConf.merge(base, file).loss)
    before = [
        f"loss/{other}.yaml"
        for other in ("simnpo_gdr", "whp", "tpo_released", "altpo", "rmu", "pdu")
    ]
    assert config.load(["quickstart.yaml", *before, f"loss/{name}.yaml"]).loss == alone
