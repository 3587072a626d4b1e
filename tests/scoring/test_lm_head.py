"""The LM head in chunks, and the scores of its logits with their gradient."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.support import tiny_models
from tif.config.model import Lora
from tif.config.schema import Model
from tif.models.load import prepare_for_training
from tif.scoring import lm_head as head
from tif.scoring.token_scores import token_scores

NAMES = ("logit", "logprob", "mean_logit")


def scored(kind, batching, chunk_tokens):
    """Scores of the four samples (16 answer tokens), and the gradient of something that depends on all of them."""
    model = tiny_models.model(kind)
    scores = token_scores(model, tiny_models.batch_of(*tiny_models.ITEMS), batching, chunk_tokens)
    (scores.logit.sum() + 2 * scores.logprob.square().sum() - 3 * scores.mean_logit.sum()).backward()
    return scores.detach(), [p.grad for p in model.parameters()]


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_chunks_give_the_scores_and_gradients_of_one_piece_logit_transforms_included(kind, batching):
    (expected, gradients), (actual, found) = (scored(kind, batching, n) for n in (100, 5))
    for name in NAMES:
        torch.testing.assert_close(getattr(actual, name), getattr(expected, name))
    for one, other in zip(found, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


class Largest(TorchDispatchMode):
    """Rows of the largest tensor with a vocabulary's width that any operation returns."""

    rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, torch.Tensor) and t.dim() > 1 and t.shape[-1] == tiny_models.VOCAB:
                self.rows = max(self.rows, t.numel() // tiny_models.VOCAB)
        return out


@pytest.mark.parametrize("copies", [2, 4])
def test_logits_of_a_chunk_are_the_most_that_is_held_however_large_the_batch(copies):
    items, found = tiny_models.ITEMS * copies, []
    for chunk_tokens in (20, 1000):  # more than a (16, V) gradient of the head's weight has
        model = tiny_models.model()
        with Largest() as largest:
            token_scores(model, tiny_models.batch_of(*items), "packed", chunk_tokens).logprob.sum().backward()
        found.append(largest.rows)
    assert found[0] == 20
    assert found[1] == 16 * copies


def test_decoder_and_head_are_back_in_their_places_after_an_error():
    model = tiny_models.model()
    decoder = model.model
    with pytest.raises(RuntimeError):
        head.scores_of_hidden(model, torch.zeros(3, 15), torch.zeros(3, dtype=torch.long))  # 16 wide
    assert model.model is decoder
    assert "forward" not in vars(model.lm_head)
    with pytest.raises(RuntimeError), head.skipped(model):
        raise RuntimeError
    assert model(input_ids=torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, tiny_models.VOCAB)


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_scores_of_logits_and_their_gradient_are_those_of_the_plain_formulas(rows):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(rows, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(7, (rows,), generator=generator)
    actual, at = head.of_logits(logits, targets), torch.arange(rows)
    expected = logits[at, targets], logits.log_softmax(1)[at, targets], logits.mean(1)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other)
    weights = torch.randn(3, rows, generator=generator, dtype=torch.float64)
    weights[1:, ::3] = 0  # only their logits count, some among the others, one at the end
    gradients = [torch.autograd.grad((torch.stack(s) * weights).sum(), logits)[0] for s in (actual, expected)]
    torch.testing.assert_close(*gradients)


def test_scores_of_bfloat16_logits_are_computed_in_float32_and_their_gradient_is_bfloat16():
    logits = (torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) * 10).bfloat16().requires_grad_()
    targets = torch.tensor([1, 2, 3])
    _, logprob, _ = head.of_logits(logits, targets)
    torch.testing.assert_close(logprob, logits.float().log_softmax(1)[torch.arange(3), targets])
    logprob.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def targeted(scores, batch):
    """A loss of TPO's kind: the logits of unwanted words, the log-probabilities of general ones."""
    uw, gw = batch.uw[:, 1:], batch.gw[:, 1:]
    return (scores.logit * uw).sum().square() - 2 * (scores.logprob * gw).sum()


def assert_gradients_of_a_plain_loop(model, plain, chunk_tokens, items=tiny_models.ITEMS, **tolerance):
    batch = tiny_models.batch_of(*items)
    targeted(token_scores(model, batch, "packed", chunk_tokens), batch).backward()
    targeted(tiny_models.plain_scores(plain, items), batch).backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        assert (one.grad is None) is (other.grad is None)
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, **(tolerance or {"atol": 1e-3, "rtol": 1e-4}))


