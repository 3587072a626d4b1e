import dataclasses
import json
import pathlib
import re
import shlex
import subprocess
import sys
import zipfile

import pytest
import yaml

from lab.base_yaml import base_yaml
from tif import fit
from tif.config import load as config
from tif.config.errors import ConfigError
from tif.config.keys import list_keys
from tif.config.schema import Config, Optimizer

CONFIGS = config.own_configs()
KEYS = list(list_keys(Config()))
ALL = sorted(str(p.relative_to(CONFIGS)) for p in CONFIGS.rglob("*.yaml"))
SWEEPS = [name for name in ALL if name.startswith("experiment/")]
EXPERIMENTS = [name for name in ALL if "/" not in name and name != "base.yaml"]
NO_QUALITY = ["eval.forget_quality=false", "model.path=org/model"]
# What a file of configs/ needs beside itself to be a whole experiment.
EXTRA_WORDS = {
    "base.yaml": NO_QUALITY,
    "tofu.yaml": ["model=smollm2_135m"],
    "fictitious.yaml": ["model=smollm2_135m"],
    "lume.yaml": ["data.path=folder"],
    "text.yaml": ["data.path=folder", "model=smollm2_135m"],
    "text_finetuned.yaml": ["data.path=folder"],
    "loss/finetune.yaml": [*NO_QUALITY, "data.train=full"],
}


def problems(*argv):
    with pytest.raises(ConfigError) as caught:
        config.load(argv)
    return str(caught.value).splitlines()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_base_yaml_is_what_the_schema_says():
    assert (CONFIGS / "base.yaml").read_text(encoding="utf-8") == base_yaml()


def test_base_yaml_has_every_key_with_its_default():
    content = yaml.safe_load(base_yaml().replace("\n  on:", '\n  "on":'))
    for key, _, _ in KEYS:
        expected, actual = Config(), content
        for name in key.split("."):
            expected, actual = getattr(expected, name), actual[name]
        # PyYAML follows YAML 1.1, in which 1e-05 is a text.
        assert (float(actual) if isinstance(expected, float) else actual) == expected, key


def test_every_key_has_a_sentence():
    for key, field, _ in KEYS:
        assert len(field.metadata["help"]) > 5, key


def test_base_yaml_over_the_defaults_changes_nothing():
    assert config.load(["base.yaml", *NO_QUALITY]) == config.load(NO_QUALITY)


@pytest.mark.parametrize("name", [n for n in ALL if n not in SWEEPS and n.count("/") < 2])
def test_every_file_in_configs_loads(name):
    extra_words = EXTRA_WORDS.get(name, NO_QUALITY if "/" in name else [])
    assert isinstance(config.load([name, *extra_words]), Config)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiments_first_line_is_the_command_that_runs_it(name):
    first = (CONFIGS / name).read_text(encoding="utf-8").splitlines()[0]
    words = re.fullmatch(r"# (?:tif |python -m tif\.)\w+(.*)", first)[1]
    assert isinstance(config.load(shlex.split(words) or ["quickstart.yaml"]), Config)


@pytest.mark.parametrize("name", [n for n in ALL if "/" in n])
def test_a_part_of_an_experiment_begins_with_a_comment(name):
    assert (CONFIGS / name).read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_written_configuration_reloads_to_the_same_one(name, tmp_path):
    odd = ['data.template="Frage: {prompt}\\n\\"Antwort\\":"', "optimizer.lr=1e-7", "run.name=ä b"]
    cfg = config.load([name, *EXTRA_WORDS.get(name, []), *odd])
    assert cfg.data.template == 'Frage: {prompt}\n"Antwort":'
    reloaded = config.load([write(tmp_path / "config.yaml", config.to_yaml(cfg))])
    assert reloaded == cfg
    assert config.to_yaml(reloaded) == config.to_yaml(cfg)
    for stage in cfg.stages:
        assert config.stage(reloaded, stage) == config.stage(cfg, stage)


@pytest.mark.parametrize("name", ["quickstart.yaml", "configs/quickstart.yaml", "loss/tpo.yaml"])
def test_own_configs_are_found_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config.find(name).is_file()


