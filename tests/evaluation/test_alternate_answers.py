"""Generated alternates: each draw against a plain loop, their file, a kill in between."""

import json
import zlib

import numpy as np
import pytest
import torch

from tests.support import tiny_models
from tests.support.process_groups import together
from tif.config.loss import Alternates
from tif.config.schema import Model
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.evaluation import alternate_answers
from tif.evaluation.alternate_answers import AlternateDraws, draw_alternates
from tif.evaluation.generate import draw_tokens, draw_uniforms
from tif.models.load import load_tokenizer

SAMPLES = tuple(
    Sample(
        f"forget/{i}",
        f"Who wrote {'The Glass Meridian ' * i}?",
        f"Jaime Vasquez wrote it in {1990 + i}.",
    )
    for i in range(5)
)
CFG = Alternates(
    kind="generated", count=3, prompt="{prompt}\nNot: {answer}\n", temperature=0.7, max_new_tokens=9
)


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, "Question: {prompt}\nAnswer:")


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_models.model("llama", vocab_size=len(tokenizer))


def draw_answers(model, encoder, file, samples=SAMPLES, cfg=CFG, seed=4, tokens_per_batch=200):
    return draw_alternates(
        model, encoder, samples, AlternateDraws(cfg, seed, tokens_per_batch, file)
    )


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines() if line]


def plain(model, encoder, sample, number, seed):
    """One answer, token by token: the first whose summed probability passes the draw."""
    text = f"Question: {sample.prompt}\nNot: {sample.answer}\n\nAnswer:"
    ids, new = encoder.tokenizer(text)["input_ids"], []
    uniform = np.random.default_rng((seed, zlib.crc32(sample.id.encode()), number)).random(9)
    for draw in uniform:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + new])).logits[0, -1].double()
        total, p = 0.0, torch.softmax(logits / 0.7, 0)
        for token in range(len(p)):
            total += p[token].item()
            if total > draw:
                break
        if token == encoder.tokenizer.eos_token_id:
            break
        new.append(token)
    return (
        encoder.tokenizer.decode(new, skip_special_tokens=True)
        .split("Question:")[0]
        .split("Q:")[0]
        .strip()
    )


@pytest.mark.parametrize("tokens_per_batch", [16, 200, 4096])
def test_every_answer_equals_a_plain_loop_over_its_own_draws(
    model, encoder, tmp_path, tokens_per_batch
):
    answers = draw_answers(model, encoder, tmp_path / "a.jsonl", tokens_per_batch=tokens_per_batch)
    expected = {s.id: tuple(plain(model, encoder, s, n, 4) for n in range(3)) for s in SAMPLES}
    assert answers == expected
    assert len({text for texts in expected.values() for text in texts}) == 15


def test_tokens_are_drawn_as_often_as_the_tempered_softmax_says():
    logits = torch.tensor([2.0, -1.0, 0.0, 1.0]).repeat(20_000, 1)
    draws = draw_uniforms([(7, i) for i in range(20_000)], 1)[:, 0]
    counts = torch.bincount(draw_tokens(logits, draws, 0.5), minlength=4) / 20_000
    weights = torch.tensor([4.0, -2.0, 0.0, 2.0]).exp()
    torch.testing.assert_close(counts, weights / weights.sum(), atol=0.01, rtol=0)


def test_an_answer_depends_on_seed_sample_and_number_and_on_nothing_else(model, encoder, tmp_path):
    state = torch.random.get_rng_state()
    answers = draw_answers(model, encoder, tmp_path / "a.jsonl")
    assert torch.equal(torch.random.get_rng_state(), state)
    alone = draw_answers(model, encoder, tmp_path / "b.jsonl", samples=SAMPLES[3:4])
    assert alone == {"forget/3": answers["forget/3"]}
    assert (
        draw_answers(model, encoder, tmp_path / "c.jsonl", seed=5)["forget/3"]
        != answers["forget/3"]
    )


def test_a_run_that_was_killed_draws_only_what_is_missing(model, encoder, tmp_path, monkeypatch):
    expected, file, batch_sizes = (
        draw_answers(model, encoder, tmp_path / "whole.jsonl"),
        tmp_path / "killed.jsonl",
        [],
    )
    monkeypatch.setattr(alternate_answers, "ANSWERS_PER_WRITE", 4)
    generate = alternate_answers.generate

    def killed(model, encoder, prompts, *args):
        batch_sizes.append(len(prompts))
        if len(batch_sizes) == 3:
            raise KeyboardInterrupt
        return generate(model, encoder, prompts, *args)

    monkeypatch.setattr(alternate_answers, "generate", killed)
    with pytest.raises(KeyboardInterrupt):
        draw_answers(model, encoder, file)
    assert len(rows(file)) == 8
    assert draw_answers(model, encoder, file) == expected
    assert batch_sizes == [4, 4, 4, 4, 3]  # the last two by the run that went on
    assert len(rows(file)) == 15
    assert draw_answers(model, encoder, file) == expected
    assert len(batch_sizes) == 5


def test_a_line_that_was_cut_is_drawn_again_and_the_others_are_not(model, encoder, tmp_path):
    expected, file = draw_answers(model, encoder, tmp_path / "a.jsonl"), tmp_path / "a.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert draw_answers(model, encoder, file) == expected
    lines = file.read_text().splitlines()
    assert sum(line.startswith('{"id": "forget/4", "number": 2') for line in lines) == 1
    assert sum(line.startswith('{"id": "forget/4", "number": 1') for line in lines) == 1


def test_an_answer_ends_where_the_next_question_begins_and_blank_ones_are_left_out(
    model, encoder, tmp_path, monkeypatch
):
    replies = iter([" In Oslo.\nQuestion: Who?", "Q: Where?", "  \n", "", " ", "In 1961. "])
    monkeypatch.setattr(
        alternate_answers,
        "generate",
        lambda model, encoder, prompts, *args: [next(replies) for _ in prompts],
    )
    answers = draw_answers(model, encoder, tmp_path / "a.jsonl", samples=SAMPLES[:2])
    assert answers == {"forget/0": ("In Oslo.",), "forget/1": ("In 1961.",)}


def test_a_model_that_says_nothing_is_told(model, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        alternate_answers, "generate", lambda model, encoder, prompts, *args: [" "] * len(prompts)
    )
    with pytest.raises(
        ValueError,
        match=r"^loss\.alternates: the model says nothing to 2 of 2 questions \(forget/0, ",
    ):
        draw_answers(model, encoder, tmp_path / "a.jsonl", samples=SAMPLES[:2])


def work(file):
    """Everything made anew, as a process of its own has to."""
    from tests.support.texts import TEXTS

    tokenizer = load_tokenizer(Model(init={"vocab_size": 400}), TEXTS)
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer:")
    return draw_answers(tiny_models.model("llama", vocab_size=len(tokenizer)), encoder, file)


@pytest.mark.slow
def test_two_processes_draw_what_one_draws_and_one_of_them_writes(tmp_path):
    alone, two = work(tmp_path / "one.jsonl"), together(2, work, tmp_path / "two.jsonl")
    assert two == [alone, alone]
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
