"""UnlearningModule inside a real Lightning Trainer, on a tiny Llama and batches made by hand."""

import contextlib
import copy
import dataclasses
import gc

import lightning as L
import pytest
import torch
import transformers

from tests.support import tiny_models
from tests.support.model_weights import assert_bit_identical, nudge, weights
from tests.support.modules import unlearning_module
from tests.support.tiny_models import shuffled
from tests.support.tiny_unlearning import BATCHES, RETAIN, Watch, config, fit, unlearning
from tif import losses
from tif.config.loss import Dual
from tif.config.schema import Optimizer
from tif.data.encoding import collate
from tif.losses import make_loss
from tif.losses.terms import Scored, ScoredBatch
from tif.models import references
from tif.scoring.token_scores import score_tokens
from tif.training.module import SampleGroup

KINDS = ("cached", "frozen")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*in eval mode at the start", "ignore:.*LeafSpec.*:FutureWarning"
)


# --- the reference


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_bit_identical_after_training(kind):
    module = unlearning(kind)
    before = copy.deepcopy(module.reference)
    policy = weights(module.policy)
    fit(module, BATCHES)
    assert not torch.equal(module.policy.lm_head.weight, policy["lm_head.weight"])
    if kind == "frozen":
        assert_bit_identical(module.reference.model.state_dict(), policy)
        assert not module.reference.model.training
        assert all(
            p.grad is None and not p.requires_grad for p in module.reference.model.parameters()
        )
    else:
        for name, rows in module.reference.rows.items():
            assert_bit_identical(dict(enumerate(rows)), dict(enumerate(before.rows[name])))


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_is_absent_from_the_optimizer_and_from_checkpoints(kind, tmp_path):
    module = unlearning(kind)
    trainer = fit(module, BATCHES)
    optimized = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
    assert sorted(map(id, optimized)) == sorted(map(id, module.policy.parameters()))
    assert [name for name, _ in module.named_children()] == ["policy"]
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    expected = {f"policy.{name}" for name in module.policy.state_dict()}
    assert set(saved["state_dict"]) == set(module.state_dict()) == expected
    # nothing else in the file is as large as a second model: AdamW keeps two numbers a weight
    size = sum(p.numel() * 4 for p in module.policy.parameters())
    assert (tmp_path / "last.ckpt").stat().st_size < 3 * size + 60_000


def test_training_with_a_cached_and_with_a_frozen_reference_is_the_same():
    logged, trained = [], []
    for kind in KINDS:
        watch, module = Watch(), unlearning(kind)
        fit(module, BATCHES, watch, max_epochs=2)
        logged.append(watch.logged)
        trained.append(module.policy.state_dict())
    assert len(logged[0]) == 4
    for cached, frozen in zip(*logged, strict=True):
        assert cached == pytest.approx(frozen, rel=1e-4, abs=1e-5)
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, atol=1e-4, rtol=1e-3)


# --- modes


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_trains_in_train_mode_although_it_was_loaded_in_eval(kind, tmp_path):
    tiny_models.model().save_pretrained(tmp_path)
    policy = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert not policy.training
    module, watch, reference = unlearning(kind, policy), Watch(), []
    if kind == "frozen":
        module.reference.model.register_forward_hook(lambda m, *_: reference.append(m.training))
    fit(module, BATCHES, watch)
    assert watch.training
    assert all(watch.training)
    assert reference == ([False, False] if kind == "frozen" else [])


def test_each_epoch_starts_in_train_mode_whatever_a_callback_left_behind():
    class LeavesEval(L.Callback):
        def on_train_epoch_end(self, trainer, module):
            module.policy.eval()

    module, watch = unlearning(), Watch()
    fit(module, BATCHES, watch, LeavesEval(), max_epochs=2)
    assert all(watch.training)


def with_pairs(order):
    """A batch with retain samples and alternates."""
    batch = shuffled(order)
    batch.retain = collate([RETAIN[i] for i in order], order, 0)
    batch.alternate = collate([RETAIN[-1 - i] for i in order], order, 0)
    return batch


