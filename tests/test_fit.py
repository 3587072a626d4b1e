"""`python -m tif.fit` end to end on a run of a few seconds, and every refusal before weights load."""

import json
import math
import pathlib
import shutil

import pytest

from tests.support.run_folders import claimed
from tests.support.small_run import SMALL, files, finished, rows
from tif import evaluate, fit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.data.fictitious import generate_fictitious
from tif.identifiers import span_file
from tif.models import export
from tif.models import load as models
from tif.records import files as records
from tif.reports.columns import format_number
from tif.training import module
from tif.training import plan as planning
from tif.training import run as training
from tif.training.callbacks.evaluation import PolicyEvaluation
from tif.utils import environment

SETS = ("forget", "retain", "real_authors", "world_facts")

SMALL_MODEL = [word for word in SMALL if word.startswith(("model.", "data.fictitious", "stages."))]


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return finished(tmp_path_factory)


@pytest.fixture
def refused(tmp_path, monkeypatch, capsys):
    """Runs the command, which must exit with 2, write nothing and load no weights; returns the lines of stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*argv):
        monkeypatch.setattr(models, "load_policy", lambda *_: pytest.fail("weights were loaded"))
        before = files(tmp_path)
        assert fit.main(argv) == 2
        assert files(tmp_path) == before
        assert not (tmp_path / "runs").exists()
        shown = capsys.readouterr()
        assert shown.out == ""
        return shown.err.splitlines()

    return call


def one(lines):
    assert len(lines) == 1, lines
    return lines[0]


def tofu_row(i, topic):
    return {
        "question": f"What does the {topic} {i} do?",
        "answer": f"It keeps {topic} number {i} in order.",
        "paraphrased_question": f"What is the {topic} {i} for?",
        "paraphrased_answer": f"For order in {topic} number {i}.",
        "perturbed_answer": [f"It paints {topic} {i}.", f"It sells {topic} {i}."],
    }


def tofu_folder(folder, **instead):
    """A folder in TOFU's format with our own text: forget01 with 4 rows, retain99 with 6. `instead`: other rows."""
    folder.mkdir()
    tables = {
        "forget01": [tofu_row(i, "lighthouse") for i in range(4)],
        "retain99": [tofu_row(i, "harbour") for i in range(6)],
        "real_authors_perturbed": [tofu_row(i, "ferry") for i in range(2)],
        "world_facts_perturbed": [tofu_row(i, "island") for i in range(2)],
    }
    tables |= {"forget01_perturbed": tables["forget01"], "retain_perturbed": tables["retain99"]} | instead
    for name, table in tables.items():
        (folder / f"{name}.json").write_text("".join(json.dumps(row) + "\n" for row in table))
    return folder


