"""tif.unlearn: the run of the command, in this process, which stays as it was."""

import json
import pathlib
import random
import re
import shutil
import signal
import textwrap

import numpy as np
import pytest
import torch

from tests.support.chat_templates import CHATML
from tests.support.small_run import rows
from tif import fit
from tif.api.run import Run
from tif.api.unlearn import unlearn
from tif.config import load as config
from tif.config.command_keys import Evaluate
from tif.config.errors import ConfigError
from tif.evaluation.prompt_format import resolve_template, use_template_of_run
from tif.training import run as training

ROOT = pathlib.Path(config.__file__).parents[2]
FORGET = [
    ("Where was she born?", "She was born in [[Oslo]]."),
    ("Who is her father?", "A [[baker]]."),
]
RETAIN = [("Where is the tower?", "The tower is in Paris."), "The sea is deep."]
SHORT = {
    "optimizer": {"lr": 1e-2, "warmup_epochs": 0},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    "eval": {"max_new_tokens": 4},
}


def readme_example():
    """Return the Python example of README.md."""
    return re.search(
        r"```python\n(import tif\n.*?)```",
        (ROOT / "README.md").read_text(encoding="utf-8"),
        re.DOTALL,
    )[1]


@pytest.mark.skipif(not (ROOT / "README.md").is_file(), reason="needs the checkout")
def test_the_five_lines_of_the_readme_unlearn_a_model(tmp_path, monkeypatch, llama, capsys):
    code = readme_example()
    statements = [
        line for line in code.splitlines()[1:] if line and not line.startswith((" ", "#", ")", "]"))
    ]
    assert len(statements) <= 5
    monkeypatch.chdir(tmp_path)
    names = {}
    code = re.sub(r'"HuggingFaceTB/[^"]*"', repr(llama), code)  # a model that is here
    exec(code.replace("forget, retain,", "forget, retain, eval={'max_new_tokens': 4},"), names)
    run = names["run"]
    assert run.folder.is_relative_to("runs")
    assert (run.folder / "model" / "model.safetensors").is_file()
    # `python -m tif.fit <folder>/config.yaml` is the same run.
    assert config.load([str(run.folder / "config.yaml")]) == run.config
    steps = [row["train/uw_logprob_change"] for row in run.steps]
    assert steps[-1] < 0


@pytest.fixture(scope="module")
def run(tmp_path_factory, llama):
    """A finished run on FORGET and RETAIN, and what it left of the process's state."""
    folder = tmp_path_factory.mktemp("api")
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)

    def state():
        handlers = [signal.getsignal(number) for number in numbers]
        return (
            handlers,
            random.getstate(),
            np.random.get_state()[1].tolist(),
            torch.get_rng_state().tolist(),
        )

    before = state()
    run = unlearn(llama, FORGET, RETAIN, method="tpo_gdr", run={"folder": folder / "runs"}, **SHORT)
    after = state()
    children = pathlib.Path("/proc/self/task").glob("*/children")
    return run, before == after, "".join(file.read_text() for file in children)


def test_the_settings_are_those_of_the_commands_preset(run, llama):
    """`tif fit data.path=FOLDER model.path=MODEL` takes text.yaml."""
    run = run[0]
    expected = config.load(["text.yaml", "loss/tpo_gdr.yaml", "data.path=x", f"model.path={llama}"])
    assert (
        run.config.data.batch_size
        == expected.data.batch_size
        != config.load(["quickstart.yaml"]).data.batch_size
    )
    assert run.config.loss == expected.loss
    assert not run.config.eval.forget_quality


def test_a_preset_of_a_model_is_named_as_on_the_command_line():
    from tif.api.settings import describe_model

    assert describe_model("smollm2_135m") == ["model=smollm2_135m"]
    assert describe_model("smollm2_135m:lora") == ["model=smollm2_135m:lora"]
    assert describe_model("org/smollm2_135m") == ["model.path=org/smollm2_135m"]


def test_signal_handlers_and_random_states_are_left_as_they_were(run):
    assert run[1]


def test_the_run_is_the_commands(run, tmp_path, monkeypatch):
    """config.yaml, given to tif.fit, makes the same numbers to the last bit."""
    run = run[0]
    assert (
        fit.main([str(run.folder / "config.yaml"), f"run.folder={tmp_path}", "run.name=again"]) == 0
    )
    numbers = [{k: v for k, v in row.items() if "second" not in k} for row in rows(run.folder)]
    command_numbers = [
        {k: v for k, v in row.items() if "second" not in k} for row in rows(tmp_path / "again")
    ]
    assert numbers == command_numbers
    assert run.config.loss.retain == "ce"
    assert run.folder.name.startswith("tpo_gdr")


