"""The probe for packed or padded rows: on the device, precision and attention that train."""

import pytest
import torch
import transformers

from tests.support import architectures, row_models, tiny_models
from tif.config.errors import ConfigError
from tif.probes import packed_rows
from tif.probes.causal import check_causal
from tif.probes.packed_rows import choose_batching, find_packing_fault
from tif.scoring import attention, lm_head, shared_prompts
from tif.scoring.token_scores import score_tokens

IDS = tiny_models.encoded("text", "g" * 40).input_ids
TEXTS = [IDS[:9], IDS, IDS[5:20]]  # longer than WINDOW
SAMPLES = [tiny_models.encoded("a", "pppp" + "g" * 30), tiny_models.encoded("b", "pp" + "g" * 12)]
PACKED = ("llama", "gpt2", "gemma2", "gpt-neox", "phi", "mistral", "gemma3", "mixtral", "llama4")
PADDED = ("bloom", "mpt", "falcon-alibi", "mamba", "rwkv", "recurrent_gemma", "gpt_neo")


@pytest.fixture(params=["cpu", "cuda"])
def rows(request, monkeypatch):
    monkeypatch.setenv("TIF_ROWS", request.param)
    return request.param


def largest_error(model, way, samples=SAMPLES):
    with torch.no_grad():
        expected = tiny_models.plain_scores(model, samples).logprob
        return (
            (score_tokens(model, tiny_models.batch_of(*samples), way).logprob - expected)
            .abs()
            .max()
            .item()
        )


def test_a_model_whose_samples_see_each_other_the_way_a_gpu_packs_them_is_padded_there(monkeypatch):
    model = row_models.model("opt")
    assert choose_batching("auto", model, TEXTS) == "packed"  # a CPU attends sample by sample
    assert largest_error(model, "packed") < 1e-5
    monkeypatch.setenv("TIF_ROWS", "cuda")
    assert largest_error(model, "packed") > 0.1
    assert choose_batching("auto", model, TEXTS) == "padded"
    assert largest_error(model, "padded") < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", PACKED)
def test_no_precision_makes_a_model_look_as_if_its_samples_saw_each_other(kind, dtype, rows):
    assert find_packing_fault(row_models.model(kind, dtype), IDS) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", PADDED)
def test_no_precision_hides_what_packing_does_to_a_model(kind, dtype, rows):
    assert find_packing_fault(row_models.model(kind, dtype), IDS) is not None


@pytest.mark.parametrize(
    "kind", [*PACKED, "opt", "gpt_neo", "bloom", "mpt", "falcon-alibi", "mamba", "rwkv"]
)
def test_the_rows_that_are_chosen_give_the_scores_of_one_sample_alone(kind, rows):
    model = row_models.model(kind)
    assert largest_error(model, choose_batching("auto", model, TEXTS)) < 1e-5


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
def test_a_leak_shows_in_bfloat16_however_little_it_moves(scale):
    model = row_models.model("mamba", torch.bfloat16)
    with torch.no_grad():
        model.lm_head.weight *= scale
    assert "gives other scores in packed rows" in find_packing_fault(model, IDS)


class TwoWays(torch.nn.Module):
    """A model that computes one way with position_ids, as in packed rows, another way without."""

    def __init__(self, plain, packed):
        super().__init__()
        self.plain, self.packed, self.config = plain, packed, plain.config

    def forward(self, position_ids=None, **inputs):
        if position_ids is None:
            return self.plain(**inputs)
        return self.packed(position_ids=position_ids, **inputs)


def mistral(window):
    config = transformers.MistralConfig(**tiny_models.LLAMA_LIKE, sliding_window=window)
    return tiny_models.spread(transformers.AutoModelForCausalLM.from_config(config))


def test_a_window_that_packed_rows_ignore_shows_where_texts_are_longer_than_it(rows):
    model = TwoWays(mistral(row_models.WINDOW), mistral(None))
    assert find_packing_fault(model, IDS[: row_models.WINDOW]) is None  # it makes no difference yet
    assert "gives other scores" in find_packing_fault(model, IDS)