TOFU = [*SMALL, "data.benchmark=tofu", "data.path=tofu", "data.split=forget01", "identifier.kind=all"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["loss.beat=1"], "loss.beat: unknown key; did you mean loss.beta?"),
        (["loss.beta=x"], "loss.beta: want float, got 'x'"),
        (["loss.beta=0"], "loss.beta: must be > 0, got 0.0"),
        (["eval.retain_records=null"], "eval.retain_records: forget quality needs the retain model's records, got"),
        (["eval.retain_records=nowhere"], "eval.retain_records: nowhere: want the eval folder of a retain model's run"),
        (["model.path=nowhere"], "model.path: no folder nowhere; want a Hugging Face folder"),
        (["model.path=./nowhere"], "model.path: no folder ./nowhere; want a Hugging Face folder"),
        (["model.init.hiden_size=8"], "stages.target.model.init: LlamaConfig has no hiden_size"),
        (["model.init.num_attention_heads=3"], "stages.target.model.init: no Llama can be made of it ("),
        (["model.attention=fast"], "stages.target.model.init: no Llama can be made of it ("),
        (["data.template=chat"], "stages.target.data.template: chat, but a tokenizer made for model.init has no"),
        (["identifier.kind=precomputed", "identifier.path=nowhere"], "identifier.path: nowhere does not exist"),
        (["data.fictitious.forget_share=0.01"], "data.fictitious.forget_share: must leave at least one author on both"),
        (["data.fictitious.forget_share=1"], "data.fictitious.forget_share: must leave at least one author on both"),
        (["data.benchmark=tofu", "data.path=nowhere"], "data.path: no folder nowhere; want a folder of TOFU's JSON"),
        (["data.benchmark=tofu", "data.path=./a/b"], "data.path: no folder ./a/b; want a folder of TOFU's JSON"),
        (["stage=traget"], "stage: unknown stage 'traget'; this config can make: target, retain"),
        (["stages.target.loss.beat=1"], "stages.target.loss.beat: unknown key; did you mean loss.beta?"),
        (["stages.target.model.path=nowhere"], "stages.target.model.path: no folder nowhere; want"),
        (["quickstat.yaml"], "quickstat.yaml: no such file here or among tif's own configs; did you mean quickstart"),
        (["trainer.accelerator=abacus"], "trainer: "),
        (["trainer.precision=12-true"], "trainer: Precision '12-true' is invalid."),
        (["trainer.devices=0"], "trainer: "),
        (["trainer.strategy=hope"], "trainer: You selected an invalid strategy name: `strategy='hope'`."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_exit_code_2_before_weights_load(refused, words, line):
    assert one(refused(*words)).startswith(line)


def test_several_problems_on_disk_are_told_at_once(refused):
    words = ["model.path=nowhere", "eval.retain_records=absent", "trainer.devices=0", "identifier.kind=precomputed"]
    lines = refused(*words, "identifier.path=no.jsonl")
    assert [line.split(":")[0] for line in lines] == ["trainer", "model.path", "eval.retain_records", "identifier.path"]


def test_an_override_that_ends_in_yaml_is_no_file(refused):
    line = one(refused("eval.retain_records=old.yaml"))
    assert line.startswith("eval.retain_records: old.yaml: want the eval folder")


def test_a_tofu_folder_of_ones_own_is_accepted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tofu_folder(tmp_path / "tofu")
    found = planning.plan_run(config.load(["quickstart.yaml", *TOFU]))
    assert [s.prompt for s in found.benchmark.forget] == [f"What does the lighthouse {i} do?" for i in range(4)]
    assert list(found.stages) == ["target", "retain"]


def test_a_missing_split_is_refused(refused, tmp_path):
    tofu_folder(tmp_path / "tofu")
    line = one(refused(*TOFU, "data.split=forget05"))
    assert line.startswith("data.path: tofu has no forget05.json; want TOFU's files")
    line = one(refused(*TOFU, "data.split=forget50"))
    assert line == "data.split: want one of forget01, forget05, forget10, got 'forget50'"


def test_an_empty_forget_set_is_refused(refused, tmp_path):
    tofu_folder(tmp_path / "tofu", forget01=[], forget01_perturbed=[])
    assert one(refused(*TOFU)).startswith("data.path: tofu/forget01.json holds no rows")


def test_gold_spans_are_not_expected_of_data_without_them(refused, tmp_path):
    tofu_folder(tmp_path / "tofu")
    line = one(refused(*TOFU, "identifier.kind=gold"))
    assert line == "identifier.kind: gold, but this benchmark has no gold spans; want another kind"


def test_a_mask_file_for_other_data_is_refused_by_the_first_row_that_differs(refused, tmp_path):
    own, other = generate_fictitious(6, 4, 0.34, seed=0), generate_fictitious(6, 4, 0.34, seed=1)
    span_file.write_spans(tmp_path / "own.jsonl", own.forget, {"kind": "gold"})
    span_file.write_spans(tmp_path / "other.jsonl", other.forget, {"kind": "gold"})
    words = [*SMALL, "identifier.kind=precomputed"]
    line = one(refused(*words, "identifier.path=other.jsonl"))
    assert line.startswith("identifier.path: other.jsonl: line 2: prompt differs: the file has ")
    accepted = planning.plan_run(config.load(["quickstart.yaml", *words, "identifier.path=own.jsonl"]))
    assert accepted.benchmark.forget == own.forget


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda m: (m / "config.json").unlink(), "model.path: m holds no config.json"),
        (lambda m: (m / "model.safetensors").unlink(), "model.path: m holds no weights (*.safetensors)"),
        (lambda m: (m / "config.json").write_text('{"model_type": "abacus"}'), "model.path: m is no model that can be"),
        (lambda m: (m / "config.json").write_text("{"), "model.path: m is no model that can be"),
        (lambda m: (m / "config.json").write_text('{"model_type": "vit"}'), "model.path: m is no model that can be"),
        (lambda m: [p.unlink() for p in m.glob("tokenizer*")], "model.path: m: no tokenizer that can be loaded"),
    ],
    ids=["no config", "no weights", "unknown type", "no JSON", "an image model", "no tokenizer"],
)
def test_a_path_that_is_no_model_is_refused(refused, run, tmp_path, damage, line):
    shutil.copytree(run.folder / "model", tmp_path / "m")
    damage(tmp_path / "m")
    assert one(refused(*SMALL, "model.path=m", "eval.forget_quality=false")).startswith(line)