@pytest.mark.parametrize("chunk_tokens", [100, 5])
@pytest.mark.parametrize("kind", tiny_models.CONFIGS)
def test_gradients_are_those_of_a_plain_loop_where_unwanted_words_have_but_one_entry(kind, chunk_tokens):
    assert_gradients_of_a_plain_loop(tiny_models.model(kind), tiny_models.model(kind), chunk_tokens)


@pytest.mark.parametrize("labels", ["pppuu", "pppgg", "ppugu"])
def test_so_are_those_of_texts_all_or_none_of_whose_words_are_unwanted(labels):
    items = [tiny_models.encoded("a", labels), tiny_models.encoded("b", labels)]
    assert_gradients_of_a_plain_loop(
        tiny_models.model("phi"), tiny_models.model("phi"), 100, items
    )  # its head has a bias


@pytest.mark.parametrize("trained", ["head", "decoder"])
def test_so_are_those_of_a_model_one_part_of_which_is_frozen(trained):
    models = tiny_models.model("phi"), tiny_models.model("phi")
    for model in models:
        (model.model if trained == "head" else model.lm_head).requires_grad_(False)
    assert_gradients_of_a_plain_loop(*models, 5)


def test_so_are_those_of_adapters_in_the_head_itself():
    cfg = Model(lora=Lora(rank=4, targets=["lm_head"]))
    assert_gradients_of_a_plain_loop(
        *(tiny_models.spread(prepare_for_training(tiny_models.model(), cfg, 0)) for _ in range(2)), 100
    )


def test_so_are_those_of_autocast_to_its_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert_gradients_of_a_plain_loop(tiny_models.model("phi"), tiny_models.model("phi"), 100, atol=2.0, rtol=0.1)


@pytest.mark.parametrize("chunk_tokens", [100, 5])
def test_on_their_way_back_unwanted_words_are_in_no_product_with_the_vocabulary(monkeypatch, chunk_tokens):
    batch, own, shapes = tiny_models.batch_of(*tiny_models.ITEMS), head.product, []  # 10 general words, 6 unwanted
    loss = targeted(token_scores(tiny_models.model(), batch, "packed", chunk_tokens), batch)
    monkeypatch.setattr(head, "product", lambda a, b, *bias: shapes.append(tuple(a.shape)) or own(a, b, *bias))
    loss.backward()
    assert sum(shape[0] for shape in shapes if shape[1:] == (tiny_models.VOCAB,)) == 10  # to the hidden states
    assert sum(shape[1] for shape in shapes if shape[0] == tiny_models.VOCAB) == 10  # to the weight


@pytest.mark.parametrize("padding", [None, 0, "first"])
@pytest.mark.parametrize("chunk_tokens", [100, 5])
def test_a_weight_that_embeddings_and_head_share_has_the_gradient_of_a_plain_loop(padding, chunk_tokens):
    models = tiny_models.model("llama-tied"), tiny_models.model("llama-tied")
    for model in models:
        model.model.embed_tokens.padding_idx = tiny_models.ITEMS[0].input_ids[0] if padding == "first" else padding
    assert_gradients_of_a_plain_loop(*models, chunk_tokens)
    assert all("forward" not in vars(m) for m in (models[0].model.embed_tokens, models[0].lm_head))


class FullSize(TorchDispatchMode):
    """Operations that return a new (V, D) tensor."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and out.shape == (tiny_models.VOCAB, 16) and not func.is_view:
            self.found.append(func.overloadpacket.__name__)
        return out


def test_a_shared_weights_gradient_is_made_once():
    batch, model = tiny_models.batch_of(*tiny_models.ITEMS), tiny_models.model("llama-tied")
    loss = targeted(token_scores(model, batch), batch)
    with FullSize() as size:
        loss.backward()
    assert size.found == ["mm", "index_add_", "index_add_"]  # one is new; unwanted words and embeddings are added to it


def test_two_forwards_before_one_backward_add_up():
    model, plain, batch = (
        tiny_models.model("llama-tied"),
        tiny_models.model("llama-tied"),
        tiny_models.batch_of(*tiny_models.ITEMS),
    )
    sum(targeted(token_scores(model, batch), batch) for _ in range(2)).backward()
    (2 * targeted(tiny_models.plain_scores(plain, tiny_models.ITEMS), batch)).backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-3, rtol=1e-4)
