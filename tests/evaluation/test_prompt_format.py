"""What `--print` shows of the first sample, in the three commands."""

import json
import shutil

import pytest
import yaml

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support.chat_templates import CHATML
from tif import fit

PROMPT = (
    '#   prompt: "Question: Which writer was born on 28 September 1950 in Basel, '
    'Switzerland?\\nAnswer:"'
)
ANSWER = '#   answer: " The author who was born there is Łucja Mbekani."'


@pytest.fixture
def chatty(llama, tmp_path):
    """A folder of a tiny model with a chat template."""
    folder = shutil.copytree(llama, tmp_path / "chatty")
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": CHATML}))
    return folder


def printed(capsys, command, *words):
    """Return the configuration that a command printed, and the lines of comment below it."""
    assert command.main([*words, "--print"]) == 0
    out = capsys.readouterr().out
    comments = [line for line in out.splitlines() if line.startswith("#")]
    # tif fit goes on with what the run will need.
    needs = [i for i, line in enumerate(comments) if line.lower().startswith("# what the run will")]
    return yaml.safe_load(out), comments[: needs[0]] if needs else comments


@pytest.mark.parametrize("command", [fit, identify])
def test_the_prompt_of_the_first_sample_is_printed(capsys, command):
    cfg, comments = printed(capsys, command, "quickstart.yaml")
    assert cfg["data"]["benchmark"] == "fictitious"
    assert comments == [
        "# The first sample as the model reads it (fictitious/author36/0):",
        PROMPT,
        ANSWER,
    ]


def test_a_chat_is_printed_with_its_system_message_and_the_end_of_the_turn(capsys, chatty):
    words = ["quickstart.yaml", f"model.path={chatty}", "data.template=chat"]
    words += ['data.chat.system=Say "it".', "eval.forget_quality=false"]
    _, comments = printed(capsys, fit, *words)
    assert comments[1:] == [
        '#   prompt: "<|im_start|>system\\nSay \\"it\\".<|im_end|>\\n<|im_start|>user\\nWhich '
        "writer was born on 28 September 1950 in Basel, "
        'Switzerland?<|im_end|>\\n<|im_start|>assistant\\n"',
        ANSWER.replace('" ', '"'),
        '#   end:    "<|im_end|>\\n"',
    ]


def test_what_cannot_be_rendered_is_an_error_before_anything_is_printed(capsys, llama):
    words = [f"model.path={llama}", "data.template=chat", "eval.forget_quality=false"]
    assert fit.main(["quickstart.yaml", *words, "--print"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("data.template: chat, but the tokenizer has no chat template")


def test_evaluate_prints_the_first_sample_of_each_benchmark_and_evaluates_nothing(
    capsys, chatty, tmp_path
):
    (tmp_path / "own.jsonl").write_text('{"prompt": "Who\\u202e?", "answer": "Me."}\n')
    words = [
        f"model.path={chatty}",
        "eval.benchmarks=text",
        f"eval.text.path={tmp_path / 'own.jsonl'}",
    ]
    cfg, comments = printed(capsys, evaluate, *words, "template=chat", f"out={tmp_path / 'out'}")
    assert cfg["template"] == "chat"
    assert comments[1:] == [
        # a character that turns the writing is escaped
        '#   prompt: "<|im_start|>user\\nWho\\u202e?<|im_end|>\\n<|im_start|>assistant\\n"',
        '#   answer: "Me."',
        '#   end:    "<|im_end|>\\n"',
    ]
    assert not (tmp_path / "out").exists()
