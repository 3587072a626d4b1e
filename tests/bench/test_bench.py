"""python -m tif.bench: that it measures what it says; how fast things are is no test's business."""

import json
import os

import pytest
import torch

from tests.support import tiny_models
from tif.bench import command as bench
from tif.bench import identification as bench_identify
from tif.bench import step as bench_step
from tif.bench import ways as bench_ways
from tif.bench.matrices import flops
from tif.bench.process import Memory, alone
from tif.config import load as config
from tif.losses import compute_loss
from tif.losses.terms import Scored, ScoredBatch


def test_a_measurement_has_a_process_of_its_own():
    assert alone(os.getpid) not in (0, os.getpid())


@pytest.mark.slow
def test_identify_measures_each_identifier_at_three_lengths(capsys, monkeypatch):
    monkeypatch.setattr(bench_identify, "alone", lambda measure, *args: measure(*args))
    assert bench.main(["what=identify", "words=1600", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(r["kind"], r["words"]) for r in rows] == [(k, n) for k in bench_identify.KINDS for n in (100, 400, 1600)]
    for row in rows:
        assert row["seconds"] > 0
        assert row["words_per_second"] == pytest.approx(row["words"] / row["seconds"], rel=0.2, abs=row["words"] / 0.05)


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
def test_identify_counts_what_the_work_adds_though_more_was_held_before(monkeypatch):
    sizes = iter((200, 80))  # MB: of the first words, which load the model, and of the document
    monkeypatch.setattr("tif.identifiers.identify", lambda *_: b"x" * (next(sizes) << 20))
    row = bench_identify._measure("causal_lm", "none", 8, "one two " * 4, None)
    assert row["memory_mb"] == pytest.approx(80, abs=10)


def test_a_document_has_the_words_that_are_asked_for(tmp_path):
    (tmp_path / "a.txt").write_text("one  two\nthree " * 500)
    cfg = bench.Bench(words=1100, text=str(tmp_path / "a.txt"))
    assert bench_identify._document(cfg).split(" ")[:4] == ["one", "two", "three", "one"]
    assert len(bench_identify._document(cfg).split(" ")) == 1100
    assert len(bench_identify._document(bench.Bench(words=1000)).split(" ")) == 1000
    assert bench_identify._sample("a b c d", 3).answer == "a b c"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["what=speed"], "what: want one of step, eval, identify, startup, scaling, memory, got 'speed'"),
        (["word=5"], "word: unknown key; did you mean words?"),
        (["text=no.txt"], "text: no file no.txt"),
        (["what=identify", "masked_lm=./no", "words=1000"], "masked_lm: no folder"),
        (["model.path=./no"], "model.path: no folder ./no"),
        (["batch_sizes=[4,200]"], "batch_sizes: want sizes of 1 to samples=64, got [4, 200]"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(capsys, words, line):
    assert bench.main(words) == 2
    (actual,) = capsys.readouterr().err.splitlines()
    assert actual.startswith(line)


# --- step


SMALL = [
    "model.init={hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, "
    "num_key_value_heads: 1, vocab_size: 4096, tie_word_embeddings: true}",
    "data.fictitious.authors=10",
    "data.fictitious.forget_share=0.4",
    "data.fictitious.questions_per_author=4",
]


def test_step_compares_four_ways_on_the_same_batches(capsys, monkeypatch):
    monkeypatch.setattr(bench_step, "alone", lambda measure, *args: measure(*args))
    words = [*SMALL, "batch_sizes=[2,4]", "samples=8", "release=2", "threads=1", "--json"]
    assert bench.main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    both = ["ours", "release", "two-pass", "dynamic"], ["ours", "two-pass", "dynamic"]
    assert [(r["batch_size"], r["way"]) for r in rows] == [
        (n, w) for n, ways in zip((2, 4), both, strict=True) for w in ways
    ]
    assert [r["steps"] for r in rows] == [4, 1, 4, 4, 2, 2, 2]
    for row in rows:
        assert row["seconds"] > 0
        assert row["memory_mb"] >= 0
        assert row["loss"] > 4  # 2 ln 2 / beta = 4.6 where there is an unwanted word, and pl
        assert 0 < row.get("share", 0.5) < 1
    assert {r["ratio"] for r in rows if r["way"] == "ours"} == {1}
    # padding to 500 tokens costs, however small the model: samples have about 40
    assert rows[1]["ratio"] > 2


def moved():
    """A policy that is not its reference, so that LPL is not a constant."""
    policy, reference = tiny_models.model(), tiny_models.model()
    with torch.no_grad():
        for weight in policy.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return policy, reference


@pytest.mark.parametrize("name", ["release", "two_pass", "dynamic"])
def test_each_way_has_the_loss_and_the_gradient_of_one_sample_at_a_time(name):
    policy, reference = moved()
    batch = tiny_models.batch_of(*tiny_models.ITEMS)
    with torch.no_grad():
        original = tiny_models.plain_scores(reference, tiny_models.ITEMS)
    scored = ScoredBatch(Scored(tiny_models.plain_scores(policy, tiny_models.ITEMS), original))
    expected = compute_loss(scored, batch, bench_step.LOSS).total
    expected.backward()
    gradients = [p.grad.clone() for p in policy.parameters()]
    policy.zero_grad()
    assert getattr(bench_ways, name)(policy, reference, bench_step.LOSS)(batch) == pytest.approx(
        expected.item(), rel=1e-4
    )
    for p, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(p.grad, gradient, atol=1e-5, rtol=1e-3)


def test_ways_whose_losses_differ_are_not_measured(monkeypatch):
    monkeypatch.setattr(bench_ways, "_pl", lambda logits, batch: 0 * logits.sum())
    with pytest.raises(AssertionError, match="loss differs"):
        bench.main([*SMALL, "batch_sizes=[2]", "samples=2", "release=0", "memory=false"])


def test_the_count_of_operations_is_that_of_the_products_of_a_model_written_out():
    cfg = bench.Bench()
    cfg.model.init = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2,
                      "num_key_value_heads": 1, "vocab_size": 50, "tie_word_embeddings": True}  # fmt: skip
    made = bench_step.Stand(cfg, (bench_step.random_model(cfg.model), list(tiny_models.ITEMS)))
    # q and o 8 x 8, k and v 4 x 8, three of 12 x 8; 25 tokens; 4 + 3 + 7 + 2 answer tokens into a vocabulary of 50
    block = 3 * (2 * 64 + 2 * 32 + 3 * 96)
    assert flops(made.policy, made.all()) == 6 * (25 * block + 16 * 8 * 50)


