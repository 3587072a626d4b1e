"""MUSE against a plain loop that follows muse_bench's scripts, one sample at a time."""

import dataclasses
import json
import math

import pytest
import torch

from tests.support import tiny_models
from tests.support.muse_corpus import corpus
from tif.config.schema import Eval, MaxSamples
from tif.data.benchmarks.muse import read_muse
from tif.data.encoding import Encoder
from tif.data.samples import Sample, Task
from tif.evaluation import evaluate as evaluation
from tif.evaluation.evaluate import describe_protocol, evaluate
from tif.evaluation.muse_prompts import ask_task
from tif.evaluation.questions import EvaluationSetup
from tif.metrics import memorization

QUESTIONS = [
    ("Who wrote it?", "Jaime Vasquez"),
    ("Where was Mira born?", "In Oslo"),
    ("When?", "1961"),
]


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, "Question: {prompt}\nAnswer:")


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_models.model(vocab_size=len(tokenizer), max_position_embeddings=256)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    rows = [{"question": q, "answer": a} for q, a in QUESTIONS]
    long = "Her father was a baker and her mother a judge. " * 3
    return read_muse(
        corpus(
            tmp_path_factory.mktemp("muse") / "news",
            **{
                "knowmem/forget_qa.json": rows,
                "knowmem/forget_qa_icl.json": rows[:1],
                "knowmem/retain_qa.json": rows[::-1],
                "knowmem/retain_qa_icl.json": rows[1:],
                "verbmem/forget.json": [
                    {"prompt": "Mira Dell was born in ", "gt": "Oslo, in the winter."},
                    {"prompt": "It is", "gt": " " + long * 4},
                ],
                "privleak/forget.json": ["The author has written novels.", long],
                "privleak/holdout.json": ["Yes.", "He is known for true crime."],
            },
        ),
        with_training=False,
    )


