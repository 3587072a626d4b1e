import random

import lightning as L
import numpy as np
import pytest
import torch

from tests.support.modules import data_module
from tif.config.data import Fictitious
from tif.config.errors import ConfigError
from tif.config.schema import Config
from tif.data.benchmarks import list_tokenizer_texts, read_benchmark
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.data.encoding import Batch
from tif.data.rows import read_refusals
from tif.data.samples import Benchmark, Sample, Span, select_training_samples
from tif.training.checks import check_samples
from tif.training.datamodule import UnlearningDataModule


def samples(kind: str, count: int) -> tuple[Sample, ...]:
    """Answers of different lengths, whose first word is unwanted."""
    return tuple(
        Sample(
            f"{kind}/{i}",
            f"Who is {kind} {i}?",
            f"{kind} {i}" + " and so on" * (i % 3),
            (Span(0, len(kind)),),
        )
        for i in range(count)
    )


BENCHMARK = Benchmark(
    "toy", samples("forget", 12), samples("retain", 30), {}, samples("background", 5)
)


def made_module(
    tokenizer, seed=0, batch_size=4, retain="ce", train="forget", benchmark=BENCHMARK, forget="lpl"
) -> UnlearningDataModule:
    cfg = Config()
    cfg.run.seed, cfg.data.batch_size, cfg.data.train, cfg.loss.retain = (
        seed,
        batch_size,
        train,
        retain,
    )
    cfg.loss.forget = forget
    return data_module(cfg, benchmark, tokenizer)


def epochs(datamodule: UnlearningDataModule, *numbers: int) -> list[list[Batch]]:
    """The batches of these epochs, one loader for all of them, as Lightning reads them."""
    loader = datamodule.train_dataloader()
    loaded = []
    for number in numbers:
        loader.sampler.set_epoch(number)
        loaded.append(list(loader))
    return loaded


def pairs(batches: list[Batch]) -> list[tuple[str, str]]:
    """(forget id, retain id) in the order of training."""
    return [pair for b in batches for pair in zip(b.ids, b.retain.ids, strict=True)]


def order(batches: list[Batch]) -> list[str]:
    return [i for b in batches for i in b.ids]


def test_an_epoch_has_every_forget_sample_once_with_its_masks_and_its_position(tokenizer):
    datamodule = made_module(tokenizer, batch_size=5)
    (batches,) = epochs(datamodule, 0)
    assert [len(b.ids) for b in batches] == [5, 5, 2]
    assert sorted(order(batches)) == sorted(s.id for s in BENCHMARK.forget)
    for batch in batches:
        assert [BENCHMARK.forget[i].id for i in batch.index.tolist()] == list(batch.ids)
        for row, position in enumerate(batch.index.tolist()):
            encoded, length = (
                datamodule.encoder.encode(BENCHMARK.forget[position]),
                batch.lengths[row],
            )
            assert batch.input_ids[row, :length].tolist() == encoded.input_ids
            assert batch.uw[row, :length].tolist() == encoded.uw
            assert batch.gw[row, :length].tolist() == encoded.gw
            assert not batch.answer[row, length:].any()


def test_each_forget_sample_meets_a_whole_retain_sample(tokenizer):
    datamodule = made_module(tokenizer)
    (batches,) = epochs(datamodule, 0)
    known = {s.id: s for s in BENCHMARK.retain}
    for batch in batches:
        assert batch.retain.index.tolist() == batch.index.tolist()
        for row, name in enumerate(batch.retain.ids):
            length = batch.retain.lengths[row]
            expected = datamodule.encoder.encode(known[name]).input_ids
            assert batch.retain.input_ids[row, :length].tolist() == expected


def test_without_a_retain_term_there_is_no_retain_batch(tokenizer):
    datamodule = made_module(tokenizer, retain="none")
    assert datamodule.retain is None
    (batches,) = epochs(datamodule, 0)
    assert all(b.retain is None for b in batches)
    assert order(batches) == order(
        epochs(made_module(tokenizer), 0)[0]
    )  # and the order is the same


