"""The policy from scratch and from disk, its references, export."""

import dataclasses

import pytest
import safetensors.torch
import torch
import transformers

from tests.support import tiny_models
from tests.support.model_weights import assert_bit_identical, nudge, weights
from tests.support.tiny_models import shuffled
from tif import losses
from tif.config.errors import ConfigError
from tif.config.schema import Model
from tif.data.encoding import collate
from tif.losses import make_loss
from tif.losses.terms import Scored, ScoredBatch
from tif.models import export, references
from tif.models import load as models
from tif.models.references import CachedReference, ModelReference, make_reference, score_samples
from tif.scoring.token_scores import score_tokens
from tif.utils import torch_state

NAMES = ("logit", "logprob", "mean_logit")
INIT = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


# --- references


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (1,), (1, 3), (2, 2, 0)])
def test_cached_and_frozen_references_give_the_original_models_scores(order, batching):
    # Rows of 4, 5, 7 and 9 tokens, alone and together: the batch is padded to another width than the cache was.
    policy, expected = tiny_models.model(), None
    with torch.no_grad():
        expected = tiny_models.plain_scores(
            tiny_models.model(), [tiny_models.ITEMS[i] for i in order]
        )
    references = [
        make_reference(kind, policy, tiny_models.ITEMS, pad_id=0, batching=batching)
        for kind in ("auto", "cached", "frozen")
    ]
    nudge(policy)
    for reference in references:
        scores = reference.scores(shuffled(order))
        for name in NAMES:
            assert not getattr(scores, name).requires_grad
            torch.testing.assert_close(
                getattr(scores, name), getattr(expected, name), atol=1e-5, rtol=0
            )


@pytest.mark.parametrize(
    "cfg", [make_loss(), make_loss(on="all", lpl_baseline="mean", lpl_reduction="batch")]
)
def test_cached_and_frozen_references_give_the_same_loss_and_diagnostics(cfg):
    policy, batch = tiny_models.model(), shuffled((3, 0, 2, 1))
    cached, frozen = (
        make_reference(k, policy, tiny_models.ITEMS, 0, "packed") for k in ("cached", "frozen")
    )
    nudge(policy)
    scores = score_tokens(policy, batch)
    actual, expected = (
        losses.compute_loss(ScoredBatch(Scored(scores, r.scores(batch))), batch, cfg)
        for r in (cached, frozen)
    )
    torch.testing.assert_close(actual.total, expected.total)
    torch.testing.assert_close(actual.parts, expected.parts)
    assert abs(expected.parts["uw_logit_change"]) > 0.01  # the policy has moved


def test_auto_is_the_reference_without_a_second_model():
    policy = tiny_models.model()
    kinds = {
        k: type(make_reference(k, policy, tiny_models.ITEMS, 0, "packed"))
        for k in ("auto", "cached", "frozen")
    }
    assert kinds == {"auto": CachedReference, "cached": CachedReference, "frozen": ModelReference}


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_the_cache_does_not_depend_on_the_batches_it_was_made_in(batch_size, monkeypatch):
    monkeypatch.setattr(references, "BATCH_SIZE", batch_size)
    policy = tiny_models.model()
    cache = CachedReference(score_samples(policy, tiny_models.ITEMS, 0, "packed"))
    assert [row.shape for row in cache.rows["logit"]] == [(6,), (3,), (8,), (4,)]
    with torch.no_grad():
        expected = tiny_models.plain_scores(policy, tiny_models.ITEMS)
    torch.testing.assert_close(
        cache.scores(shuffled((0, 1, 2, 3))).logprob, expected.logprob, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("kind", ["cached", "frozen"])
@pytest.mark.parametrize("training", [True, False])
def test_a_reference_ignores_dropout_and_leaves_the_policys_mode_alone(kind, training):
    policy = tiny_models.model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5).train(training)
    with torch.no_grad():
        expected = tiny_models.plain_scores(tiny_models.model("gpt2"), tiny_models.ITEMS)
    reference = make_reference(kind, policy, tiny_models.ITEMS, 0, "packed")
    assert policy.training is training
    policy.train()
    actual = reference.scores(shuffled((0, 1, 2, 3)))
    torch.testing.assert_close(actual.logit, expected.logit, atol=1e-5, rtol=0)


def test_the_frozen_reference_is_a_copy_that_cannot_learn():
    policy = tiny_models.model().train()
    before, reference = weights(policy), make_reference("frozen", policy, (), 0, "packed")
    nudge(policy)
    assert_bit_identical(reference.model.state_dict(), before)
    assert not any(p.requires_grad for p in reference.model.parameters())
    assert all(p.requires_grad for p in policy.parameters())
    assert not reference.model.training
    assert policy.training


def test_the_cache_holds_12_bytes_a_token_and_no_view_of_larger_tensors():
    cache = CachedReference(score_samples(tiny_models.model(), tiny_models.ITEMS, 0, "packed"))
    stored = sum(row.untyped_storage().nbytes() for rows in cache.rows.values() for row in rows)
    assert stored == 12 * (6 + 3 + 8 + 4)


# --- modes, seeds, devices