def test_a_chat_template_that_the_tokenizer_lacks_is_refused(refused, run):
    words = [f"model.path={run.folder / 'model'}", "data.template=chat", "eval.forget_quality=false"]
    assert one(refused(*SMALL, *words)).startswith("data.template: chat, but the tokenizer has no chat template")


@pytest.fixture
def retain_records(run, tmp_path):
    """A copy of the retain model's records."""
    (made,) = (p.parent for p in run.runs.glob(f"stages/{stage_folders()['retain']}/eval/*/aggregates.json"))
    return shutil.copytree(made, tmp_path / "records")


def test_records_of_the_retain_model_are_taken_from_a_folder(run, retain_records):
    words = [*SMALL, f"model.path={run.folder / 'model'}", f"eval.retain_records={retain_records}"]
    found = planning.plan_run(config.load(["quickstart.yaml", *words]))
    assert found.retain_records == records.read_evaluation(retain_records)
    assert found.family == "llama"


def test_records_of_other_questions_are_refused(refused, retain_records):
    line = one(refused(*SMALL, "data.fictitious.seed=1", "eval.retain_records=records"))
    assert line.startswith("eval.retain_records: records: 8 questions against the retain model's 8; only here 8, first")


def test_records_of_fewer_questions_are_refused(refused, retain_records):
    line = one(refused(*SMALL, "eval.max_samples.forget=3", "eval.retain_records=records"))
    assert line.startswith("eval.retain_records: records: 3 questions against the retain model's 8; only there 5,")


def _edit(folder, edit):
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        edit(content)
        path.write_text(json.dumps(content))


def test_records_of_another_model_family_are_refused(refused, retain_records):
    _edit(retain_records, lambda content: content.update(family="phi"))
    line = one(refused(*SMALL, "eval.retain_records=records"))
    assert line == "eval.retain_records: records: the model family is 'llama', the retain model's is 'phi'"


def test_records_made_by_other_rules_are_refused(refused, retain_records):
    _edit(retain_records, lambda content: content["protocol"].update(name="legacy-tofu"))
    line = one(refused(*SMALL, "eval.retain_records=records"))
    assert line.endswith("the protocol is 'open-unlearning', the retain model's is 'legacy-tofu'")


def test_records_without_the_forget_set_are_refused(refused, retain_records):
    _edit(retain_records, lambda content: "sets" in content and content.update(sets=["retain"]))
    line = one(refused(*SMALL, "eval.retain_records=records"))
    assert line.endswith("the retain model's evaluation has no forget records, only retain")