def test_the_same_seed_and_epoch_give_the_same_batches(tokenizer):
    first, second = (epochs(made_module(tokenizer, seed=3), 0, 1) for _ in range(2))
    for batch, other in zip(
        (b for e in first for b in e), (b for e in second for b in e), strict=True
    ):
        assert batch.ids == other.ids
        assert torch.equal(batch.input_ids, other.input_ids)
        assert batch.retain.ids == other.retain.ids


def test_an_epoch_is_the_same_after_a_resume(tokenizer):
    *_, last = epochs(made_module(tokenizer), 0, 1, 2)
    (resumed,) = epochs(made_module(tokenizer), 2)
    assert pairs(resumed) == pairs(last)


def test_another_epoch_has_another_order_and_other_pairs(tokenizer):
    loaded = epochs(made_module(tokenizer), *range(6))
    assert len({tuple(order(e)) for e in loaded}) == 6
    assert len({tuple(sorted(pairs(e))) for e in loaded}) == 6
    of_one = [dict(pairs(e))["forget/0"] for e in loaded]
    assert len(set(of_one)) > 3  # of 30


def test_another_seed_has_another_order_and_other_pairs_in_every_epoch(tokenizer):
    loaded = [e for seed in range(4) for e in epochs(made_module(tokenizer, seed=seed), *range(4))]
    assert (
        len({tuple(order(e)) for e in loaded}) == 16
    )  # seed 0 of epoch 1 is not seed 1 of epoch 0
    assert len({tuple(sorted(pairs(e))) for e in loaded}) == 16


def test_retain_samples_are_drawn_from_all_of_the_retain_set(tokenizer):
    drawn = [retain for e in epochs(made_module(tokenizer), *range(30)) for _, retain in pairs(e)]
    assert set(drawn) == {s.id for s in BENCHMARK.retain}
    # 360 draws of 30: each is expected 12 times, with a standard deviation of 3.4.
    assert max(drawn.count(s.id) for s in BENCHMARK.retain) < 12 + 4 * 3.4


def test_a_retain_set_smaller_than_the_forget_set_is_drawn_from_again(tokenizer):
    small = Benchmark("toy", BENCHMARK.forget, BENCHMARK.retain[:1], {})
    (batches,) = epochs(made_module(tokenizer, benchmark=small), 0)
    assert {retain for _, retain in pairs(batches)} == {"retain/0"}


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_order_and_pairs_do_not_depend_on_the_batch_size(tokenizer, batch_size):
    (expected,) = epochs(made_module(tokenizer, batch_size=4), 2)
    (actual,) = epochs(made_module(tokenizer, batch_size=batch_size), 2)
    assert pairs(actual) == pairs(expected)


def test_global_random_states_stay_as_they_are_and_do_not_matter(tokenizer):
    def states():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.random.get_rng_state().tolist(),
        )

    (expected,) = epochs(made_module(tokenizer), 1)
    L.seed_everything(77, verbose=False)
    before = states()
    (actual,) = epochs(made_module(tokenizer), 1)
    assert states() == before
    assert pairs(actual) == pairs(expected)