def test_a_prompt_that_is_shared_where_windows_forbid_it_shows(monkeypatch, rows):
    model = mistral(row_models.WINDOW)
    assert find_packing_fault(model, IDS) is None
    monkeypatch.setattr(
        shared_prompts, "_can_share_prompts", lambda _: True
    )  # one mask for all layers
    assert "gives other scores" in find_packing_fault(model, IDS)


class ChunksOfTheRow(torch.nn.Module):
    """Attention in chunks that are counted from the start of the row, not of the sample."""

    def __init__(self, llama, chunk):
        super().__init__()
        self.llama, self.config, self.chunk = llama, llama.config, chunk
        self.config.attention_chunk_size = chunk

    def forward(self, input_ids, position_ids=None, attention_mask=None, **inputs):
        if position_ids is not None and attention_mask is None:
            place = torch.arange(input_ids.shape[1])
            sample = (position_ids[0] == 0).cumsum(0)
            is_seen = (sample[:, None] == sample) & (
                place[:, None] // self.chunk == place // self.chunk
            )
            attention_mask = torch.zeros(is_seen.shape).masked_fill(~is_seen.tril(), -1e9)[
                None, None
            ]
        return self.llama(
            input_ids, position_ids=position_ids, attention_mask=attention_mask, **inputs
        )


def test_rows_are_as_long_as_a_chunk_where_texts_are_shorter():
    assert "gives other scores" in find_packing_fault(ChunksOfTheRow(tiny_models.model(), 100), IDS)


class WrongPositions(torch.nn.Module):
    """A GPT-2 that keeps samples apart but counts positions right through the row."""

    def __init__(self):
        super().__init__()
        self.gpt2 = tiny_models.model("gpt2")
        attention.use_sample_by_sample_attention(self.gpt2)
        self.config = self.gpt2.config

    def forward(self, position_ids=None, **inputs):
        return self.gpt2(**inputs)


class TakesNoPositions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.llama = tiny_models.model()

    def forward(self, input_ids, attention_mask=None, logits_to_keep=0, use_cache=False):
        return self.llama(
            input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=logits_to_keep
        )


@pytest.mark.parametrize("make", [WrongPositions, TakesNoPositions])
def test_a_model_that_loses_the_positions_of_a_packed_row_is_padded(make, rows):
    model = make().eval()
    assert choose_batching("auto", model, TEXTS) == "padded"
    assert largest_error(model, "padded") < 1e-5


def test_packed_rows_that_would_change_the_scores_are_refused_by_key(monkeypatch):
    monkeypatch.setenv("TIF_ROWS", "cuda")
    with pytest.raises(ConfigError) as error:
        choose_batching("packed", row_models.model("opt"), TEXTS, "batching")
    line = str(error.value)
    assert line.startswith(
        "batching: packed, but OPTForCausalLM gives other scores in packed rows (by 0."
    )
    assert line.endswith(" nats a token); want auto or padded")
    assert choose_batching("packed", row_models.model("llama"), TEXTS) == "packed"


def test_auto_says_in_one_line_why_rows_are_padded(capsys):
    choose_batching("auto", row_models.model("mamba"), TEXTS)
    assert capsys.readouterr().out.startswith(
        "rows are padded: MambaForCausalLM gives other scores in packed rows"
    )
    choose_batching("auto", row_models.model("llama"), TEXTS)
    choose_batching("padded", row_models.model("mamba"), TEXTS)
    assert capsys.readouterr().out == ""


def test_rows_that_are_longer_than_a_model_has_a_mask_for_are_padded(rows):
    assert "does not run on packed rows" in find_packing_fault(architectures.build("gpt_neo"), IDS)


def test_padded_rows_need_no_probe_of_packed_ones(monkeypatch):
    monkeypatch.setattr(packed_rows, "find_packing_fault", None)
    assert choose_batching("padded", row_models.model("llama"), TEXTS) == "padded"