def test_frozen_turns_gradients_and_dropout_off_and_puts_the_mode_back_even_after_an_error():
    for training in (True, False):
        model = tiny_models.model().train(training)
        with torch_state.evaluation_mode(model):
            assert not model.training
            assert not torch.is_grad_enabled()
        assert model.training is training
        assert torch.is_grad_enabled()
    model.train()
    with pytest.raises(KeyError), torch_state.evaluation_mode(model):
        raise KeyError
    assert model.training


def test_seeded_draws_repeat_and_leave_the_random_state_outside_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = torch.rand(1)
    with torch_state.seeded(3):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)
    with torch_state.seeded(3):
        assert torch.equal(torch.rand(3), inside)
    with torch_state.seeded(4):
        assert not torch.equal(torch.rand(3), inside)


def test_a_batch_moves_with_its_retain_samples_and_keeps_everything_else():
    batch = dataclasses.replace(shuffled((0, 1)), retain=shuffled((2, 3)))
    moved = batch.to("meta")
    for before, after in ((batch, moved), (batch.retain, moved.retain)):
        assert after.ids == before.ids
        for field in ("index", "input_ids", "lengths", "uw", "gw"):
            assert getattr(after, field).device.type == "meta"
            assert getattr(after, field).shape == getattr(before, field).shape
            assert getattr(before, field).device.type == "cpu"


# --- loading


def test_a_policy_from_scratch_depends_on_its_seed_only(tokenizer):
    torch.manual_seed(1)
    first, state = models.load_policy(Model(init=INIT), tokenizer, 7), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert_bit_identical(
        models.load_policy(Model(init=INIT), tokenizer, 7).state_dict(), weights(first)
    )
    other = models.load_policy(Model(init=INIT), tokenizer, 8)
    assert not torch.equal(other.lm_head.weight, first.lm_head.weight)


def test_a_policy_from_scratch_knows_the_tokenizers_ids_and_is_in_training_mode(tokenizer):
    policy = models.load_policy(Model(init=INIT, dtype="bfloat16"), tokenizer, 0)
    assert policy.config.eos_token_id == tokenizer.eos_token_id
    assert policy.config.pad_token_id == tokenizer.pad_token_id
    assert policy.get_input_embeddings().num_embeddings == len(tokenizer)
    assert {p.dtype for p in policy.parameters()} == {torch.bfloat16}
    assert policy.training


def test_an_exported_policy_loads_back_bit_identical_and_in_training_mode(tokenizer, tmp_path):
    policy = models.load_policy(Model(init=INIT), tokenizer, 0)
    export.export_model(policy, tokenizer, tmp_path / "model", "# card")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
    assert (tmp_path / "model" / "README.md").read_text() == "# card"
    assert not list((tmp_path / "model").glob("*.bin"))
    cfg = Model(path=str(tmp_path / "model"))
    models.check_model(cfg)
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


def test_dtype_attention_and_checkpointing_reach_the_loaded_policy(tokenizer, tmp_path):
    export.export_model(
        models.load_policy(Model(init=INIT), tokenizer, 0), tokenizer, tmp_path / "m", ""
    )
    cfg = Model(
        path=str(tmp_path / "m"), dtype="bfloat16", attention="eager", gradient_checkpointing=True
    )
    policy = models.load_policy(cfg, tokenizer, 0)
    assert policy.dtype == torch.bfloat16
    assert policy.config._attn_implementation == "eager"
    assert policy.model.gradient_checkpointing


def test_gradient_checkpointing_changes_no_gradient(tokenizer):
    batch, gradients = shuffled((0, 1, 2, 3)), []
    for checkpointing in (False, True):
        policy = models.load_policy(
            Model(init=INIT, gradient_checkpointing=checkpointing), tokenizer, 0
        )
        score_tokens(policy, batch).logprob.sum().backward()
        gradients.append([p.grad for p in policy.parameters()])
    for actual, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"path": "no/such/folder"},
            "model.path: no folder no/such/folder; want a Hugging Face folder",
        ),
        ({"path": "{empty}"}, "holds no config.json"),
        ({"path": "{strange}"}, "is no model that can be loaded"),
        (
            {"init": {"hidden_size": 16, "hiden_layers": 2}},
            "model.init: LlamaConfig has no hiden_layers",
        ),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_before_weights_load(tmp_path, keys, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.json").write_text('{"model_type": "no-such-type"}')
    places = {"empty": tmp_path / "empty", "strange": tmp_path / "strange"}
    keys = {k: v.format(**places) if isinstance(v, str) else v for k, v in keys.items()}
    with pytest.raises(ConfigError, match=message):
        models.check_model(Model(**keys))


def test_scores_are_told_apart_by_sample_not_by_position_in_the_batch():
    # The cache is looked up by Batch.index alone.
    rows = {
        name: [torch.full((2,), float(10 * i + k)) for i in range(3)]
        for k, name in enumerate(NAMES)
    }
    batch = collate([tiny_models.encoded("x", "pgg"), tiny_models.encoded("y", "pggg")], [2, 0], 0)
    scores = CachedReference(rows).scores(batch)
    assert scores.logit.tolist() == [[20.0, 20.0, 0.0], [0.0, 0.0, 0.0]]
    assert scores.logprob.tolist() == [[21.0, 21.0, 0.0], [1.0, 1.0, 0.0]]
    assert scores.mean_logit.tolist() == [[22.0, 22.0, 0.0], [2.0, 2.0, 0.0]]