@pytest.mark.filterwarnings("ignore")
def test_lightning_sets_the_epoch_and_leaves_the_sampler_alone(tokenizer):
    class Reader(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.seen = []

        def training_step(self, batch, _):
            self.seen.append(
                (self.current_epoch, list(zip(batch.ids, batch.retain.ids, strict=True)))
            )

        def configure_optimizers(self):
            return None

    reader = Reader()
    off = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    L.Trainer(max_epochs=2, accelerator="cpu", devices=1, **off).fit(
        reader, datamodule=made_module(tokenizer)
    )
    expected = epochs(made_module(tokenizer), 0, 1)
    for number in range(2):
        seen = [pair for epoch, entries in reader.seen if epoch == number for pair in entries]
        assert seen == pairs(expected[number])


def test_train_says_what_the_loop_reads(tokenizer):
    ids = {
        train: [s.id for s in select_training_samples(BENCHMARK, train)]
        for train in ("forget", "retain", "full")
    }
    known = {
        kind: [s.id for s in getattr(BENCHMARK, kind)]
        for kind in ("forget", "retain", "background")
    }
    assert ids == {
        "forget": known["forget"],
        "retain": known["background"]
        + known["retain"],  # a model from scratch has read nothing before
        "full": known["background"] + known["retain"] + known["forget"],
    }
    for train, expected in ids.items():
        (batches,) = epochs(made_module(tokenizer, train=train, retain="none"), 0)
        assert sorted(order(batches)) == sorted(expected)


def test_of_the_forget_set_the_loop_reads_the_request_alone(tokenizer):
    cfg = Config()
    cfg.data.request = "forget/1*"
    (batches,) = epochs(data_module(cfg, BENCHMARK, tokenizer), 0)
    assert sorted(order(batches)) == ["forget/1", "forget/10", "forget/11"]
    cfg.data.request = "forget/x"
    with pytest.raises(ConfigError, match=r"^data.request: toy has no .* 'forget/x'; .* forget/0$"):
        check_samples(BENCHMARK, cfg.data, cfg.loss)


def test_overlap_and_template_of_the_config_reach_the_encoder(tokenizer):
    cfg = Config()
    cfg.data.template, cfg.data.overlap = "{prompt} So:", "uw"
    encoder = data_module(cfg, BENCHMARK, tokenizer).encoder
    assert (encoder.prompts.template, encoder.overlap) == ("{prompt} So:", "uw")


def test_texts_hold_every_answer_in_its_prompt():
    rich = Sample("r/0", "Who?", "A", paraphrased_answer="B", perturbed_answers=("C", "D"))
    known = Benchmark("toy", (rich,), samples("retain", 1), {}, samples("background", 1))
    assert list_tokenizer_texts(known, "Q: {prompt}\nA:") == [
        "Q: Who is background 0?\nA: background 0",
        "Q: Who is retain 0?\nA: retain 0",
        *(f"Q: Who?\nA: {answer}" for answer in "ABCD"),
    ]


def test_the_config_names_the_benchmark():
    cfg = Config().data
    settings = cfg.fictitious
    settings.authors, settings.questions_per_author, settings.forget_share, settings.seed = (
        4,
        2,
        0.5,
        7,
    )
    assert read_benchmark(cfg) == generate_fictitious(Fictitious(4, 2, 0.5, 7))
    cfg.benchmark, cfg.path, cfg.split = "tofu", "/nowhere/at/all", "forget01"
    with pytest.raises(ValueError, match="^data.path: no folder /nowhere/at/all; "):
        read_benchmark(cfg)


@pytest.mark.real
def test_the_config_limits_the_retain_samples_of_tofu(shared):
    cfg = Config().data
    cfg.benchmark, cfg.path, cfg.split, cfg.max_retain = "tofu", str(shared / "tofu"), "forget05", 7
    benchmark = read_benchmark(cfg)
    assert (benchmark.name, len(benchmark.forget), len(benchmark.retain)) == (
        "tofu/forget05",
        200,
        7,
    )


# --- refusals


def refused(tokenizer, batches):
    """(forget id, text of its alternate) in the order of training."""
    return [
        (name, tokenizer.decode(b.alternate.input_ids[row, : b.alternate.lengths[row]]))
        for b in batches
        for row, name in enumerate(b.alternate.ids)
    ]


def test_a_term_that_asks_for_refusals_gets_each_prompt_with_one_and_others_get_none(tokenizer):
    datamodule, known = made_module(tokenizer, forget="dpo"), set(read_refusals())
    (batches,) = epochs(datamodule, 0)
    assert order(batches) == order(
        epochs(made_module(tokenizer), 0)[0]
    )  # the same draws as without
    assert pairs(batches) == pairs(epochs(made_module(tokenizer), 0)[0])
    prompts = {s.id: datamodule.encoder.render_prompt(s.prompt) for s in BENCHMARK.forget}
    for batch in batches:
        assert batch.alternate.ids == batch.ids
        assert not batch.alternate.uw.any()
    for name, text in refused(tokenizer, batches):
        assert text.startswith(f"{prompts[name]} ")
        assert text.removeprefix(f"{prompts[name]} ").removesuffix(tokenizer.eos_token) in known
    assert all(b.alternate is None for b in epochs(made_module(tokenizer), 0)[0])


def test_refusals_are_drawn_anew_each_epoch_and_repeat_with_the_seed(tokenizer):
    first, second = (
        refused(tokenizer, b) for b in epochs(made_module(tokenizer, forget="idk"), 0, 1)
    )
    assert sorted(first) != sorted(second)
    assert refused(tokenizer, epochs(made_module(tokenizer, forget="idk"), 1)[0]) == second
    assert refused(tokenizer, epochs(made_module(tokenizer, forget="idk", seed=1), 1)[0]) != second


def test_generated_alternates_take_the_place_of_refusals_each_sample_its_own(tokenizer):
    datamodule = made_module(tokenizer, forget="dpo")
    datamodule.loss.alternates.kind = "generated"
    datamodule.alternates = {
        s.id: tuple(f"Not {s.id}, {n}." for n in range(3)) for s in BENCHMARK.forget
    }
    prompts = {s.id: datamodule.encoder.render_prompt(s.prompt) for s in BENCHMARK.forget}
    drawn = [
        (name, text.removeprefix(f"{prompts[name]} ").removesuffix(tokenizer.eos_token))
        for batches in epochs(datamodule, *range(12))
        for name, text in refused(tokenizer, batches)
    ]
    assert set(drawn) == {
        (name, text) for name, texts in datamodule.alternates.items() for text in texts
    }
    assert pairs(epochs(datamodule, 0)[0]) == pairs(
        epochs(made_module(tokenizer), 0)[0]
    )  # the other draws stay


def reworded_module(tokenizer, share: float, max_tokens: int = 512, **keys) -> UnlearningDataModule:
    """One whose draws lose all general words, in a share of them."""
    cfg = Config()
    cfg.data.batch_size, cfg.data.max_tokens, cfg.loss.retain = 4, max_tokens, "ce"
    cfg.loss.wording.share, cfg.loss.wording.drop = share, 1.0
    return data_module(cfg, BENCHMARK, tokenizer, **keys)


def test_a_reworded_sample_keeps_its_unwanted_words_and_has_no_general_ones_to_preserve(tokenizer):
    datamodule = reworded_module(tokenizer, 1.0)
    (batches,) = epochs(datamodule, 0)
    for batch in batches:
        assert not batch.gw.any()
        for row, position in enumerate(batch.index.tolist()):
            sample = BENCHMARK.forget[position]
            text = tokenizer.decode(batch.input_ids[row, : batch.lengths[row]])
            prompt = datamodule.encoder.render_prompt(sample.prompt)
            assert text == f"{prompt} forget {tokenizer.eos_token}"
            marked = batch.input_ids[row][batch.uw[row]]
            assert tokenizer.decode(marked).strip() == "forget"


def test_rewordings_differ_by_epoch_repeat_with_the_seed_and_leave_the_other_draws(tokenizer):
    def texts(batches):
        return [[b.input_ids[row].tolist() for row in range(len(b.ids))] for b in batches]

    first, second = epochs(reworded_module(tokenizer, 0.5), 0, 1)
    assert pairs(first) == pairs(epochs(made_module(tokenizer), 0)[0])
    assert texts(first) == texts(epochs(reworded_module(tokenizer, 0.5), 0)[0])
    changed = [{b.ids[row] for b in e for row in range(len(b.ids)) if not b.gw[row].any()}
               for e in (first, second)]  # fmt: skip
    assert 0 < len(changed[0]) < len(BENCHMARK.forget)
    assert changed[0] != changed[1]


def test_pieces_of_a_long_text_stay_as_they_are_written(tokenizer):
    datamodule = reworded_module(tokenizer, 1.0, max_tokens=16)
    assert any("#" in item.id for item in datamodule.items)
    (batches,) = epochs(datamodule, 0)
    for batch in batches:
        for row, position in enumerate(batch.index.tolist()):
            if "#" in batch.ids[row]:
                item = datamodule.items[position]
                assert batch.input_ids[row, : batch.lengths[row]].tolist() == item.input_ids


def test_the_refusals_are_a_hundred_varied_lines():
    known = read_refusals()
    assert len(known) == len(set(known)) == 100
    assert all(line == line.strip() and line.endswith(".") for line in known)
    assert len({line.split()[0] for line in known}) > 20
    assert max(len(line) for line in known) < 80