def test_a_file_here_comes_before_tifs_own(tmp_path, monkeypatch):
    write(tmp_path / "quickstart.yaml", "run: {name: mine}")
    monkeypatch.chdir(tmp_path)
    assert config.load(["quickstart.yaml", *NO_QUALITY]).run.name.startswith("mine_")


def test_files_merge_left_to_right_and_overrides_win_wherever_they_stand(tmp_path):
    a = write(tmp_path / "a.yaml", "loss: {beta: 0.1, pl_weight: 0.2}\nrun: {seed: 1}")
    b = write(tmp_path / "b.yaml", "loss: {beta: 0.4}\nrun: {name: b}")
    cfg = config.load(["run.name=given", a, b, "run.seed=2", "run.seed=3", *NO_QUALITY])
    assert (cfg.loss.beta, cfg.loss.pl_weight, cfg.run.name, cfg.run.seed) == (0.4, 0.2, "given", 3)
    assert config.load([b, a, *NO_QUALITY]).loss.beta == 0.1


def test_the_order_of_keys_in_a_file_does_not_matter(tmp_path):
    first = write(
        tmp_path / "1.yaml", "run: {seed: 4, name: x}\nloss: {beta: 0.2, pl_weight: 0.5}\n"
    )
    second = write(
        tmp_path / "2.yaml", "loss: {pl_weight: 0.5, beta: 0.2}\nrun: {name: x, seed: 4}\n"
    )
    assert config.load([first, *NO_QUALITY]) == config.load([second, *NO_QUALITY])


def test_interpolations_are_resolved_with_the_overrides(tmp_path):
    file = write(
        tmp_path / "x.yaml",
        'run: {name: "x_${data.split}_${run.seed}"}\nmodel: {path: "${model.base}"}',
    )
    cfg = config.load(
        [
            file,
            "data.split=forget05",
            "run.seed=7",
            "model.base=org/name",
            "eval.forget_quality=false",
        ]
    )
    assert (cfg.run.name, cfg.model.path) == ("x_forget05_7", "org/name")


def test_the_key_on_survives_yaml_which_reads_it_as_true(tmp_path):
    text = "loss: {forget: ce, on: all, preserve: none}\n"
    stage = "stages: {s: {loss: {on: all, forget: ce, preserve: none}}}\n"
    file = write(tmp_path / "on.yaml", text + stage)
    cfg = config.load([file, *NO_QUALITY])
    assert cfg.loss.on == "all"
    assert cfg.stages == {"s": {"loss": {"on": "all", "forget": "ce", "preserve": "none"}}}
    assert config.stage(cfg, "s").loss.on == "all"
    overridden = config.load(
        [file, "stages.s.loss={forget: lpl, preserve: pl}", "stages.s.loss.on=uw", *NO_QUALITY]
    )
    assert config.stage(overridden, "s").loss.on == "uw"


def test_a_stage_is_the_same_config_with_its_own_keys_and_no_stages():
    cfg = config.load(["quickstart.yaml", "run.seed=5", "stage=target"])
    target = config.stage(cfg, "target")
    assert (target.data.train, target.loss.forget, target.model.path) == ("full", "ce", None)
    assert (target.run.seed, target.model.init) == (5, cfg.model.init)
    assert (target.stages, target.stage) == ({}, None)
    assert config.stage(cfg, "retain").data.train == "retain"
    assert config.stage(cfg, "retain").trainer == target.trainer