@pytest.mark.parametrize("name", ["aggregates.json", "forget.json"])
def test_records_that_were_cut_short_are_refused(refused, retain_records, name):
    text = (retain_records / name).read_text()
    (retain_records / name).write_text(text[: len(text) // 2])
    assert "not valid JSON, perhaps cut short" in one(refused(*SMALL, "eval.retain_records=records"))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["loss/dpo.yaml", "model.reference=cached"],
            "model.reference: cached scores of the forget samples do not serve",
        ),
        (
            ["loss.retain=kl", "model.reference=cached"],
            "model.reference: cached scores of the forget samples do not serve",
        ),
        (["loss/rmu.yaml", "loss.rmu.layer=1"], "loss.rmu.layer: the model has layers 0 to 0, got 1"),
        (
            ["loss/tpo_released.yaml", "data.max_tokens_per_batch=64"],
            "loss.lpl_reduction: batch looks at all samples of a batch together, which cannot be shared out for "
            "data.max_tokens_per_batch=64; want another",
        ),
        (
            ["loss.forget=nowhere:f"],
            "loss.forget: nowhere:f is not there (No module named 'nowhere'); want module:function",
        ),
        (
            ["loss.forget=json:loads"],
            "loss.forget: json:loads is no term; want a function under @tif.losses.terms.term",
        ),
        (
            ["data.benchmark=text", "data.path=t.txt", "loss/idk.yaml", "loss.retain=none", "eval.enabled=false"],
            "loss.forget: idk prefers other answers to questions, but text/t has texts without a prompt; want another",
        ),
    ],
)
def test_a_loss_that_cannot_be_computed_is_refused(refused, tmp_path, words, line):
    (tmp_path / "t.txt").write_text("A document without any question.")
    files_first = sorted(words, key=lambda w: not w.endswith(".yaml"))
    assert one(refused("quickstart.yaml", *files_first, *SMALL_MODEL)).startswith(line)


def test_a_loss_that_cannot_be_shared_out_is_refused_for_several_processes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = config.load(["quickstart.yaml", "loss/kto.yaml", *SMALL_MODEL, "trainer.devices=2"])
    with pytest.raises(ConfigError, match="^loss.forget: kto looks at all samples .* for 2 processes"):
        planning.plan_run(cfg)