def test_a_matrix_that_is_not_trained_has_no_product_for_its_gradient():
    cfg = config.read(bench.Bench, [*SMALL, "model.lora.rank=2"])
    made = bench_step.Stand(cfg, (bench_step.random_model(cfg.model), list(tiny_models.ITEMS)))
    # q and o 32 x 32, k and v 16 x 32, three of 64 x 32, two layers; LoRA of rank 2 on each: 2 x (out + in)
    base = 2 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32)
    adapters = 2 * 2 * (2 * (32 + 32) + 2 * (16 + 32) + 3 * (64 + 32))
    assert flops(made.policy, made.all()) == 25 * (4 * base + 6 * adapters) + 16 * 4 * 32 * 4096


def test_gpt_2_whose_matrices_are_no_linear_layers_is_counted_too():
    made = bench_step.Stand(bench.Bench(), (tiny_models.model("gpt2"), list(tiny_models.ITEMS)))
    cfg = made.policy.config
    block = cfg.n_layer * 12 * cfg.n_embd**2  # q, k, v, o and two of 4 x
    assert flops(made.policy, made.all()) == 6 * (25 * block + 16 * cfg.n_embd * cfg.vocab_size)


@pytest.mark.slow
@pytest.mark.parametrize("few", [[], ["model.quantize=nf4"], ["model.dtype=bfloat16"]], ids=["lora", "nf4", "bfloat16"])
def test_adapters_four_bits_and_bfloat16_are_measured_as_they_are_trained(capsys, monkeypatch, few):
    monkeypatch.setattr(bench_step, "alone", lambda measure, *args: measure(*args))
    words = [*SMALL, "model.lora.rank=2", *few, "batch_sizes=[2]", "samples=4", "release=0", "threads=1", "--json"]
    assert bench.main(words) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [r["way"] for r in rows] == ["ours", "two-pass", "dynamic"]
    assert all(r["whole_mb"] >= r["memory_mb"] >= 0 and r["loss"] > 4 for r in rows)


def test_the_shapes_in_configs_have_as_many_weights_as_their_models():
    for name, weights in (("llama_3_2_3b", 3_212_749_824), ("llama_2_7b", 6_738_415_616)):
        cfg = config.read(bench.Bench, [f"model/{name}_shape.yaml"])
        made = bench_step.random_model(cfg.model, "meta")
        assert made.num_parameters() == weights  # as their model cards say


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux")
def test_memory_is_counted_above_what_was_held_and_after_the_restart():
    held = torch.ones(4_000_000)
    memory = Memory("cpu")
    gone = torch.ones(40_000_000)  # 160 MB
    del gone
    memory.restart()
    work = torch.ones(20_000_000)  # 80 MB
    assert 70 < memory.peak_mb() < 120
    assert held.sum() + work.sum() == 24_000_000
