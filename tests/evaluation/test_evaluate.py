"""Records against plain loops for scores and transformers' own greedy `generate` for texts."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

from tests.support import tiny_models
from tests.support.plain_evaluation import TEMPLATE, plain_greedy, plain_loss
from tests.support.tiny_models import shuffled
from tif.config.schema import Eval, MaxSamples
from tif.data.encoding import Encoder
from tif.data.samples import Sample, Span, fingerprint
from tif.evaluation.evaluate import evaluate
from tif.evaluation.generate import Decoding, batch_by_length, continue_prompts, generate
from tif.evaluation.questions import EvaluationSetup, select_samples
from tif.evaluation.tofu_prompts import resolve_protocol
from tif.evaluation.token_stats import score_texts
from tif.records.protocols import OPEN_UNLEARNING

FORGET = (
    Sample(
        "forget/0",
        "Who wrote The Glass Meridian?",
        "Jaime Vasquez wrote it in 1998.",
        unwanted=(Span(0, 13),),
        paraphrased_answer="It was written by Jaime Vasquez.",
        perturbed_answers=("Mira Dell wrote it.", "Her father wrote it in 1961, in the winter."),
    ),
    Sample("forget/1", "Where?", "She was born in Oslo.", perturbed_answers=("In a bakery.",)),
    Sample(
        "forget/2",
        "Which genre is Jaime Vasquez known for, and since when, and why?",
        "True crime.",
    ),
)
RETAIN = (Sample("retain/0", "Who?", "A judge.", paraphrased_answer="The judge."),)
SETS = {"forget": FORGET, "retain": RETAIN}
PROMPTS = [
    [5, 9, 3, 7, 11, 2, 8],
    [4],
    [6, 6, 30, 12, 55, 31, 2, 40, 17, 21, 9],
    [8, 1, 3],
    [50, 49, 48, 47, 46],
]


@pytest.fixture(scope="module")
def encoder(tokenizer):
    return Encoder(tokenizer, TEMPLATE)


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_models.model("llama", vocab_size=len(tokenizer))


def stopping_token(rows):
    """A token that the rows meet at as many different times as possible."""
    candidates = {t for row in rows for t in row}
    return max(
        sorted(candidates), key=lambda t: len({row.index(t) if t in row else -1 for row in rows})
    )


def evaluated(model, encoder, sets, rules, batching):
    """The evaluation of a model named "m"."""
    return evaluate(model, sets, EvaluationSetup(encoder, rules, batching), "m")


# --- losses


def losses(model, texts, pad_id, tokens_per_batch, batching):
    """(loss, tokens) of each text."""
    setup = EvaluationSetup(
        SimpleNamespace(pad_id=pad_id), Eval(tokens_per_batch=tokens_per_batch), batching
    )
    with torch.no_grad():
        scores = score_texts(model, texts, [False] * len(texts), setup)
    return [(score.loss, score.tokens) for score in scores]


@pytest.mark.parametrize("batching", ["packed", "padded"])
@pytest.mark.parametrize("tokens_per_batch", [16, 64, 4096])
def test_answer_losses_equal_a_loop_over_single_samples(
    model, encoder, tokenizer, batching, tokens_per_batch
):
    samples = (*FORGET, *RETAIN)
    texts = [encoder.encode(s, blank_counts=False) for s in samples]
    actual = losses(model, texts, encoder.pad_id, tokens_per_batch, batching)
    expected = [plain_loss(model, tokenizer, s, s.answer) for s in samples]
    assert [n for _, n in actual] == [n for _, n in expected]
    assert [loss for loss, _ in actual] == pytest.approx([loss for loss, _ in expected], abs=1e-5)
    assert len({round(loss, 3) for loss, _ in expected}) == len(samples)


def test_records_equal_plain_loops(model, encoder, tokenizer):
    evaluation = evaluated(model, encoder, SETS, Eval(max_new_tokens=6), "packed")
    assert list(evaluation.sets) == ["forget", "retain"]
    for name, samples in SETS.items():
        records = evaluation.sets[name].records
        assert [r.id for r in records] == [s.id for s in samples]
        for record, sample in zip(records, samples, strict=True):
            loss, tokens = plain_loss(model, tokenizer, sample, sample.answer)
            assert (record.prompt, record.answer, record.tokens) == (
                sample.prompt,
                sample.answer,
                tokens,
            )
            assert record.loss == pytest.approx(loss, abs=1e-5)
            perturbed = [
                plain_loss(model, tokenizer, sample, a)[0] for a in sample.perturbed_answers
            ]
            assert list(record.perturbed_losses) == pytest.approx(perturbed, abs=1e-5)
            if sample.paraphrased_answer is None:
                assert record.paraphrased_loss is None
            else:
                paraphrased = plain_loss(model, tokenizer, sample, sample.paraphrased_answer)[0]
                assert record.paraphrased_loss == pytest.approx(paraphrased, abs=1e-5)
            prompt = tokenizer(f"Question: {sample.prompt}\nAnswer:")["input_ids"]
            text = tokenizer.decode(
                plain_greedy(model, prompt, tokenizer.eos_token_id, 6), skip_special_tokens=True
            )
            assert record.generated == text.strip()


def test_an_evaluation_says_what_it_is_of(model, encoder):
    evaluation = evaluate(
        model, SETS, EvaluationSetup(encoder, Eval(max_new_tokens=1), "packed"), "runs/x", epoch=3
    )
    assert (evaluation.model, evaluation.epoch, evaluation.family) == ("runs/x", 3, "llama")
    assert {name: s.name for name, s in evaluation.sets.items()} == {
        "forget": "forget",
        "retain": "retain",
    }
    assert {name: s.data for name, s in evaluation.sets.items()} == {
        k: fingerprint(v) for k, v in SETS.items()
    }


@pytest.mark.parametrize(("protocol", "ended"), [("legacy-tofu", False), ("open-unlearning", True)])
def test_a_record_says_whether_its_last_token_is_the_end_token(model, encoder, protocol, ended):
    long = dataclasses.replace(RETAIN[0], id="retain/long", answer="He did not. " * 100)
    rules = Eval(max_new_tokens=1, protocol=protocol)
    (short, cut) = (
        evaluated(model, encoder, {"retain": (*RETAIN, long)}, rules, "packed")
        .sets["retain"]
        .records
    )
    assert (short.stats.ended, cut.stats.ended) == (True, ended)


def test_unwanted_spans_do_not_change_records(model, encoder):
    cfg = Eval(max_new_tokens=1)
    plain = {"forget": [dataclasses.replace(s, unwanted=None) for s in FORGET]}
    evaluations = [
        evaluated(model, encoder, sets, cfg, "padded").sets["forget"]
        for sets in (plain, {"forget": FORGET})
    ]
    assert evaluations[0] == evaluations[1]


def test_the_same_questions_are_tokenised_once_and_other_questions_or_rules_anew(model, tokenizer):
    encoder, texts = Encoder(tokenizer, TEMPLATE), []
    encode_text = encoder.encode_text
    encoder.encode_text = lambda text: texts.append(text) or encode_text(text)
    cfg = Eval(max_new_tokens=2)
    first, once = evaluated(model, encoder, SETS, cfg, "packed"), len(texts)
    second = evaluated(model, encoder, SETS, cfg, "packed")
    assert len(texts) == once > 0
    assert second.sets == first.sets
    legacy = evaluated(
        model, encoder, SETS, dataclasses.replace(cfg, protocol="legacy-tofu"), "packed"
    )
    assert len(texts) > once
    assert legacy.sets["retain"].records[0].tokens > first.sets["retain"].records[0].tokens
    changed = {"retain": (dataclasses.replace(RETAIN[0], answer="A much longer answer."),)}
    other = evaluated(model, encoder, changed, cfg, "packed").sets["retain"].records
    assert [r.answer for r in other] == ["A much longer answer."]


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_runs_in_eval_mode_without_gradients_and_restores_the_mode(
    encoder, tokenizer, training
):
    model, modes = tiny_models.model("gpt2", vocab_size=len(tokenizer), resid_pdrop=0.5), []
    model.register_forward_hook(
        lambda m, args, output: modes.append((m.training, torch.is_grad_enabled()))
    )
    model.train(training)
    evaluations = [
        evaluated(model, encoder, {"retain": RETAIN}, Eval(max_new_tokens=2), "packed")
        for _ in range(2)
    ]
    assert set(modes) == {(False, False)}
    assert model.training is training
    assert evaluations[0] == evaluations[1]


# --- generation


@pytest.mark.parametrize("kind", sorted(set(tiny_models.CONFIGS) - {"llama-tied"}))
def test_batched_greedy_decoding_equals_generate_one_prompt_at_a_time(kind):
    # Untied, because a tied model this small repeats its last token for ever.
    model = tiny_models.model(kind, seed=3, tie_word_embeddings=False)
    never = [
        plain_greedy(model, p, tiny_models.VOCAB, 12) for p in PROMPTS
    ]  # no such token: nothing stops before 12
    unused = min(set(range(tiny_models.VOCAB)) - {t for row in never for t in row})
    assert [len(row) for row in never] == [12] * len(PROMPTS)
    assert continue_prompts(model, PROMPTS, [unused], [12] * len(PROMPTS)) == never
    # Rows that stop at different times leave the batch one after the other.
    eos_id = stopping_token(never)
    expected = [plain_greedy(model, p, eos_id, 12) for p in PROMPTS]
    assert len({len(row) for row in expected}) >= 3
    assert continue_prompts(model, PROMPTS, [eos_id], [12] * len(PROMPTS)) == expected


def test_finished_rows_leave_the_batch_and_decoding_ends_with_the_last():
    model = tiny_models.model()
    never = [plain_greedy(model, p, tiny_models.VOCAB, 12) for p in PROMPTS]
    eos_id = stopping_token(never)
    lengths = [row.index(eos_id) if eos_id in row else 12 for row in never]
    rows = []
    model.register_forward_hook(lambda m, args, output: rows.append(len(output.logits)))
    continue_prompts(model, PROMPTS, [eos_id], [12] * len(PROMPTS))
    # step k decodes the rows whose k-th token (from 0) was still to come
    assert rows == [sum(n >= k for n in lengths) for k in range(min(max(lengths) + 1, 12))]
    stopped = [i for i, n in enumerate(lengths) if n < 12]
    rows.clear()
    continue_prompts(model, [PROMPTS[i] for i in stopped], [eos_id], [12] * len(stopped))
    assert len(rows) == max(lengths[i] for i in stopped) + 1


def test_a_prompt_answered_by_the_end_token_alone_gives_an_empty_answer():
    model = tiny_models.model()
    eos_id = plain_greedy(model, PROMPTS[0], tiny_models.VOCAB, 1)[0]
    assert continue_prompts(model, [PROMPTS[0]], [eos_id], [5]) == [[]]


@pytest.mark.parametrize("tokens_per_batch", [16, 60, 4096])
def test_generated_texts_do_not_depend_on_tokens_per_batch(
    tokenizer, encoder, model, tokens_per_batch
):
    prompts = [encoder.encode_prompt(s.prompt) for s in (*FORGET, *RETAIN)]
    tokens = [plain_greedy(model, p, len(tokenizer), 10) for p in prompts]
    stopping = Encoder(tokenizer, TEMPLATE)
    stopping.eos_id = stopping_token(tokens)
    expected = [
        tokenizer.decode(plain_greedy(model, p, stopping.eos_id, 10), skip_special_tokens=True)
        for p in prompts
    ]
    assert len(set(expected)) > 1
    assert generate(model, stopping, prompts, [10] * len(prompts), Decoding(tokens_per_batch)) == [
        text.strip() for text in expected
    ]


def test_evaluation_does_not_depend_on_tokens_per_batch_or_batching(model, encoder):
    evaluations = [
        evaluated(model, encoder, SETS, Eval(max_new_tokens=5, tokens_per_batch=tokens), batching)
        for tokens, batching in ((16, "packed"), (100, "padded"), (4096, "packed"))
    ]
    for other in evaluations[1:]:
        for name, expected in evaluations[0].sets.items():
            for a, b in zip(other.sets[name].records, expected.records, strict=True):
                assert a.loss == pytest.approx(b.loss, abs=1e-5)
                assert a.perturbed_losses == pytest.approx(b.perturbed_losses, abs=1e-5)
                assert (a.id, a.tokens, a.generated) == (b.id, b.tokens, b.generated)


def test_batches_hold_at_most_the_asked_tokens_with_padding_longest_first():
    lengths = [3, 9, 4, 4, 20, 1]
    # by length 20 | 9 | 4 4 3 | 1 with 12 tokens; two of 9 would be 18, three of 4 are 12, four
    # would be 16
    assert list(batch_by_length(lengths, 12)) == [[4], [1], [2, 3, 0], [5]]
    assert list(batch_by_length(lengths, 10_000)) == [[4, 1, 2, 3, 0, 5]]
    assert list(batch_by_length([], 12)) == []


def test_each_prompt_has_its_own_limit_of_new_tokens():
    model = tiny_models.model(seed=3, tie_word_embeddings=False)
    never = [plain_greedy(model, p, tiny_models.VOCAB, 12) for p in PROMPTS]
    unused = min(set(range(tiny_models.VOCAB)) - {t for row in never for t in row})
    limits = [3, 12, 1, 7, 3]
    assert continue_prompts(model, PROMPTS, [unused], limits) == [
        row[:n] for row, n in zip(never, limits, strict=True)
    ]


# --- which samples, by which rules


def test_legacy_tofu_asks_without_the_answer_tag_and_counts_the_prompt(model, encoder, tokenizer):
    cfg = Eval(protocol="legacy-tofu", max_new_tokens=30)
    evaluation = evaluated(model, encoder, {"retain": RETAIN}, cfg, "packed")
    prompt = tokenizer("Question: Who?\n")["input_ids"]
    assert 0 < len(prompt) < 30
    text = tokenizer.decode(
        plain_greedy(model, prompt, tokenizer.eos_token_id, 30 - len(prompt)),
        skip_special_tokens=True,
    )
    assert evaluation.sets["retain"].records[0].generated == text.strip()
    ids = [*tokenizer("Question: Who?\nAnswer: A judge.")["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[t - 1, ids[t]].item() for t in range(len(prompt), len(ids))]
    assert evaluation.sets["retain"].records[0].tokens == len(expected)
    assert evaluation.sets["retain"].records[0].loss == pytest.approx(
        -sum(expected) / len(expected), abs=1e-5
    )
    assert evaluation.protocol["name"] == "legacy-tofu"


def test_a_protocol_says_how_many_questions_unless_one_is_told():
    questions = {"retain": [dataclasses.replace(RETAIN[0], id=f"r/{i}") for i in range(305)]}
    assert len(select_samples(questions, Eval(protocol="legacy-tofu"))["retain"]) == 300
    assert len(select_samples(questions, Eval())["retain"]) == 305
    assert (
        len(
            select_samples(
                questions, Eval(protocol="legacy-tofu", max_samples=MaxSamples(retain=302))
            )["retain"]
        )
        == 302
    )


def test_paraphrased_questions_make_sets_of_their_own():
    question = dataclasses.replace(FORGET[0], paraphrased_prompt="By whom is The Glass Meridian?")
    selected = select_samples(
        {"forget": (question, FORGET[1]), "retain": RETAIN}, Eval(paraphrased_questions=True)
    )
    assert list(selected) == ["forget", "forget_paraphrased", "retain"]
    (other,) = selected["forget_paraphrased"]
    assert (other.id, other.prompt, other.answer) == (
        "forget/0/paraphrased",
        "By whom is The Glass Meridian?",
        FORGET[0].answer,
    )
    assert other.perturbed_answers == FORGET[0].perturbed_answers


def test_cut_keeps_the_first_samples_of_each_set():
    cfg = Eval(max_samples=MaxSamples(forget=2))
    assert select_samples(SETS, cfg) == {"forget": FORGET[:2], "retain": RETAIN}
    assert select_samples(SETS, Eval()) == SETS
    assert select_samples({"other": RETAIN}, cfg) == {"other": RETAIN}


def test_only_the_cut_samples_are_evaluated_and_fingerprinted(model, encoder):
    cfg = Eval(max_samples=MaxSamples(forget=2), max_new_tokens=1)
    evaluation = evaluated(model, encoder, SETS, cfg, "packed")
    assert [r.id for r in evaluation.sets["forget"].records] == ["forget/0", "forget/1"]
    assert evaluation.sets["forget"].data == fingerprint(FORGET[:2]) != fingerprint(FORGET)


def test_the_protocol_holds_every_rule_that_changes_records_and_none_that_does_not(
    model, encoder, tokenizer
):
    cfg = Eval(max_new_tokens=7, max_samples=MaxSamples(forget=2))
    expected = dataclasses.replace(
        OPEN_UNLEARNING,
        template=TEMPLATE,
        prompt="Question: {prompt}\nAnswer:",
        decoded_prompt="Question: {prompt}\nAnswer:",
        answer=" {answer}<end>",
        max_new_tokens=7,
        max_samples={"forget": 2, "retain": None, "real_authors": None, "world_facts": None},
    )
    assert resolve_protocol(cfg, encoder) == expected
    assert evaluated(model, encoder, SETS, cfg, "packed").protocol == dataclasses.asdict(expected)
    assert (
        resolve_protocol(
            dataclasses.replace(cfg, tokens_per_batch=16, samples=0, every_n_epochs=5), encoder
        )
        == expected
    )
    assert resolve_protocol(cfg, Encoder(tokenizer, "{prompt}")) != expected


def test_nothing_to_evaluate_gives_no_records(model, encoder):
    assert losses(model, [], 0, 16, "packed") == []
    assert generate(model, encoder, [], [], Decoding(16)) == []
    assert evaluated(model, encoder, {}, Eval(), "packed").sets == {}


def test_losses_come_back_in_the_order_of_the_texts():
    model, order = tiny_models.model(), [2, 0, 3, 1]
    texts = [tiny_models.ITEMS[i] for i in order]
    with torch.no_grad():
        scores = tiny_models.plain_scores(model, texts)
    counts = shuffled(order).answer[:, 1:].sum(1)
    expected = (-scores.logprob.sum(1) / counts).tolist()
    actual = losses(model, texts, 0, 20, "packed")
    assert [loss for loss, _ in actual] == pytest.approx(expected, abs=1e-5)
    assert [n for _, n in actual] == counts.tolist() == [7, 4, 2, 3]