@pytest.mark.parametrize("wanted", ["auto", "padded"])
@pytest.mark.parametrize(
    "family", ["bert, both directions", "gemma3_text, both directions", "xlnet", "cpmant"]
)
def test_a_model_whose_logits_follow_later_tokens_or_padding_is_refused(family, wanted):
    with pytest.raises(
        ConfigError, match=r"model\.path: \w+ is no causal LM, its logits change"
    ) as caught:
        choose_batching(wanted, architectures.build(family), TEXTS)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [*PACKED, *PADDED])
def test_no_precision_makes_a_causal_model_look_like_another(kind, dtype):
    assert check_causal(row_models.model(kind, dtype), IDS) is None


def test_scores_that_are_no_numbers_are_no_proof():
    model = row_models.model("llama")
    with torch.no_grad():
        model.model.norm.weight.fill_(torch.nan)
    assert choose_batching("auto", model, TEXTS) == "padded"


def test_a_device_that_is_full_is_no_fault_of_packed_rows(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(packed_rows, "_score_last", fail)
    with pytest.raises(torch.OutOfMemoryError):
        choose_batching("auto", row_models.model("llama"), TEXTS)


@pytest.mark.parametrize("length", [1, 2, 5, 23, 24, 27, 40])
def test_texts_of_any_length_serve(length, rows):
    assert find_packing_fault(row_models.model("mistral"), IDS[:length]) is None
    assert find_packing_fault(row_models.model("mamba"), IDS[:length]) is not None


@pytest.mark.parametrize("chunk", [2, 3, 12, 23])
def test_a_model_that_reads_multiples_of_a_chunk_only_is_refused_in_one_line(chunk):
    config = architectures.make_config("xlstm")
    config.mode, config.chunk_size = "train", chunk
    model = transformers.AutoModelForCausalLM.from_config(config)
    line = (
        r"^model.path: xLSTMForCausalLM does not run on \d+ tokens \(.* not divisible .*\); "
        r"want another model$"
    )
    for wanted in ("auto", "padded", "packed"):
        with pytest.raises(ConfigError, match=line):
            choose_batching(wanted, model, TEXTS)


@pytest.mark.parametrize("is_training", [True, False])
def test_the_probe_leaves_mode_gradients_and_random_state_as_they_were(is_training):
    config = tiny_models.CONFIGS["gpt2"](resid_pdrop=0.5)
    model = tiny_models.spread(transformers.AutoModelForCausalLM.from_config(config)).train(
        is_training
    )
    state = torch.get_rng_state()
    assert choose_batching("auto", model, TEXTS) == "packed"
    assert model.training is is_training
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_probe_runs_under_autocast_to_its_precision():
    model = row_models.model("llama")
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_batching("auto", model, TEXTS) == "packed"
        assert choose_batching("auto", row_models.model("mamba"), TEXTS) == "padded"


@pytest.mark.parametrize("kind", ["opt", "llama4", "llama", "gemma2"])
@pytest.mark.parametrize("way", ["packed", "padded"])
def test_more_answer_tokens_than_logits_are_held_at_once_give_the_same_scores_and_gradients(
    kind, way, rows
):
    samples = [tiny_models.encoded(f"s{number}", "pp" + "g" * 98) for number in range(12)]
    model, plain = row_models.model(kind), row_models.model(kind)
    assert lm_head.split_model(model) is not None
    way = way if kind != "opt" or rows == "cpu" else "padded"
    actual = score_tokens(model, tiny_models.batch_of(*samples), way)  # 1,176 answer tokens
    expected = tiny_models.plain_scores(plain, samples)
    torch.testing.assert_close(actual.logprob, expected.logprob, atol=1e-4, rtol=0)
    for scores in (actual, expected):
        scores.logit.square().mean().backward()
    for weight, plain_weight in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, plain_weight.grad, atol=1e-3, rtol=1e-3)