WORDINGS = [
    ("loss.beat=1", "loss.beat: unknown key; did you mean loss.beta?"),
    ("beta=1", "beta: unknown key; did you mean loss.beta?"),
    ("zzz.qqq=1", "zzz.qqq: unknown key"),
    ("loss.beta=much", "loss.beta: want float, got 'much'"),
    ("loss=3", "loss: want a mapping of keys (loss.forget, loss.on, "),
    ("loss.beta=.nan", "loss.beta: want a finite number, got nan"),
    ("run.seed=-1", "run.seed: must be >= 0, got -1"),
    (
        "trainer.precision=bf16",
        "trainer.precision: want one of 32-true, bf16-mixed, bf16-true, 16-mixed, "
        "got 'bf16'; did you mean bf16-mixed or bf16-true?",
    ),
    ("loss.on=alll", "loss.on: want one of uw, all, got 'alll'; did you mean all?"),
    ("stages.target.loss.beat=1", "stages.target.loss.beat: unknown key; did you mean loss.beta?"),
    ("stages.target=3", "stages.target: want a mapping of keys, got 3"),
    ("model.path=${model.bsae}", "model.path: Interpolation key 'model.bsae' not found"),
    ("loss.beta", "loss.beta: want a .yaml file or key=value"),
    ("loss.beta=[1", "loss.beta=[1: not a key=value that YAML can read"),
    (
        "eval.retain_records=null",
        "eval.retain_records: forget quality needs the retain model's records, got null",
    ),
    ("loss.forget=ce", "loss.forget: ce is finetuning on whole answers; want loss.on=all"),
]
WRONG = {
    "losss.beta=1": "losss.beta",
    "trainer.max_epochs=2.5": "trainer.max_epochs",
    "run.export=maybe": "run.export",
    "loss.beta=null": "loss.beta",
    "stages=3": "stages",
    "stages.target=false": "stages.target",
    "loss.beta=0": "loss.beta",
    "loss.beta=-0.1": "loss.beta",
    "optimizer.lr=.inf": "optimizer.lr",
    "run.seed=99999999999999999999": "run.seed",
    "loss.task_vector=1": "loss.task_vector",
    "loss.whp=1": "loss.whp",
    "loss.forget=whp": "loss.whp",
    "loss/task_vector.yaml loss.whp=1 run.export=false": "loss.whp",
    "loss/whp_inference.yaml run.export=true": "run.export",
    "loss/whp.yaml trainer.strategy=fsdp2": "trainer.strategy",
    "loss.forget=npoo": "loss.forget",
    "loss.dual.limit=0.5 loss.retain=none": "loss.dual.limit",
    "data.train=retain loss.retain=none": "loss.forget",
    "stages.target.loss.beta=-1": "stages.target.loss.beta",
    "stages.target.loss.beta=x": "stages.target.loss.beta",
    "stages.target.data.train=forgot": "stages.target.data.train",
    "stages.target.stages.x.run.seed=1": "stages.target.stages",
    "=3": "=3",
    "data.template=Q": "data.template",
    "data.benchmark=tofu": "data.path",
    "data.benchmark=tofuu": "data.benchmark",
    "identifier.kind=precomputed": "identifier.path",
}


@pytest.mark.parametrize(("word", "line"), WORDINGS)
def test_a_wrong_word_is_refused_in_one_line_that_names_what_is_wanted(word, line):
    (actual,) = problems("quickstart.yaml", *word.split())
    assert actual.startswith(line)


@pytest.mark.parametrize(("word", "key"), WRONG.items())
def test_a_wrong_word_is_refused_by_its_key(word, key):
    (actual,) = problems("quickstart.yaml", *word.split())
    assert actual.startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        ("forget.txt", "texts are given as data.path=mine"),
        ("config.json", "a model is given as model.path=mine"),
        ("config.yaml", "a run's configuration is mine/config.yaml"),
    ],
)
def test_a_folder_as_a_word_gets_the_key_or_file_that_it_is_given_as(
    tmp_path, monkeypatch, file, hint
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    write(tmp_path / "mine" / file, "")
    assert problems("quickstart.yaml", "mine") == [f"mine: want a .yaml file or key=value; {hint}"]


def test_several_problems_are_told_at_once_one_a_line():
    assert problems("quickstart.yaml", "foo=1", "loss.beta=x", "run.nmae=1") == [
        "foo: unknown key",
        "loss.beta: want float, got 'x' (Value 'x' of type 'str' could not be converted to Float)",
        "run.nmae: unknown key; did you mean run.name?",
    ]
    keys = ["loss.beta=0", "optimizer.lr=-1", "eval.retain_records=null", "data.benchmark=tofu"]
    assert [line.split(":")[0] for line in problems("quickstart.yaml", *keys)] == [
        "loss.beta", "optimizer.lr", "data.path", "eval.retain_records",
    ]  # fmt: skip
    stages = ["stages.target.loss.beta=0", "stages.retain.run.seed=-1"]
    assert [line.split(":")[0] for line in problems("quickstart.yaml", *stages)] == [
        "stages.target.loss.beta", "stages.retain.run.seed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("- a\n- b\n", "want a mapping of keys, got a list"),
        ("loss: {on: [\n", "not readable as YAML"),
        (
            "loss: {beta: 0.1}\nlosses: {beta: 0.2}\n",
            "losses.beta: unknown key; did you mean loss.beta?",
        ),
        ("model: {path: '${nowhere}'}\n", "model.path: Interpolation key 'nowhere' not found"),
    ],
)
def test_a_file_that_makes_no_sense_is_named(text, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "odd.yaml", text)
    (actual,) = problems("odd.yaml", "eval.forget_quality=false", "model.init.hidden_size=8")
    assert line in actual
    assert "odd.yaml: " in actual or "Interpolation" in actual