@pytest.mark.parametrize(
    ("loss", "batches"),
    [
        (make_loss(beta=0.3), BATCHES),
        (make_loss(beta=0.3, retain="ce"), [with_pairs((0, 2)), with_pairs((3, 1))]),
        (
            make_loss(forget="idk", on="all", preserve="none", retain="ce"),
            [with_pairs((0, 2)), with_pairs((3, 1))],
        ),
    ],
)
@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_a_step_runs_the_policy_once_over_forget_retain_and_alternate_samples(
    loss, batches, batching
):
    module, calls = unlearning(batching=batching, loss=loss), []
    module.policy.register_forward_pre_hook(lambda *_: calls.append(1))
    fit(module, batches)
    assert len(calls) == len(batches)


def test_samples_that_share_a_forward_have_the_scores_of_forwards_of_their_own():
    batch = with_pairs((2, 0, 3))
    module = unlearning(loss=make_loss(forget="idk", on="all", preserve="none", retain="ce"))
    groups = [SampleGroup(b, losses.RETAIN["ce"]) for b in (batch, batch.retain, batch.alternate)]
    for group, scored in zip(groups, module._score(groups), strict=True):
        expected = score_tokens(module.policy, group.batch)
        for name in ("logit", "logprob", "mean_logit"):
            torch.testing.assert_close(getattr(scored.policy, name), getattr(expected, name))


# --- what a step does


def mean_unwanted_logit(policy):
    with torch.no_grad():
        scores = tiny_models.plain_scores(policy.eval(), tiny_models.ITEMS)
    return scores.logit[shuffled((0, 1, 2, 3)).uw[:, 1:]].mean().item()


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_training_moves_unwanted_logits_down_and_logs_by_how_much(batching):
    module, watch = unlearning(batching=batching), Watch()
    before = mean_unwanted_logit(module.policy)
    fit(module, [shuffled((0, 1, 2, 3))] * 5, watch)
    after = mean_unwanted_logit(module.policy)
    assert after < before - 1
    changes = [row["train/uw_logit_change"] for row in watch.logged]
    assert changes[0] == pytest.approx(0, abs=1e-5)
    assert changes == sorted(changes, reverse=True)
    assert after - before < changes[-1] < -0.5  # the last row was logged before the last step


@pytest.mark.parametrize(("beta", "pl_weight"), [(0.3, 0.0), (0.1, 0.5)])
def test_the_first_loss_is_2_ln_2_over_beta_plus_weighted_pl(beta, pl_weight):
    module, watch = unlearning(loss=make_loss(beta=beta, pl_weight=pl_weight)), Watch()
    with torch.no_grad():
        batch, items = BATCHES[0], [tiny_models.ITEMS[0], tiny_models.ITEMS[2]]
        plain = tiny_models.plain_scores(module.policy, items)
    pl = -(plain.logprob * batch.gw[:, 1:]).sum().item() / 2
    fit(module, BATCHES, watch)
    first = watch.logged[0]
    assert first["train/lpl"] == pytest.approx(2 * 0.69314718 / beta, rel=1e-5)
    assert first["train/pl"] == pytest.approx(pl, rel=1e-5)
    assert first["train/loss"] == pytest.approx(2 * 0.69314718 / beta + pl_weight * pl, rel=1e-5)
    assert [row["epoch"] for row in watch.logged] == [1, 1]


def test_the_retain_term_trains_on_the_paired_samples():
    pair = dataclasses.replace(shuffled((0, 2)), retain=shuffled((3, 1)))
    module, watch = unlearning(loss=make_loss(retain="ce", retain_weight=2.0)), Watch()
    with torch.no_grad():
        plain = tiny_models.plain_scores(
            module.policy, [tiny_models.ITEMS[3], tiny_models.ITEMS[1]]
        )
    fit(module, [pair], watch)
    assert watch.logged[0]["train/retain"] == pytest.approx(
        -plain.logprob.sum().item() / 5, rel=1e-5
    )  # gg, ugg