def test_a_run_folder_that_is_a_file_is_refused(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    assert one(refused(*SMALL, "run.folder=taken/runs")) == f"run.folder: {tmp_path / 'taken'} is a file; want a folder"


def test_a_finished_run_leaves_these_files(run):
    evaluated = {f"eval/{epoch}/{name}.json" for epoch in range(3) for name in (*SETS, "aggregates")}
    expected = evaluated | {
        "config.yaml", "env.json", "metrics.jsonl", "retain.json", "summary.json", "quality_utility.png", "losses.png",
        ".lock", "checkpoints/epoch=2-step=4.ckpt",
    }  # fmt: skip
    exported = ("README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
                "tokenizer_config.json")  # fmt: skip
    # A model this small scores the same after both epochs: the first is kept as the best, the second is the last.
    expected |= {f"{folder}/{name}" for folder in ("model", "model_best") for name in exported}
    assert {str(path) for path in files(run.folder)} == expected


def test_a_run_ends_with_its_table_its_generations_and_its_folder(run):
    for text in ("stage target: ", "stage retain: ", "evaluating the retain model", "before", "retain"):
        assert text in run.output
    assert "Forget questions, before and after" in run.output
    assert run.output.splitlines()[-1] == f"run folder: {run.folder}"


def test_metrics_have_stable_names_and_count_epochs_from_the_model_before_training(run):
    found = rows(run.folder)
    evaluated = [r for r in found if "forget/probability" in r]
    training_rows = [r for r in found if "train/loss" in r]
    assert [(r["epoch"], r["step"]) for r in evaluated] == [(0, 0), (1, 2), (2, 4)]
    assert [(r["epoch"], r["step"]) for r in training_rows] == [(1, 0), (1, 1), (2, 2), (2, 3)]
    assert len(found) == 7
    metrics = ("probability", "rouge1", "rougeL", "truth_ratio", "exact_memorization", "extraction_strength")
    per_set = {f"{s}/{m}" for s in SETS for m in metrics}
    for row in evaluated:
        assert set(row) == per_set | {"epoch", "step", "utility/model", "forget/quality", "retain/loss", "eval/score"}
    changes = {f"train/uw_{what}_change" for what in ("logit", "logprob", "mean_logit")}
    for row in training_rows:
        assert set(row) == {"epoch", "step", "train/loss", "train/lpl", "train/pl", "train/retain"} | changes
    assert all(math.isfinite(value) for row in found for value in row.values())


def test_the_first_step_is_taken_at_the_reference_itself(run):
    # d = 0, so LPL is 2 ln 2 / beta for each sample that has unwanted words.
    first = next(r for r in rows(run.folder) if "train/loss" in r)
    assert first["train/lpl"] == pytest.approx(2 * math.log(2) / 0.3, rel=1e-5)
    assert first["train/uw_logit_change"] == pytest.approx(0, abs=1e-5)
    parts = first["train/lpl"] + 0.01 * first["train/pl"] + 0.5 * first["train/retain"]
    assert first["train/loss"] == pytest.approx(parts)


def test_the_records_of_an_epoch_are_those_its_metrics_were_made_of(run):
    for row in (r for r in rows(run.folder) if "forget/probability" in r):
        found = records.read_evaluation(run.folder / "eval" / str(row["epoch"]))
        assert found.epoch == row["epoch"]
        assert [len(found.sets[name].records) for name in SETS] == [8, 6, 3, 3]
        expected = sum(math.exp(-r.loss) for r in found.sets["forget"].records) / 8
        assert row["forget/probability"] == pytest.approx(expected)
        aggregates = json.loads((run.folder / "eval" / str(row["epoch"]) / "aggregates.json").read_text())
        assert aggregates["metrics"]["forget/quality"] == row["forget/quality"]


def test_the_summary_has_the_last_evaluations_intervals_as_the_evaluate_command_finds_them(run, capsys):
    own = json.loads((run.folder / "summary.json").read_text())["intervals"]
    assert evaluate.main([f"records={run.folder / 'eval' / '2'}", f"retain_records={run.retain}", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)["intervals"]
    assert own["utility/model"] == expected["model_utility"]
    assert own["forget/quality"] == expected["forget_quality"]
    assert own["retain/probability"] == expected["tasks"]["retain"]["probability"]
    low, high = own["forget/probability"]
    assert f"forget prob. {low:.3f} – {high:.3f}" in " ".join(run.output.split())


def test_the_summary_holds_first_and_last_evaluation_and_the_retain_models(run):
    summary = json.loads((run.folder / "summary.json").read_text())
    found = rows(run.folder)
    assert summary["start"] == found[0]
    assert summary["end"] == found[-1]
    assert summary["training"] == found[-2]
    assert summary["retain_model"] == json.loads((run.folder / "retain.json").read_text())
    assert summary["retain_model"]["forget/probability"] != found[0]["forget/probability"]


def test_the_environment_is_recorded(run):
    env = json.loads((run.folder / "env.json").read_text())
    assert {"torch", "lightning", "transformers"} <= {name.lower() for name in env["packages"]}
    assert env["commit"] == environment.read_commit()
    assert env["host"]["cpu_threads"] >= 1


def test_the_exported_model_loads_with_transformers_alone_and_gives_the_recorded_answers(run):
    import torch
    import transformers

    folder = run.folder / "model"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    for record in records.read_evaluation(run.folder / "eval" / "2").sets["forget"].records:
        ids = tokenizer(f"Question: {record.prompt}\nAnswer: {record.answer}", return_tensors="pt")["input_ids"]
        ids = torch.cat([ids, torch.tensor([[tokenizer.eos_token_id]])], 1)
        answer = len(tokenizer(f"Question: {record.prompt}\nAnswer:")["input_ids"])
        labels = ids.clone()
        labels[:, :answer] = -100
        with torch.no_grad():
            assert model(ids, labels=labels).loss.item() == pytest.approx(record.loss, abs=1e-4)


def test_the_model_card_tells_where_the_model_comes_from_and_what_it_scored(run):
    card = (run.folder / "model" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    last = rows(run.folder)[-1]
    assert f"| 2 | {format_number(last['forget/quality'])} | {format_number(last['utility/model'])} |" in card
    assert card.count("\n| ") == 4  # head, epochs 0, 1, 2


def test_stages_are_runs_of_their_own_without_evaluation(run):
    for name, samples in (("target", "full"), ("retain", "retain")):
        folder = run.runs / "stages" / stage_folders()[name]
        cfg = config.load([str(folder / "config.yaml")])
        assert (cfg.data.train, cfg.loss.forget, cfg.stages, cfg.eval.enabled) == (samples, "ce", {}, False)
        assert {"model", "summary.json", "metrics.jsonl", "env.json"} <= {p.name for p in folder.iterdir()}
        losses = [r["train/loss"] for r in rows(folder)]
        assert losses[-1] < losses[0]


def test_the_same_command_again_reuses_the_stages_and_gives_the_same_numbers(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in (run.runs / "stages").rglob("*") if p.suffix != ".lock"}
    assert fit.main([*SMALL, f"run.folder={run.runs}"]) == 0
    again = run.runs / "quickstart-2"
    assert capsys.readouterr().out.count("(made before)") == 2
    assert {p: p.stat().st_mtime_ns for p in (run.runs / "stages").rglob("*") if p.suffix != ".lock"} == before
    assert rows(again) == rows(run.folder)
    assert (again / "model/model.safetensors").read_bytes() == (run.folder / "model/model.safetensors").read_bytes()
    for epoch in range(3):
        for name in SETS:
            one, two = (records.read_evaluation(f / "eval" / str(epoch)).sets[name] for f in (again, run.folder))
            assert one == two
    shutil.rmtree(again)


def test_the_configuration_in_the_run_folder_repeats_the_run(run):
    path = run.folder / "config.yaml"
    assert path.read_text().startswith(f"# python -m tif.fit {path}\n")
    assert config.load([str(path)]) == config.load(["quickstart.yaml", *SMALL, f"run.folder={run.runs}"])


def test_a_stage_can_be_made_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert fit.main([*SMALL, "stage=target", "stages.target.trainer.max_epochs=1"]) == 0
    made = [p.parent.name.split("-")[0] for p in (tmp_path / "runs").rglob("summary.json")]
    assert made == ["target"]
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["stages"]


def stage_folders(*words):
    planned = planning.plan_run(config.load(["quickstart.yaml", *SMALL, *words]))
    return {name: stage.folder.name for name, stage in planned.stages.items()}


@pytest.mark.slow
def test_a_stage_is_made_again_only_where_its_weights_would_differ(run):
    base = stage_folders()
    assert all((run.runs / "stages" / name).is_dir() for name in base.values())
    for same in ("loss.beta=0.2", "eval.max_new_tokens=9", "run.name=x", "optimizer.lr=0.1", "model.reference=frozen"):
        # optimizer.lr: the quickstart's stages have their own
        assert stage_folders(same) == base
    for other in (
        "run.seed=1", "data.fictitious.seed=1", "data.batch_size=3", "data.max_tokens=64", "model.init.hidden_size=16",
    ):  # fmt: skip
        changed = stage_folders(other)
        assert not set(changed.values()) & set(base.values())
    changed = stage_folders("stages.target.optimizer.lr=0.1")
    assert changed["target"] != base["target"]
    assert changed["retain"] == base["retain"]


class Killed(Exception):
    """What a test raises in the middle of a run."""


def dies_at(monkeypatch, owner, name, when):
    """Make `owner.name` raise Killed at the call for which `when(args)` holds."""
    real = getattr(owner, name)

    def dying(*args, **kwargs):
        if when(args):
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "owner", "name", "when", "from_epoch"),
    [
        ("epoch-1", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 1, 1),
        ("epoch-2", PolicyEvaluation, "_evaluate", lambda args: args[-1] == 2, 2),
        ("export", export, "save", lambda args: args[2].name == "model", 2),
        ("plots", training, "write_plots", lambda args: True, 2),
    ],
)
def test_a_killed_run_goes_on_and_ends_with_the_rows_of_one_that_was_not(
    run, capsys, place, owner, name, when, from_epoch
):
    words, folder = [*SMALL, f"run.folder={run.runs}", f"run.name=killed-{place}"], run.runs / f"killed-{place}"
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, owner, name, when)
        with pytest.raises(Killed):
            fit.main(words)
    assert not (folder / "summary.json").exists()
    capsys.readouterr()
    assert fit.main(words) == 0
    assert (f"(goes on from epoch={from_epoch}-" in capsys.readouterr().out) == (from_epoch is not None)
    assert rows(folder) == rows(run.folder)
    assert (folder / "model/model.safetensors").read_bytes() == (run.folder / "model/model.safetensors").read_bytes()
    assert set(files(folder)) - set(files(run.folder)) <= {pathlib.Path("checkpoints/epoch=1-step=2.ckpt")}
    assert set(files(folder)) >= set(files(run.folder))
    assert not folder.with_name(f"{folder.name}-2").exists()


