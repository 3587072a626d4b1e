"""The LM head in chunks, and the scores of its logits with their gradient."""

import pytest
import torch
import transformers

from tests.support import tiny_models
from tests.support.tensor_sizes import LargestRows
from tif.config.model import Lora
from tif.config.schema import Model
from tif.models.load import prepare_for_training
from tif.scoring import lm_head
from tif.scoring.token_scores import score_tokens

NAMES = ("logit", "logprob", "mean_logit")


def scores_and_gradients(kind, batching, chunk_tokens):
    """Return scores of four samples (16 answer tokens) and the gradient of a sum over all."""
    model = tiny_models.model(kind)
    scores = score_tokens(model, tiny_models.batch_of(*tiny_models.ITEMS), batching, chunk_tokens)
    (
        scores.logit.sum() + 2 * scores.logprob.square().sum() - 3 * scores.mean_logit.sum()
    ).backward()
    return scores.detach(), [weight.grad for weight in model.parameters()]


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_chunks_give_the_scores_and_gradients_of_one_piece_logit_transforms_included(
    kind, batching
):
    expected, expected_gradients = scores_and_gradients(kind, batching, 100)
    actual, actual_gradients = scores_and_gradients(kind, batching, 5)
    for name in NAMES:
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))
    for actual_gradient, expected_gradient in zip(
        actual_gradients, expected_gradients, strict=True
    ):
        torch.testing.assert_close(actual_gradient, expected_gradient, atol=1e-4, rtol=1e-4)


SPLIT = {
    "cohere": (transformers.CohereConfig, {"logit_scale": 0.3}),
    "granite": (transformers.GraniteConfig, {"logits_scaling": 3.0}),
    "gemma2": (transformers.Gemma2Config, {"head_dim": 8, "final_logit_softcapping": 3.0}),
}


@pytest.mark.parametrize("kind", SPLIT)
def test_a_models_logit_transform_is_in_its_split(kind):
    config, keys = SPLIT[kind]
    model = tiny_models.spread(
        transformers.AutoModelForCausalLM.from_config(config(**tiny_models.LLAMA_LIKE | keys))
    )
    split = lm_head.split_model(model)
    ids = torch.tensor([[5, 3, 8, 1]])
    with torch.no_grad():
        actual = split.compute_logits(split.decoder(input_ids=ids).last_hidden_state)
        torch.testing.assert_close(actual, model(input_ids=ids).logits)


def test_a_model_with_an_unknown_logit_transform_is_scored_in_one_piece():
    class Doubled(transformers.LlamaForCausalLM):
        def forward(self, **keys):
            output = super().forward(**keys)
            output.logits = output.logits * 2
            return output

    model = tiny_models.spread(Doubled(tiny_models.CONFIGS["llama"]()))
    assert lm_head.split_model(model) is None
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    with torch.no_grad():
        actual = score_tokens(model, batch, "packed", chunk_tokens=5).logprob
        torch.testing.assert_close(
            actual, tiny_models.plain_scores(model, tiny_models.ITEMS).logprob
        )


def test_splitting_leaves_the_models_mode_alone():
    model = tiny_models.model().train()
    lm_head.split_model(model)
    assert all(layer.training for layer in model.modules())