def test_finetuning_needs_no_reference_and_follows_torchs_own_adamw_on_hugging_faces_loss():
    # Independent of tif: the same three steps by hand, with the schedule's factors 1, 2/3, 1/3.
    batch, plain = shuffled((0, 1, 2, 3)), tiny_models.model().train()
    keys = {
        "optimizer": Optimizer(lr=1e-2, warmup_epochs=0, weight_decay=0.1),
        "gradient_clip_val": None,
    }
    module = unlearning(None, loss=make_loss(forget="ce", on="all", preserve="none"), **keys)
    fit(module, [batch] * 3)
    groups = [
        [p for p in plain.parameters() if (p.dim() > 1) is matrix] for matrix in (True, False)
    ]
    adamw = torch.optim.AdamW(
        [{"params": groups[0]}, {"params": groups[1], "weight_decay": 0.0}], weight_decay=0.1
    )
    labels = batch.input_ids.masked_fill(~batch.answer, -100)
    mask = (torch.arange(9) < batch.lengths[:, None]).long()
    for factor in (1, 2 / 3, 1 / 3):
        for group in adamw.param_groups:
            group["lr"] = 1e-2 * factor
        adamw.zero_grad()
        plain(input_ids=batch.input_ids, attention_mask=mask, labels=labels).loss.backward()
        adamw.step()
    for (name, actual), expected in zip(
        module.policy.named_parameters(), plain.parameters(), strict=True
    ):
        torch.testing.assert_close(
            actual, expected, atol=1e-4, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}"
        )


# --- a loss that is not finite


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_is_not_finite_stops_before_the_optimizer_step_and_names_the_samples(kind):
    # Token 60 is broken; only sample "poison" of the second batch has it.
    poison = dataclasses.replace(
        tiny_models.ITEMS[0], id="poison", input_ids=[3, 60, *tiny_models.ITEMS[0].input_ids[2:]]
    )
    second = collate([tiny_models.ITEMS[1], poison], [1, 0], 0)
    policy = tiny_models.model()
    assert 60 not in BATCHES[0].input_ids
    module, watch = unlearning(kind, policy), Watch()
    with torch.no_grad():
        policy.model.embed_tokens.weight[60] = float("inf")
    with pytest.raises(FloatingPointError) as caught:
        fit(module, [BATCHES[0], second], watch)
    assert "on samples b, poison" in str(caught.value)
    assert "loss is nan at step 1" in str(caught.value)
    assert "lpl nan" in str(caught.value)
    assert "optimizer.lr" in str(caught.value)
    assert len(watch.lrs) == 2  # the first step was taken
    assert not torch.equal(watch.before["lm_head.weight"], tiny_models.model().lm_head.weight)
    assert_bit_identical(weights(module.policy), watch.before)


# --- optimizer and schedule


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        # 2 epochs of 4 steps, half an epoch = 2 steps of warm-up, then (8 - step) / 6
        ({"warmup_epochs": 0.5}, [1 / 3, 2 / 3, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ({"warmup_epochs": 0.5, "decay": "constant"}, [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1]),
        ({"warmup_epochs": 0.0}, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ({"warmup_epochs": 0.0, "decay": "constant"}, [1] * 8),
        # warm-up to the end of training
        ({"warmup_epochs": 2.0}, [k / 9 for k in range(1, 9)]),
    ],
)
def test_the_learning_rate_follows_the_schedule(keys, expected):
    watch = Watch()
    module = unlearning(optimizer=Optimizer(lr=1e-3, **keys), max_epochs=2)
    fit(module, BATCHES * 2, watch)
    assert watch.lrs == pytest.approx([1e-3 * f for f in expected])


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", ["adamw8bit", "paged_adamw", "paged_adamw8bit"])
def test_bitsandbytes_optimizers_train_as_adamw_does_and_hold_their_state_in_their_bits(name):
    trained = []
    for optimizer_name in ("adamw", name):
        module = unlearning(
            policy=wide(), optimizer=Optimizer(name=optimizer_name, lr=1e-3, warmup_epochs=0)
        )
        trainer = fit(module, BATCHES * 5)
        trained.append(module.policy.lm_head.weight.detach())
    plain, few = trained
    start = wide().lm_head.weight.detach()
    assert (plain - start).abs().max() > 2e-3
    assert (few - plain).norm() < (0.3 if "8bit" in name else 1e-3) * (plain - start).norm()
    state = trainer.optimizers[0].state[module.policy.lm_head.weight]
    assert state["state2"].dtype == (torch.uint8 if "8bit" in name else torch.float32)
    assert len(trainer.optimizers[0].param_groups) == 2


def wide():
    """bitsandbytes leaves matrices of less than 4096 weights in float32."""
    return tiny_models.model(hidden_size=128)


def test_only_matrices_decay():
    module = unlearning(optimizer=Optimizer(lr=1e-2, weight_decay=0.3))
    trainer = fit(module, BATCHES)
    decay = {
        id(p): group["weight_decay"]
        for group in trainer.optimizers[0].param_groups
        for p in group["params"]
    }
    actual = {name: decay[id(p)] for name, p in module.policy.named_parameters()}
    assert {v for name, v in actual.items() if "norm" in name} == {0.0}
    assert {v for name, v in actual.items() if "norm" not in name} == {0.3}


def test_parameters_that_need_no_gradient_stay_out_of_the_optimizer():
    policy = tiny_models.model()
    policy.model.embed_tokens.requires_grad_(False)
    before, module = weights(policy), unlearning(policy=policy)
    trainer = fit(module, BATCHES)
    held = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert id(policy.model.embed_tokens.weight) not in held
    assert torch.equal(policy.model.embed_tokens.weight, before["model.embed_tokens.weight"])
    assert not torch.equal(policy.lm_head.weight, before["lm_head.weight"])


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("clip", [1.0, None])
def test_reduced_precision_trains_with_and_without_clipping_and_the_loss_is_float32(
    precision, clip
):
    module, dtypes = unlearning(precision=precision, gradient_clip_val=clip), []
    compute, watch = losses.compute_loss, Watch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            losses,
            "compute_loss",
            lambda *a, **k: dtypes.append((t := compute(*a, **k)).total.dtype) or t,
        )
        fit(module, BATCHES, watch)
    assert dtypes == [torch.float32] * 2
    assert all(torch.isfinite(p).all() for p in module.policy.parameters())
    assert watch.logged[0]["train/lpl"] == pytest.approx(2 * 0.69314718 / 0.3, rel=0.05)