@pytest.mark.slow
def test_a_killed_stage_goes_on_from_its_checkpoint_and_ends_with_the_same_weights(run, tmp_path, capsys):
    words = [*SMALL, f"run.folder={tmp_path}", "stage=target"]
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, module.UnlearningModule, "training_step", lambda args: args[0].current_epoch == 2)
        with pytest.raises(Killed):
            fit.main(words)
    capsys.readouterr()
    assert fit.main(words) == 0
    assert "(goes on from epoch=2-" in capsys.readouterr().out
    name = stage_folders()["target"]
    made, whole = tmp_path / "stages" / name, run.runs / "stages" / name
    assert rows(made) == rows(whole)
    assert (made / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
    assert not (made / "checkpoints").exists()


@pytest.mark.slow
def test_a_killed_run_is_left_alone_where_resuming_is_off_or_the_configuration_differs(run):
    words = [*SMALL, f"run.folder={run.runs}", "run.name=left", "trainer.max_epochs=1"]
    with pytest.MonkeyPatch.context() as patch:
        dies_at(patch, PolicyEvaluation, "_evaluate", lambda args: True)
        with pytest.raises(Killed):
            fit.main(words)
    left = files(run.runs / "left")
    for more, name in (([], "left"), (["run.resume=never"], "left-2"), (["loss.beta=0.2"], "left-2")):
        with claimed(config.load(["quickstart.yaml", *words, *more])) as (folder, _):
            assert folder.name == name
    assert files(run.runs / "left") == left


@pytest.mark.slow
def test_a_half_made_stage_is_made_again(run, tmp_path):
    whole = run.runs / "stages" / stage_folders()["retain"]
    half = shutil.copytree(whole, tmp_path / "stages" / whole.name)
    (half / "summary.json").unlink()
    (half / "model" / "model.safetensors").write_bytes(b"half")
    shutil.rmtree(half / "eval")
    words = [*SMALL, f"run.folder={tmp_path}", "stage=retain"]
    assert fit.main(words) == 0
    assert (half / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
    assert rows(half) == rows(whole)


def exploding(run):
    target = run.runs / "stages" / stage_folders()["target"] / "model"
    words = ["optimizer.lr=1e38", "optimizer.warmup_epochs=0", "trainer.gradient_clip_val=null"]
    return [*SMALL, f"run.folder={run.runs}", f"model.path={target}", "eval.forget_quality=false", *words]


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_samples(run, capsys):
    assert fit.main([*exploding(run), "run.name=infinite"]) == 1
    line = one(capsys.readouterr().err.splitlines())
    assert line.startswith("loss is nan at step 1 (")
    ids = {s.id for s in generate_fictitious(6, 4, 0.34, 0).forget}
    named = line.split(" on samples ")[1].split(";")[0].split(", ")
    assert len(named) == 4
    assert set(named) <= ids
    assert not (run.runs / "infinite" / "summary.json").exists()
    assert not (run.runs / "infinite" / "model").exists()


def test_a_model_that_broke_in_the_last_step_is_told_from_its_evaluation(run, capsys):
    # One step an epoch: the evaluation meets the broken weights before any loss does.
    assert fit.main([*exploding(run), "run.name=broken", "trainer.max_epochs=1", "data.batch_size=8"]) == 1
    line = one(capsys.readouterr().err.splitlines())
    assert line.startswith("loss is not finite in the evaluation of epoch 1 on 20 of 20 samples (")


def test_a_run_without_evaluation_and_without_export_writes_neither(run):
    words = [*SMALL, f"run.folder={run.runs}", "run.name=bare", "eval.enabled=false", "run.export=false"]
    assert fit.main([*words, "run.keep_checkpoints=0"]) == 0
    assert {p.name for p in (run.runs / "bare").iterdir()} == {
        ".lock", "config.yaml", "env.json", "metrics.jsonl", "summary.json",
    }  # fmt: skip


def wandb_rows(folder):
    """Rows, config and exit of an offline W&B run, read from its log: LevelDB blocks of 32 KiB, a Record each."""
    from wandb.proto import wandb_internal_pb2

    (path,) = pathlib.Path(folder).glob("wandb/offline-run-*/*.wandb")
    data, at, record, found, cfg = path.read_bytes(), 7, b"", [], {}
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            parsed, record = wandb_internal_pb2.Record.FromString(record), b""
            if parsed.history.item:
                found.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in parsed.history.item})
            cfg |= {u.key: json.loads(u.value_json) for u in (*parsed.run.config.update, *parsed.config.update)}
    return found, cfg


