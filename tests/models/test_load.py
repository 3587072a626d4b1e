"""The policy and its tokenizer, from scratch and from disk."""

import copy

import pytest
import torch
import transformers

from tests.support import architectures
from tests.support.model_weights import assert_bit_identical, weights
from tests.support.tiny_models import shuffled
from tif.config.errors import ConfigError
from tif.config.schema import Model
from tif.models import export
from tif.models import load as models
from tif.probes.check_model import check_model
from tif.scoring.token_scores import score_tokens

INIT = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


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
        check_model(Model(**keys))


def test_rwkv_keeps_its_weights_while_it_is_evaluated(tmp_path):
    start = architectures.build("rwkv")
    start.config.rescale_every = 1  # each layer's output weights halved in evaluation
    expected = {name: value.clone() for name, value in start.state_dict().items()}
    start.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 9, 3, 7, 11]])
    policy = models.load_policy(Model(path=str(tmp_path)), None, 0).eval()
    with torch.no_grad():
        logits = policy(input_ids=ids, use_cache=False).logits
        halved = start.eval()(input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(logits, halved, atol=1e-3, rtol=1e-2)
    assert_bit_identical(policy.state_dict(), expected)


def test_xlstm_reads_texts_longer_than_its_pieces(tmp_path):
    expected = architectures.build("xlstm")
    config = copy.deepcopy(expected.config)
    config.max_inference_chunksize = 3
    expected.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    ids = torch.tensor([[5, 9, 3, 7, 11]])
    with pytest.raises(ValueError, match="wrong shape"):  # transformers 5.24
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()(ids, use_cache=False)
    policy = models.load_policy(Model(path=str(tmp_path)), None, 0).eval()
    with torch.no_grad():
        expected_logits = expected.eval()(ids, use_cache=False).logits
        assert torch.equal(policy(ids, use_cache=False).logits, expected_logits)