@pytest.mark.parametrize("copies", [2, 4])
def test_logits_of_a_chunk_are_the_most_that_is_held_however_large_the_batch(copies):
    items, rows = tiny_models.ITEMS * copies, []
    for chunk_tokens in (20, 1000):  # more than a (16, V) gradient of the head's weight has
        model = tiny_models.model()
        with LargestRows(tiny_models.VOCAB) as largest:
            score_tokens(
                model, tiny_models.batch_of(*items), "packed", chunk_tokens
            ).logprob.sum().backward()
        rows.append(largest.rows)
    assert rows == [20, 16 * copies]


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_scores_of_logits_and_their_gradient_are_those_of_the_plain_formulas(rows):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (rows,), generator=generator)
    actual, at = lm_head.scores_of_logits(logits, targets), torch.arange(rows)
    expected = logits[at, targets], logits.log_softmax(1)[at, targets], logits.mean(1)
    for actual_column, expected_column in zip(actual, expected, strict=True):
        torch.testing.assert_close(actual_column, expected_column)
    weights = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    weights[1:, ::3] = 0  # only their logits count
    gradients = [
        torch.autograd.grad((torch.stack(s) * weights).sum(), logits)[0] for s in (actual, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_scores_of_bfloat16_logits_are_computed_in_float32_and_their_gradient_is_bfloat16():
    logits = (
        (torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 10)
        .bfloat16()
        .requires_grad_()
    )
    targets = torch.tensor([1, 2, 3])
    _, logprob, _ = lm_head.scores_of_logits(logits, targets)
    torch.testing.assert_close(logprob, logits.float().log_softmax(1)[torch.arange(3), targets])
    logprob.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def targeted(scores, batch):
    """A loss of TPO's kind: the logits of unwanted words, the log-probabilities of general ones."""
    uw, gw = batch.uw[:, 1:], batch.gw[:, 1:]
    return (scores.logit * uw).sum().square() - 2 * (scores.logprob * gw).sum()


def assert_gradients_of_a_plain_loop(
    model, plain, chunk_tokens, items=tiny_models.ITEMS, **tolerance
):
    batch = tiny_models.batch_of(*items)
    targeted(score_tokens(model, batch, "packed", chunk_tokens), batch).backward()
    targeted(tiny_models.plain_scores(plain, items), batch).backward()
    for actual, expected in zip(model.parameters(), plain.parameters(), strict=True):
        assert (actual.grad is None) is (expected.grad is None)
        if actual.grad is not None:
            torch.testing.assert_close(
                actual.grad, expected.grad, **(tolerance or {"atol": 1e-3, "rtol": 1e-4})
            )


@pytest.mark.parametrize("chunk_tokens", [100, 5])
@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_gradients_are_those_of_a_plain_loop(kind, chunk_tokens):
    assert_gradients_of_a_plain_loop(tiny_models.model(kind), tiny_models.model(kind), chunk_tokens)


@pytest.mark.parametrize("labels", ["pppuu", "pppgg", "ppugu"])
def test_so_are_those_of_texts_all_or_none_of_whose_words_are_unwanted(labels):
    items = [tiny_models.encoded("a", labels), tiny_models.encoded("b", labels)]
    assert_gradients_of_a_plain_loop(tiny_models.model("phi"), tiny_models.model("phi"), 100, items)


@pytest.mark.parametrize("trained", ["head", "decoder"])
def test_so_are_those_of_a_model_one_part_of_which_is_frozen(trained):
    models = tiny_models.model("phi"), tiny_models.model("phi")
    for model in models:
        (model.model if trained == "head" else model.lm_head).requires_grad_(False)
    assert_gradients_of_a_plain_loop(*models, 5)


@pytest.mark.parametrize("chunk_tokens", [100, 5])
def test_so_are_those_of_adapters_in_the_head_itself(chunk_tokens):
    cfg = Model(lora=Lora(rank=4, targets=["lm_head"]))
    models = [
        tiny_models.spread(prepare_for_training(tiny_models.model(), cfg, 0)) for _ in range(2)
    ]
    assert_gradients_of_a_plain_loop(*models, chunk_tokens)


def test_so_are_those_of_autocast_to_its_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert_gradients_of_a_plain_loop(
            tiny_models.model("phi"), tiny_models.model("phi"), 100, atol=2.0, rtol=0.1
        )


def test_two_forwards_before_one_backward_add_up():
    model, plain = tiny_models.model("llama-tied"), tiny_models.model("llama-tied")
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    sum(targeted(score_tokens(model, batch), batch) for _ in range(2)).backward()
    (2 * targeted(tiny_models.plain_scores(plain, tiny_models.ITEMS), batch)).backward()
    for actual, expected in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(actual.grad, expected.grad, atol=1e-3, rtol=1e-4)