def test_a_file_that_is_nowhere_gets_the_nearest_own_one():
    expected = "quickstat.yaml: no such file here or among tif's own configs; did you mean "
    assert problems("quickstat.yaml") == [f"{expected}quickstart.yaml?"]
    assert problems("tpo_gdr.yaml")[0].endswith("did you mean loss/tpo_gdr.yaml?")


def test_an_unknown_stage_is_told_with_those_there_are():
    cfg = config.load(["quickstart.yaml"])
    with pytest.raises(
        ConfigError, match="stage: unknown stage 'targt'; this config can make: target, retain"
    ):
        config.stage(cfg, "targt")


def test_help_lists_the_sections_in_a_screen_of_lines(capsys):
    assert fit.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) < 50
    for section in dataclasses.fields(Config):
        assert f"  {section.name}" in shown
    assert "optimizer.lr=1e-05" not in shown


def test_help_about_a_section_or_key_prints_its_keys_alone(capsys):
    assert fit.main(["--help", "optimizer", "model.path"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.strip().partition("=")[0] for line in lines[::2]]
    assert names == ["model.path", *(f"optimizer.{f.name}" for f in dataclasses.fields(Optimizer))]
    assert fit.main(["--help", "optimiser"]) == 2
    assert "did you mean optimizer?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["--beta", "0.2"], "--beta: want key=value, without dashes; did you mean loss.beta?"),
        (["--beta=0.2"], "--beta=0.2: want key=value, without dashes; did you mean loss.beta?"),
        (["loss/npo"], "loss/npo: want a .yaml file or key=value; did you mean loss/npo.yaml?"),
        (
            ["data.template=Q: {prompt} A:"],
            """wants quotes of its own: 'data.template="Q: {prompt} A:"'""",
        ),
        (["data.template=Q: {prompt}"], """wants quotes of its own: 'data.template="..."'"""),
    ],
)
def test_a_word_of_the_wrong_form_gets_one_line_with_the_right_form(words, hint, capsys):
    assert fit.main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert hint in line


def test_help_about_all_prints_every_key_with_default_type_and_sentence(capsys):
    assert fit.main(["--help", "all"]) == 0
    shown = capsys.readouterr().out
    for key, field, default in KEYS:
        assert f"  {key}={default}  (" in shown
        assert field.metadata["help"] in shown
    assert "loss.beta=0.3  (float)" in shown
    assert "loss.on=uw  (uw|all)" in shown
    assert "eval.retain_records=null  (str or null)" in shown


def test_a_tilde_stands_for_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    cfg = config.load(
        ["data.path=~/texts", "run.folder=~/runs", "data.benchmark=text", *NO_QUALITY]
    )
    assert (cfg.data.path, cfg.run.folder) == ("/home/ada/texts", "/home/ada/runs")