def test_a_steps_loss_and_gradient_are_those_of_the_whole_batch_however_it_is_split():
    batch, watch = shuffled((0, 1, 2, 3)), Gradient()
    policy = tiny_models.model()
    reference = references.make_reference("cached", policy, tiny_models.ITEMS, 0, "packed")
    nudge(policy)
    plain = ScoredBatch(
        Scored(tiny_models.plain_scores(policy, tiny_models.ITEMS), reference.scores(batch))
    )
    expected = losses.compute_loss(plain, batch, make_loss(beta=0.3))
    expected.total.backward()
    module = unlearning_module(policy, config(gradient_clip_val=None), "packed", reference)
    module.settings.data.max_tokens_per_batch = 16  # 25 tokens: two parts
    assert len(module.parts(batch)) == 2
    gradients = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    fit(module, [batch], watch)
    for name, value in {"loss": expected.total, **expected.parts}.items():
        torch.testing.assert_close(
            watch.logged[name], value.detach(), msg=lambda m, n=name: f"{n}: {m}"
        )
    for actual, gradient in zip(watch.gradients, gradients, strict=True):
        torch.testing.assert_close(actual, gradient, atol=1e-5, rtol=1e-4)
    assert module.step_values.keys() == {"train/loss", "train/lpl", "train/pl"}


def test_twenty_steps_on_packed_and_on_padded_batches_end_with_the_same_weights():
    batches = [shuffled(order) for order in ((0, 1, 2, 3), (2, 0), (3,), (1, 2, 3))] * 5
    trained = []
    for batching in ("packed", "padded"):
        module = unlearning(batching=batching, loss=make_loss(beta=0.3, pl_weight=0.1))
        module.settings.data.max_tokens_per_batch = 18 if batching == "padded" else None
        fit(module, batches)
        trained.append(weights(module.policy))
    start = weights(tiny_models.model())
    assert (trained[0]["lm_head.weight"] - start["lm_head.weight"]).abs().max() > 0.05
    for name, packed in trained[0].items():
        torch.testing.assert_close(trained[1][name], packed, atol=2e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "models_alive"), [("auto", 1), ("cached", 1), ("frozen", 2)])