@pytest.mark.slow
def test_wandb_offline_holds_config_and_metrics_and_no_key_is_written_anywhere(tmp_path, monkeypatch):
    secrets = {"WANDB_API_KEY": "0123456789abcdef" * 2 + "deadbeef", "HF_TOKEN": "hf_" + "s3cret" * 6}
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    for name in ("WANDB_DIR", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    # The target model is made in the same process: its W&B run is another one.
    words = [f"run.folder={tmp_path}", "run.name=logged", "logger.wandb.enabled=true", "logger.wandb.offline=true"]
    assert fit.main([*SMALL, *words, "eval.forget_quality=false", "stages.target.trainer.max_epochs=1"]) == 0
    folder = tmp_path / "logged"
    found, cfg = wandb_rows(folder)
    expected = rows(folder)
    shown = [{k: v for k, v in row.items() if "/" in k and k != "trainer/global_step"} for row in found]
    wanted = [{k: v for k, v in row.items() if k not in ("epoch", "step")} for row in expected]
    assert [row for row in shown if row] == wanted
    assert [row["epoch"] for row in found] == [row["epoch"] for row in expected]
    assert cfg["loss"]["beta"] == 0.3
    assert cfg["run"]["name"] == "logged"
    (target,) = tmp_path.glob("stages/target-*[0-9a-f]")
    found, cfg = wandb_rows(target)
    assert [row["train/loss"] for row in found] == [row["train/loss"] for row in rows(target)]
    assert cfg["loss"]["forget"] == "ce"
    for path, content in files(tmp_path).items():
        assert not [name for name, value in secrets.items() if value.encode() in content], path
