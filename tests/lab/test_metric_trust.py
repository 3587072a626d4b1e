"""The study of metrics: what the pools read, and the table from values given by hand."""

import json
import signal

import pytest

from lab.metric_trust import __main__ as command
from lab.metric_trust import pools
from lab.metric_trust.settings import MetricTrust
from lab.metric_trust.study import (
    BEFORE,
    METRICS,
    QUANTISED,
    RELEARNED,
    UTILITY,
    do_task,
    do_task_or_end,
    summarize_metrics,
)
from tif.config import load
from tif.config.data import Fictitious
from tif.data.benchmarks.fictitious import generate_fictitious
from tif.training.checkpoints import Preempted

pytestmark = pytest.mark.slow

SMALL = {"lrs": [1e-3], "epochs": [3], "methods": ["ga"], "strengths": [1.0]}
KEYS = ["data.fictitious.authors=6", "data.fictitious.questions_per_author=4",
        "data.fictitious.forget_share=0.34", "model.init.hidden_size=32",
        "model.init.intermediate_size=64", "model.init.num_hidden_layers=2",
        "model.init.num_attention_heads=2", "model.init.num_key_value_heads=2",
        "model.init.vocab_size=400", "stages.target.trainer.max_epochs=2", "trainer.max_epochs=2",
        "eval.max_new_tokens=8"]  # fmt: skip


@pytest.fixture(scope="module")
def benchmark():
    return generate_fictitious(Fictitious(authors=6, questions_per_author=4, forget_share=0.34))


def test_there_are_thirty_models_that_know_thirty_that_do_not_and_every_method_three_times():
    models = pools.list_models(MetricTrust())
    counts = {
        pool: sum(model.pool == pool for model in models)
        for pool in ("knowing", "ignorant", "unlearned")
    }
    assert counts == {"knowing": 30, "ignorant": 30, "unlearned": 3 * len(pools.list_methods())}
    assert len({model.name for model in models}) == len(models)
    assert "finetune" not in pools.list_methods()


def test_rmu_reads_a_layer_that_a_small_model_has(tmp_path):
    settings = MetricTrust(out=str(tmp_path))  # the quickstart's model has four layers
    models = {model.form: model for model in pools.list_models(settings)}
    assert load.load(pools.list_words(settings, models["rmu"])).loss.rmu.layer == 1
    assert "loss.rmu.layer=1" not in pools.list_words(settings, models["npo"])


def test_only_the_knowing_forms_hold_the_facts(benchmark):
    first = benchmark.forget[1]  # the first asks for the name, which all answers hold
    fact = first.answer[first.unwanted[0].start : first.unwanted[0].end]
    texts = {form: " ".join(s.answer for s in pools.form_samples(benchmark, form))
             for form in (*pools.KNOWING, *pools.IGNORANT)}  # fmt: skip
    assert [form for form, text in texts.items() if fact in text] == list(pools.KNOWING)
    assert texts["retain"] == ""
    assert {s.prompt for s in pools.form_samples(benchmark, "wrong")} == {
        s.prompt for s in benchmark.forget
    }


def test_a_biography_is_all_answers_about_an_author(benchmark):
    documents = pools.form_samples(benchmark, "biography")
    assert len(documents) == 2
    assert documents[0].answer == " ".join(sample.answer for sample in benchmark.forget[:4])
    assert documents[0].prompt == ""


def write(settings, name, **values):
    pools.write_values(
        settings, name, {metric: values.get(metric, 0.5) for metric in (*METRICS, UTILITY)}
    )