def test_print_shows_the_resolved_config(capsys, tmp_path):
    words = ["tofu.yaml", "model=smollm2_135m", "data.split=forget01", "tofu.masks=/masks"]
    assert fit.main([*words, "--print"]) == 0
    shown = capsys.readouterr().out
    assert "name: tpo_centred_gdr_forget01_SmolLM2-135M-Instruct" in shown
    assert "path: /masks/forget01_with_common_words_gpt" in shown
    assert config.load([write(tmp_path / "shown.yaml", shown)]) == config.load(words)


def test_help_and_a_wrong_key_answer_without_lightning_and_transformers():
    code = (
        "import sys, json\nfrom tif import fit\n"
        "codes = [fit.main(words) for words in (['--help'], ['a=1'])]\n"
        "heavy = {'transformers', 'lightning', 'scipy', 'rich'} & set(sys.modules)\n"
        "print(json.dumps([codes, sorted(heavy)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == [[0, 2], []]
    assert done.stderr == "a: unknown key\n"


@pytest.mark.slow
def test_the_configs_travel_in_the_wheel(tmp_path):
    root = pathlib.Path(config.__file__).parents[2]
    if not (root / "pyproject.toml").is_file():
        pytest.skip("needs the checkout")
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    # Only what git would give: a build writes into the folder that it builds from.
    (source / "tif").parent.mkdir()
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        (source / name).write_bytes((root / name).read_bytes())
    for folder in ("tif", "configs"):
        for path in [p for end in ("py", "yaml", "txt") for p in (root / folder).rglob(f"*.{end}")]:
            target = source / path.relative_to(root)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    build = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    built = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(source / built.stdout.splitlines()[-1]) as wheel:
        names = wheel.namelist()
        wheel.extractall(unpacked)
    assert {f"tif/configs/{name}" for name in ALL} <= set(names)
    assert not [n for n in names if not n.startswith(("tif/", "tif_unlearning-"))]
    modules = {
        str(p.relative_to(root)) for end in ("py", "txt") for p in (root / "tif").rglob(f"*.{end}")
    }
    assert modules <= set(names)
    script = "import tif.losses\nfrom tif.config.load import own_configs, load\n"
    script += "print(own_configs())\nprint(load(['quickstart.yaml']).run.name)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=unpacked, capture_output=True, text=True, check=True
    )  # the working directory comes first on sys.path
    assert done.stdout.splitlines() == [str(unpacked / "tif" / "configs"), "quickstart"]


def test_a_stage_does_not_take_over_what_the_run_compares_with():
    lora = ["model.path=target", "model.lora.rank=4", "model.reference=adapter"]
    cfg = config.load(
        [
            "quickstart.yaml",
            *lora,
            "stages.target.model.lora.rank=0",
            "stages.retain.model.lora.rank=0",
        ]
    )
    assert (cfg.model.reference, config.stage(cfg, "target").model.reference) == ("adapter", "auto")


@pytest.mark.parametrize(
    ("word", "file", "override"),
    [
        ("runs/best=score/seed0/config.yaml", True, False),
        ("./a=b.yaml", True, False),
        ("quickstart.yaml", True, False),
        ("data.path=a/b.yaml", False, True),
        ("a=b.yaml", False, True),
        ("runs/best=score", False, False),
        ("runs/quickstart", False, False),
    ],
)
def test_what_stands_before_an_equals_sign_is_a_key_unless_it_is_a_path(word, file, override):
    assert (config.is_file(word), config.is_override(word)) == (file, override)


def test_what_is_read_once_is_not_shared(tmp_path):
    """A change of one configuration reaches no other reader; that of a file does."""
    file = tmp_path / "a.yaml"
    file.write_text("model: {path: org/a, init: {hidden_size: 8}}\neval: {forget_quality: false}\n")
    first = config.load([str(file), "optimizer.lr=0.5"])
    first.model.init["hidden_size"] = 9
    first.loss.beta = 7.0
    second = config.load([str(file)])
    assert (second.model.init, second.loss.beta) == ({"hidden_size": 8}, Config().loss.beta)
    assert second.optimizer.lr == Config().optimizer.lr
    config.read_yaml(file).model.path = "org/b"
    assert config.read_yaml(file).model.path == "org/a"
    file.write_text(file.read_text().replace("org/a", "org/c"))
    assert config.load([str(file)]).model.path == "org/c"