def test_auto_holds_no_second_model_where_the_loss_needs_token_scores_only(kind, models_alive):
    class Count(L.Callback):
        def on_before_optimizer_step(self, *_):
            gc.collect()
            alive = [
                o for o in gc.get_objects() if type(o) is torch.nn.Parameter and o.shape == (61, 16)
            ]
            self.alive = [p for p in alive if p.dtype == torch.float32]

    before, count = Count(), Count()
    before.on_before_optimizer_step()  # what other tests have left
    module = unlearning(kind)
    assert losses.required_reference(module.settings.loss) == "scores"
    fit(module, BATCHES[:1], count)
    assert len(count.alive) - len(before.alive) == 2 * models_alive  # embeddings and head


class Gradient(L.Callback):
    """The gradient that the optimizer sees, and what the step logs."""

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.gradients = [p.grad.clone() for p in module.policy.parameters()]

    def on_train_batch_end(self, trainer, module, *_):
        self.logged = {k.removeprefix("train/"): v for k, v in trainer.callback_metrics.items()}


# --- the moving retain weight (PDU)


def dual(**keys):
    loss = make_loss(
        forget="ga", on="all", preserve="none", retain="ce", retain_weight=2.0, dual=Dual(**keys)
    )
    pair = dataclasses.replace(shuffled((0, 2)), retain=shuffled((3, 1)))
    return unlearning(
        None, loss=loss, max_epochs=3, optimizer=Optimizer(lr=1e-4, warmup_epochs=0)
    ), pair


def test_the_retain_weight_rises_by_what_the_retain_term_is_above_its_limit_after_the_warm_up():
    (module, pair), watch = dual(limit=1.0, step=0.5, warmup_epochs=1), Watch()
    fit(module, [pair], watch)
    retain = [row["train/retain"] for row in watch.logged]
    # the step of epoch 1 does not move it; a step is taken with the weight before it moves
    expected = [2.0, 2.0, 2.0 + 0.5 * (retain[1] - 1)]
    assert [row["train/retain_weight"] for row in watch.logged] == pytest.approx(expected)
    assert module.retain_weight.item() == pytest.approx(expected[-1] + 0.5 * (retain[2] - 1))
    for row, weight in zip(watch.logged, expected, strict=True):
        assert row["train/loss"] == pytest.approx(
            row["train/ga"] + weight * (row["train/retain"] - 1), rel=1e-4
        )


def test_the_retain_weight_falls_to_0_and_no_further_below_the_limit():
    (module, pair), watch = dual(limit=1000.0, step=1.0, warmup_epochs=0), Watch()
    fit(module, [pair], watch)
    assert [row["train/retain_weight"] for row in watch.logged] == [2.0, 0.0, 0.0]


def test_the_retain_weight_is_in_the_checkpoint_where_it_moves_and_only_there():
    assert "retain_weight" in dual(limit=1.0)[0].state_dict()
    assert "retain_weight" not in dual()[0].state_dict()


# --- the task vector


TASK_VECTOR = make_loss(forget="ce", on="all", preserve="none", task_vector=0.5)


def test_a_task_vector_is_evaluated_with_weights_as_far_on_the_other_side_and_trained_on_this_one():
    module = unlearning(None, loss=TASK_VECTOR)
    start = weights(module.policy)
    fit(module, BATCHES)
    trained = weights(module.policy)
    with module.unlearned() as policy:
        inside = weights(policy)
    assert_bit_identical(weights(module.policy), trained)
    for name, value in inside.items():
        torch.testing.assert_close(value, start[name] - 0.5 * (trained[name] - start[name]))
    assert not torch.equal(inside["lm_head.weight"], start["lm_head.weight"])
    with pytest.raises(KeyError), module.unlearned():
        raise KeyError
    assert_bit_identical(weights(module.policy), trained)


@pytest.mark.parametrize(("train", "negate"), [("forget", None), ("full", 0.5)])
def test_other_runs_and_stages_are_evaluated_as_they_were_trained(train, negate):
    cfg = config(loss=dataclasses.replace(TASK_VECTOR, task_vector=negate))
    cfg.data.train = train
    module = unlearning_module(tiny_models.model(), cfg, "packed")
    fit(module, BATCHES)
    trained = weights(module.policy)
    with module.unlearned() as policy:
        assert_bit_identical(weights(policy), trained)
    assert isinstance(
        module.unlearned(), contextlib.nullcontext
    )  # which holds no copy of the weights