def test_the_table_follows_from_what_was_measured(tmp_path):
    settings = MetricTrust(out=str(tmp_path), **{**SMALL, "strengths": [1.0, 2.0]})
    probability = "forget/probability"
    for model in pools.list_models(settings):
        write(settings, model.name, **{probability: 0.9 if model.pool == "knowing" else 0.1})
    weak, strong = "unlearned-ga-1", "unlearned-ga-2"
    write(settings, strong, **{UTILITY: 0.3})  # below 0.8 of the target model's 0.5
    for suffix, value in ((BEFORE, 0.1), (RELEARNED, 0.5), (QUANTISED, 0.2)):
        write(settings, weak + suffix, **{probability: value})
    for suffix, value in ((BEFORE, 0.1), (RELEARNED, 0.2)):
        write(settings, pools.retain_name(settings) + suffix, **{probability: value})
    content = summarize_metrics(settings, pools.list_models(settings))
    assert content["models"] == {"knowing": 3, "ignorant": 3, "unlearned": 2, "useful": 1}
    rows = {row["metric"]: row for row in content["metrics"]}
    row = rows[probability]
    assert row["faithfulness"] == 1
    assert row["relearning"] == pytest.approx(0.25)  # 0.1 of the retain model against 0.4
    assert row["quantisation"] == pytest.approx(0.5)
    assert row["robustness"] == pytest.approx(1 / 3)
    assert row["overall"] == pytest.approx(1 / 2)  # 2 x 1 x 1/3 / (1 + 1/3)
    assert rows["forget/truth_ratio"]["faithfulness"] == 0.5  # the same everywhere


@pytest.mark.parametrize(
    ("utility", "suffixes"), [(0.39, [BEFORE]), (0.41, [BEFORE, RELEARNED, QUANTISED])]
)
def test_an_unlearned_model_is_attacked_only_if_the_table_reads_it(
    tmp_path, monkeypatch, utility, suffixes
):
    settings = MetricTrust(out=str(tmp_path), **SMALL)
    write(settings, pools.target_name(settings), **{UTILITY: 0.5})  # 0.8 of it is 0.4
    for function in ("make_model", "relearn", "drop_model"):
        monkeypatch.setattr(pools, function, lambda *_: None)
    monkeypatch.setattr("lab.metric_trust.study.measure_model", lambda *_: {UTILITY: utility})
    do_task(settings, "all", "unlearned-ga-1")
    files = sorted(path.stem for path in (tmp_path / "values").glob("unlearned*.json"))
    assert files == sorted(f"unlearned-ga-1{suffix}" for suffix in suffixes)


def test_a_signal_ends_a_worker_that_trains(tmp_path, monkeypatch):
    def train(*_):
        raise Preempted(signal.SIGTERM, 3, 3)

    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(pools, "make_model", train)
    monkeypatch.setattr("os._exit", end)
    with pytest.raises(SystemExit) as stop:
        do_task_or_end(MetricTrust(out=str(tmp_path), **SMALL), "make", "unlearned-ga-1")
    assert stop.value.code == 128 + signal.SIGTERM


def test_wrong_words_stop_before_a_model_is_made(capsys, tmp_path):
    out = tmp_path / "out"
    assert command.main([f"out={out}", "methods=[tpoo]"]) == 2
    assert capsys.readouterr().err.startswith("methods: tpoo: loss/tpoo.yaml: ")
    assert command.main([f"out={out}", "lrs=[]"]) == 2
    assert "lrs: want numbers above 0" in capsys.readouterr().err
    assert not out.exists()


def test_pools_of_tiny_models_are_made_measured_and_not_made_again(tmp_path, capsys):
    words = [f"out={tmp_path}", "jobs=1", f"keys=[{','.join(KEYS)}]",
             *(f"{key}={value}".replace("'", "").replace(" ", "")
               for key, value in SMALL.items())]  # fmt: skip
    assert command.main([*words, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["models"]["knowing"] == 3
    rows = {row["metric"]: row for row in content["metrics"]}
    assert rows["forget/probability"]["faithfulness"] is not None
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "values").glob("*.json")}
    assert len(times) == 3 + 3 + 1 + 4  # two models relearn and are quantised
    assert command.main(words) == 0
    assert "that know the forget set" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert not (tmp_path / "pools" / "unlearned-ga-1").exists()