def generated(model, tokenizer, prompt, new_tokens):
    """As the scripts do: one prompt, model.generate, greedy, decoded without special tokens."""
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
    )
    return tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)[0]


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_records_are_those_of_muse_benchs_scripts(model, encoder, tokenizer, benchmark, batching):
    cfg = Eval(tokens_per_batch=600)
    evaluated = evaluate(
        model, benchmark.sets, EvaluationSetup(encoder, cfg, batching, benchmark.tasks), "m"
    )
    assert evaluated.protocol["name"] == "muse"
    for sample, record in zip(
        benchmark.sets["verbmem_forget"], evaluated.sets["verbmem_forget"].records, strict=True
    ):
        target = tokenizer.decode(
            tokenizer(sample.answer)["input_ids"][:128], skip_special_tokens=True
        )
        assert record.answer == target
        assert record.generated == generated(model, tokenizer, sample.prompt, 128).strip()
    assert len(benchmark.sets["verbmem_forget"][1].answer) > len(
        evaluated.sets["verbmem_forget"].records[1].answer
    )
    for name, shots in (("knowmem_forget", QUESTIONS[:1]), ("knowmem_retain", QUESTIONS[1:])):
        before = "".join(f"Question: {q}\nAnswer: {a}\n\n" for q, a in shots)
        for sample, record in zip(benchmark.sets[name], evaluated.sets[name].records, strict=True):
            text = generated(model, tokenizer, f"{before}Question: {sample.prompt}\nAnswer: ", 32)
            for word in ("\n\n", "\nQuestion", "Question:"):
                text = text.split(word)[0]
            assert (record.prompt, record.answer, record.generated) == (
                sample.prompt,
                sample.answer,
                text.strip(),
            )
    for name in ("privleak_forget", "privleak_holdout"):
        for sample, record in zip(benchmark.sets[name], evaluated.sets[name].records, strict=True):
            ids = tokenizer(sample.answer, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                logp = torch.log_softmax(model(ids).logits[0].float(), -1)
            expected = [logp[t, token].item() for t, token in enumerate(ids[0, 1:])]
            assert record.stats.logprob == pytest.approx(
                expected, abs=1e-5
            )  # every token but the first, no end token
            assert record.loss == pytest.approx(-sum(expected) / len(expected), abs=1e-5)
            assert record.generated is None
            p = logp[:-1].exp()
            mean = (p * logp[:-1]).sum(1)
            assert record.stats.mean == pytest.approx(mean.tolist(), abs=1e-5)
            spread = (p * (logp[:-1] - mean[:, None]).square()).sum(1).sqrt()
            assert record.stats.std == pytest.approx(spread.tolist(), abs=1e-4)


@pytest.mark.parametrize("batching", ["packed", "padded"])
def test_memorization_of_muse_counts_every_token_to_the_last(
    model, encoder, tokenizer, benchmark, batching
):
    setup = EvaluationSetup(encoder, Eval(max_new_tokens=1), batching, benchmark.tasks)
    evaluated = evaluate(model, benchmark.sets, setup, "m")
    name = "privleak_holdout"
    shares = []
    for sample in benchmark.sets[name]:
        ids = tokenizer(sample.answer, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            guesses = model(ids).logits[0, :-1].argmax(-1)
        shares.append((guesses == ids[0, 1:]).float().mean().item())
    values = memorization.question_values(evaluated.sets[name])
    assert values["exact_memorization"] == pytest.approx(shares)
    assert not any(
        r.stats.ended for record_set in evaluated.sets.values() for r in record_set.records
    )


def test_a_stop_text_ends_what_the_model_says(encoder, benchmark, monkeypatch, model):
    reply = "\n\nFirst\nQuestion: a?"
    monkeypatch.setattr(evaluation, "generate", lambda m, e, prompts, *rest: [reply] * len(prompts))
    evaluated = evaluate(
        model, benchmark.sets, EvaluationSetup(encoder, Eval(), "packed", benchmark.tasks), "m"
    )
    assert {r.generated for r in evaluated.sets["knowmem_forget"].records} == {
        ""
    }  # an empty line at once, as in MUSE
    assert {r.generated for r in evaluated.sets["verbmem_forget"].records} == {reply.strip()}


def test_max_samples_limits_muses_sets_by_what_they_are_of(model, encoder, benchmark):
    cfg = Eval(max_samples=MaxSamples(forget=1, retain=2))
    evaluated = evaluate(
        model, benchmark.sets, EvaluationSetup(encoder, cfg, "packed", benchmark.tasks), "m"
    )
    assert {name: len(record_set.records) for name, record_set in evaluated.sets.items()} == {
        "verbmem_forget": 1,
        "knowmem_forget": 1,
        "knowmem_retain": 2,
        "privleak_forget": 1,
        "privleak_holdout": 1,
    }


def test_a_text_longer_than_the_context_loses_its_end_and_a_long_prompt_its_beginning(encoder):
    words = "one two three four five six seven"
    token_ids = encoder.encode_text(words)
    (scored,) = ask_task(
        encoder, [Sample("a/0", "", words)], Task("{prompt}", new_tokens=0), context=5
    )
    assert scored.texts[0].input_ids == token_ids[:5]
    assert scored.prompt_ids == []
    prompt = encoder.encode_text("one two three four five")
    (question,) = ask_task(
        encoder,
        [Sample("a/0", "one two three four five", " six")],
        Task("{prompt}", new_tokens=4),
        context=9,
    )
    assert question.prompt_ids == prompt[-5:]
    ids, gw = question.texts[0].input_ids, question.texts[0].gw
    both = encoder.encode_text("one two three four five six")
    assert ids == both[-9:]
    assert [t for t, is_answer in zip(ids, gw, strict=True) if is_answer] == both[len(prompt) :]


def test_a_task_without_a_template_follows_the_configurations(encoder):
    (question,) = ask_task(
        encoder, [Sample("a/0", "Who?", "Mira")], Task(stops=("\n\n",)), context=None, new_tokens=7
    )
    assert question.prompt_ids == encoder.encode_text("Question: Who?\nAnswer:")
    assert question.texts[0].input_ids == encoder.encode_text("Question: Who?\nAnswer: Mira")
    assert question.max_new_tokens == 7
    (document,) = ask_task(
        encoder, [Sample("a/0", "", "A page.")], Task(new_tokens=0), context=None
    )
    assert document.texts[0].input_ids == encoder.encode_text("A page.")


def test_a_text_of_one_token_cannot_be_scored(encoder):
    with pytest.raises(ValueError, match="sample a/0: nothing of its answer is left to score"):
        ask_task(encoder, [Sample("a/0", "", "a")], Task("{prompt}", new_tokens=0), context=None)


def test_rules_hold_what_makes_numbers_differ_and_survive_json(encoder, benchmark):
    rules = describe_protocol(Eval(), encoder, benchmark.tasks, 256)
    assert json.loads(json.dumps(rules)) == rules
    other = dict(benchmark.tasks)
    other["knowmem_forget"] = dataclasses.replace(other["knowmem_forget"], prefix="other examples")
    assert describe_protocol(Eval(), encoder, other, 256) != rules
    assert math.isfinite(rules["tasks"]["verbmem_forget"]["new_tokens"])
