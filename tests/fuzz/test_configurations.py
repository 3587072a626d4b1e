"""Hostile words, YAML and sweep files: a command answers, in one line a problem."""

import random

import pytest

from tests.support import hostile_configs
from tests.support.hangs import no_hang
from tests.support.mutations import controls_in
from tif import fit
from tif.sweep import command as sweep


def answer(main, words, capsys):
    """Return exit code and stderr of a command, which must not raise, stall or print controls."""
    with no_hang():
        code = main(words)
    shown = capsys.readouterr()
    assert code in (0, 2), (words, shown.err)
    assert bool(shown.err) == (code == 2), (words, shown.err)
    assert "Traceback" not in shown.err, (words, shown.err)
    assert controls_in(shown.err + shown.out) == set(), (words, shown.err)
    assert max(map(len, shown.err.splitlines()), default=0) < 3000, words
    return code


def check_words(seeds, capsys):
    return {
        answer(fit.main, [*hostile_configs.words(random.Random(seed)), "--print"], capsys)
        for seed in seeds
    }


def check_yaml_files(seeds, capsys, folder):
    texts, path = hostile_configs.yaml_texts(), folder / "hostile.yaml"
    codes = []
    for seed in seeds:
        generator = random.Random(seed)
        content = texts[seed % len(texts)]
        path.write_bytes(
            content if seed < len(texts) else hostile_configs.mutated(content, generator)
        )
        codes.append(answer(fit.main, [str(path), "--print"], capsys))
    assert 2 in codes


def check_sweep_files(seeds, capsys, folder):
    texts, path = hostile_configs.hostile_yaml(), folder / "hostile.yaml"
    good = (
        b"name: s\nbase: [quickstart.yaml]\nseeds: [0, 1]\nruns:\n  a: [loss/npo.yaml]\n"
        b"  b: [loss.beta=0.1]\n"
    )
    for seed in seeds:
        generator = random.Random(seed)
        is_whole = seed < len(texts)
        path.write_bytes(texts[seed] if is_whole else hostile_configs.mutated(good, generator))
        answer(sweep.main, [str(path), "--list"], capsys)


def test_hostile_words_are_answered(capsys):
    assert 2 in check_words(range(40), capsys)


def test_hostile_yaml_files_are_answered(capsys, tmp_path):
    check_yaml_files(range(65), capsys, tmp_path)


def test_hostile_sweep_files_are_answered(capsys, tmp_path):
    check_sweep_files(range(20, 60), capsys, tmp_path)


@pytest.mark.slow
def test_many_hostile_words_are_answered(capsys):
    assert check_words(range(40, 560), capsys) == {0, 2}


@pytest.mark.slow
def test_many_hostile_yaml_files_are_answered(capsys, tmp_path):
    check_yaml_files(range(65, 400), capsys, tmp_path)


@pytest.mark.slow
def test_many_hostile_sweep_files_are_answered(capsys, tmp_path):
    check_sweep_files(range(20), capsys, tmp_path)
    check_sweep_files(range(60, 300), capsys, tmp_path)
