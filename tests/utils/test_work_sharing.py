"""Evaluation by several processes: each does a share, and the records are those of one."""

import itertools

import pytest

from tests.support import tiny_models
from tests.support.process_groups import together
from tif.config.data import Fictitious
from tif.config.schema import Eval, MaxSamples, Model
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.benchmarks.tofu import read_tofu
from tif.data.encoding import Encoder
from tif.evaluation.evaluate import evaluate
from tif.evaluation.questions import EvaluationSetup
from tif.metrics.tofu import aggregate
from tif.models.load import load_tokenizer

WORLDS = (1, 2, 4)
CFG = Eval(
    max_new_tokens=6,
    max_samples=MaxSamples(5, 7, 6, 6),
    tokens_per_batch=150,
    paraphrased_questions=True,
)


def small_benchmark():
    return generate_fictitious(
        Fictitious(authors=6, questions_per_author=3, forget_share=0.34, seed=1)
    )


def evaluated(sets, batching, sharded=False):
    """Records, and how many forwards this process ran."""
    texts = [f"{s.prompt} {s.answer}" for samples in sets.values() for s in samples]
    tokenizer = load_tokenizer(Model(init={"vocab_size": 400}), texts)
    model, forwards = tiny_models.model("llama", vocab_size=len(tokenizer)), []
    if sharded:
        from torch.distributed.fsdp import fully_shard

        for layer in model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    model.register_forward_hook(lambda *_: forwards.append(1))
    encoder = Encoder(tokenizer, "Question: {prompt}\nAnswer:")
    return evaluate(model, sets, EvaluationSetup(encoder, CFG, batching), "m"), len(forwards)


def check(sets, batching, worlds=WORLDS):
    results_by_world = {world: together(world, evaluated, sets, batching) for world in worlds}
    ((expected, alone),) = results_by_world[1]
    for world, results in results_by_world.items():
        for records, forwards in results:
            assert records == expected  # to the last bit
            assert aggregate(records) == aggregate(expected)
            assert 0 < forwards < alone or world == 1
    return expected


@pytest.mark.guard
@pytest.mark.slow
@pytest.mark.parametrize(("batching", "worlds"), [("packed", WORLDS), ("padded", WORLDS[:2])])
def test_one_two_and_four_processes_give_the_same_records_to_the_last_bit(batching, worlds):
    expected = check(small_benchmark().sets, batching, worlds)
    assert {name: len(record_set.records) for name, record_set in expected.sets.items()} == {
        "forget": 5,
        "forget_paraphrased": 5,
        "retain": 7,
        "retain_paraphrased": 7,
        "real_authors": 6,
        "world_facts": 6,
    }
    assert all(r.stats for record_set in expected.sets.values() for r in record_set.records)


@pytest.mark.guard
@pytest.mark.slow
@pytest.mark.real
def test_one_two_and_four_processes_give_the_same_records_of_tofu(shared):
    check(read_tofu(str(shared / "tofu"), "forget01").sets, "packed")


@pytest.mark.guard
@pytest.mark.slow
def test_a_model_spread_over_the_processes_is_evaluated_by_all_of_them_together():
    sets = {"retain": small_benchmark().sets["retain"]}
    ((expected, alone),) = together(1, evaluated, sets, "packed")
    for records, forwards in together(2, evaluated, sets, "packed", True):
        assert forwards == alone
        for a, b in itertools.chain(
            *(
                zip(records.sets[n].records, record_set.records, strict=True)
                for n, record_set in expected.sets.items()
            )
        ):
            assert (a.id, a.generated, a.tokens) == (b.id, b.generated, b.tokens)
            assert a.loss == pytest.approx(b.loss, abs=1e-5)