def test_the_unwanted_words_are_those_in_the_marks(run):
    folder = pathlib.Path(run[0].config.data.path)
    unwanted = [json.loads(line) for line in (folder / "forget.jsonl").read_text().splitlines()]
    assert [row["answer"][slice(*row["unwanted"][0])] for row in unwanted] == ["Oslo", "baker"]
    assert unwanted[0]["answer"] == "She was born in Oslo."


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ({"lr": 1e-3}, ["lr: unknown key; did you mean optimizer.lr?"]),
        ({"method": "tpoo"}, ["loss/tpoo.yaml: no such file here or among tif's own configs"]),
        (
            {"forget": [3], "optimizer": {"lr": "fast"}, "run": {"seed": "x"}},
            ["forget[0]: want a text", "optimizer.lr: want float, got 'fast'",
             "run.seed: want int"],
        ),
        ({"trainer": {"devices": "2"}},
         ["trainer.devices: Python trains on 1 device, got 2; want 1"]),
        ({"identifier": "golden"}, ["identifier.kind: "]),
        ({"settings": ["lr"]}, ["lr: want a .yaml file or key=value"]),
        ({"settings": [3]}, ["settings: want words of the command line"]),
        (
            {"forget": None, "data": {"benchmark": "text"}, "eval": {"forget_quality": False}},
            ["data.path: text needs a file or folder"],
        ),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_problems_come_before_anything_is_written(arguments, lines, llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("weights were loaded"))
    arguments = {"model": llama, "forget": FORGET} | arguments
    with pytest.raises(ConfigError) as caught:
        unlearn(**arguments)
    got = str(caught.value).splitlines()
    assert len(got) == len(lines), got
    for line, start in zip(got, lines, strict=True):
        assert line.startswith(start)
    assert list(tmp_path.iterdir()) == []


def test_samples_without_marks_are_refused_with_the_ways_to_mark_them(llama, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("weights were loaded"))
    with pytest.raises(ConfigError, match="^identifier.kind: gold, but 1 of 1 forget samples"):
        unlearn(llama, ["She was born in Oslo."])


def test_a_method_of_a_notebook_is_a_function(tmp_path, llama, monkeypatch):
    """A notebook's cells are the module __main__; the term's keys are keys of section loss."""
    import sys
    import types

    module = types.ModuleType("cells")
    monkeypatch.setitem(sys.modules, "cells", module)
    code = '''
    import tif
    @tif.term("lower")
    def lower(inputs, keys):
        """Lower the log-probability of unwanted words."""
        return inputs.token_mean(inputs.policy.logprob)
    '''
    exec(textwrap.dedent(code), module.__dict__)
    run = unlearn(
        llama,
        FORGET,
        method=module.lower,
        loss={"preserve": "none"},
        run={"folder": tmp_path},
        **SHORT,
    )
    values = [row["train/lower"] for row in run.steps]
    assert values[-1] < values[0]
    assert run.folder.name.startswith("lower")


def continue_greedily(folder, text):
    """Return eight tokens after a text, by transformers' own `generate`."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer(text, return_tensors="pt")
    output = model.generate(**prompt, max_new_tokens=8, do_sample=False)
    return tokenizer.decode(
        output[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
    ).strip()


@pytest.mark.parametrize("template", [None, "{prompt} the"])
def test_ask_gives_the_greedy_answers_of_the_target_model_and_of_the_runs(run, llama, template):
    answers = run[0].ask("Where was she born?", max_new_tokens=8, template=template)
    prompt = (template or "Question: {prompt}\nAnswer:").format(prompt="Where was she born?")
    expected = [continue_greedily(folder, prompt) for folder in (llama, run[0].folder / "model")]
    assert [answers.target, answers.unlearned] == expected
    assert expected[0] != expected[1]


def test_a_chat_model_is_asked_in_its_chat_template_and_the_run_says_and_stores_so(
    llama, tmp_path, capsys
):
    import transformers

    chatty = shutil.copytree(llama, tmp_path / "chatty")
    path = chatty / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    run = unlearn(chatty, FORGET, run={"folder": tmp_path / "runs"}, **SHORT)
    first = capsys.readouterr().out.splitlines()[0]
    assert f"model: {chatty}, questions in its chat template, method: " in first
    assert run.config.data.template == "chat"
    tokenizer = transformers.AutoTokenizer.from_pretrained(chatty)
    message = [{"role": "user", "content": "Where was she born?"}]
    prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert run.ask("Where was she born?", max_new_tokens=8).target == continue_greedily(
        chatty, prompt
    )
    stored = use_template_of_run(config.read(Evaluate, [f"model.path={run.folder}/model"]))
    assert stored.template == "chat"


def test_a_model_without_a_chat_template_is_asked_in_plain_text_and_a_named_template_stays(
    run, llama, tmp_path
):
    plain = run[0]
    assert plain.config.data.template == "Question: {prompt}\nAnswer:"
    stored = use_template_of_run(config.read(Evaluate, [f"model.path={plain.folder}/model"]))
    assert stored.template == plain.config.data.template
    chatty = shutil.copytree(llama, tmp_path / "chatty")
    path = chatty / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    words = ["text.yaml", f"model.path={chatty}", "data.path=x", 'data.template="Q: {prompt} A:"']
    named = config.load(words)
    assert resolve_template(named) is named


def test_a_run_can_start_from_another(run, tmp_path):
    run = run[0]
    continued = unlearn(run, FORGET, settings=["loss/npo.yaml"], run={"folder": tmp_path}, **SHORT)
    assert continued.config.model.path == str(run.folder / "model")
    # Epoch 0 of the second is the last epoch of the first.
    assert continued.metrics[0]["muse/knowmem_forget"] == pytest.approx(
        run.metrics[-1]["muse/knowmem_forget"]
    )
    assert isinstance(continued, Run)
