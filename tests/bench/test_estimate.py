"""What `--print` says of steps, tokens, memory and disk, against hand counts and real files."""

import json

import pytest
import yaml

from tests.support.small_run import SMALL, finished, rows
from tif import fit
from tif.bench.estimate import count_tokens, format_bytes
from tif.config.load import load
from tif.data.samples import select_training_samples
from tif.training.plan import make_encoder, plan_run


def printed(capsys, *words):
    assert fit.main([*SMALL, *words, "--print"]) == 0
    return capsys.readouterr().out


def test_the_printed_configuration_stays_loadable_and_ends_with_the_estimate(capsys, tmp_path):
    text = printed(capsys)
    (tmp_path / "again.yaml").write_text(text)
    assert yaml.safe_load(text)["run"]["name"]
    assert load([str(tmp_path / "again.yaml")]) == load(["quickstart.yaml", *SMALL])
    lines = text.splitlines()[-5:]
    assert lines[0] == "# What the run will need:"
    assert [line.split(":")[0] for line in lines[1:]] == [
        f"#   {name}" for name in ("steps", "tokens", "memory", "disk")
    ]


def test_the_steps_are_those_that_a_run_makes(tmp_path_factory, capsys):
    steps = sum("train/loss" in row for row in rows(finished(tmp_path_factory).folder))
    line = next(line for line in printed(capsys).splitlines() if line.startswith("#   steps:"))
    assert line.startswith(f"#   steps:  {steps} optimizer steps, stage target ")


def test_the_model_on_disk_is_as_large_as_printed(tmp_path_factory, capsys):
    file = finished(tmp_path_factory).folder / "model" / "model.safetensors"
    content = file.read_bytes()
    header = int.from_bytes(content[:8], "little")
    tensors = json.loads(content[8 : 8 + header])
    weights = sum(
        tensor["data_offsets"][1] - tensor["data_offsets"][0]
        for name, tensor in tensors.items()
        if name != "__metadata__"
    )
    line = next(line for line in printed(capsys).splitlines() if line.startswith("#   disk:"))
    assert f"model {format_bytes(weights)}," in line


def test_tokens_are_those_of_the_samples_and_of_as_many_retain_samples():
    plan = plan_run(load(["quickstart.yaml", *SMALL]))
    encoder = make_encoder(plan)

    def lengths(samples):
        return [len(encoder.encode(sample).input_ids) for sample in samples]

    forget = lengths(select_training_samples(plan.benchmark, "forget"))
    retain = lengths(plan.benchmark.retain)
    expected = sum(forget) + len(forget) * sum(retain) / len(retain)
    assert count_tokens(plan) == pytest.approx(expected, abs=1)


def test_what_is_to_be_downloaded_is_said_in_one_comment(capsys):
    assert fit.main(["tofu.yaml", "model=llama_3_2_1b", "--print"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("# what the run will need: not known yet: ")
    assert "tif download" in last


@pytest.mark.parametrize(("key", "text"), [
    ("data.path", "data.path: no file or folder {}/no; want a text file or a folder"),
    ("model.path", "model.path: no folder {}/no; want a Hugging Face folder"),
])  # fmt: skip
def test_a_path_that_is_not_there_is_an_error_also_where_keys_are_only_printed(
    capsys, tmp_path, llama, key, text
):
    (tmp_path / "forget.txt").write_text("Ann lives in [[Rome]].")
    words = [f"data.path={tmp_path}", f"model.path={llama}"]
    assert fit.main(["text.yaml", *words, "--print"]) == 0
    capsys.readouterr()
    assert fit.main(["text.yaml", *words, f"{key}={tmp_path}/no", "--print"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines()[0].startswith(text.format(tmp_path))
