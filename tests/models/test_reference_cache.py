"""Reference scores on disk: made once, found again, never mixed up."""

import dataclasses
import threading

import pytest
import torch

from tests.support import tiny_models
from tests.support.model_weights import assert_bit_identical, nudge
from tif.models.references import CachedReference, hash_inputs, make_reference, score_samples


def numbers(reference):
    tensors = {}
    for name, rows in reference.rows.items():
        tensors |= {f"{name} {i}": row for i, row in enumerate(rows)}
    return tensors


def shared(folder, policy):
    return make_reference("cached", policy, tiny_models.ITEMS, 0, "packed", folder)


def counted(policy):
    calls = []
    policy.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def test_the_file_gives_what_was_computed_bit_for_bit_and_without_a_forward(tmp_path):
    expected = CachedReference(score_samples(tiny_models.model(), tiny_models.ITEMS, 0, "packed"))
    first, policy = shared(tmp_path, tiny_models.model()), tiny_models.model()
    calls = counted(policy)
    again = make_reference("auto", policy, tiny_models.ITEMS, 0, "packed", tmp_path)
    assert not calls
    for reference in (first, again):
        assert_bit_identical(numbers(reference), numbers(expected))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert not list(tmp_path.glob("*.partial"))


def test_other_weights_samples_masks_and_precision_have_other_names():
    def swapped(policy):  # the same numbers in other places
        with torch.no_grad():
            weight = policy.model.embed_tokens.weight
            weight[[3, 4]] = weight[[4, 3]]
        return policy

    def one_bit(policy):
        with torch.no_grad():
            weight = policy.lm_head.weight
            weight[5, 2] = torch.nextafter(weight[5, 2], torch.tensor(9.0))
        return policy

    no_answer = dataclasses.replace(tiny_models.ITEMS[0], uw=[False] * 7)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = hash_inputs(tiny_models.model(), tiny_models.ITEMS, "packed")
    names = [
        hash_inputs(tiny_models.model(), tiny_models.ITEMS, "packed"),
        hash_inputs(tiny_models.model(), tiny_models.ITEMS, "padded"),
        hash_inputs(tiny_models.model(), tiny_models.ITEMS[::-1], "packed"),
        hash_inputs(tiny_models.model(), tiny_models.ITEMS[:3], "packed"),
        hash_inputs(tiny_models.model(), (no_answer, *tiny_models.ITEMS[1:]), "packed"),
        hash_inputs(nudge(tiny_models.model()), tiny_models.ITEMS, "packed"),
        hash_inputs(swapped(tiny_models.model()), tiny_models.ITEMS, "packed"),
        hash_inputs(one_bit(tiny_models.model()), tiny_models.ITEMS, "packed"),
        hash_inputs(tiny_models.model().bfloat16(), tiny_models.ITEMS, "packed"),
        mixed,
    ]
    assert len(set(names)) == len(names)
    assert hash_inputs(tiny_models.model(), tiny_models.ITEMS, "packed") == names[0]


def test_what_only_labels_words_does_not_matter():
    # Scores are of all answer tokens: another identifier on the same data reads the same file.
    other = [dataclasses.replace(e, uw=e.gw, gw=e.uw) for e in tiny_models.ITEMS]
    policy = tiny_models.model()
    assert hash_inputs(policy, other, "packed") == hash_inputs(policy, tiny_models.ITEMS, "packed")


@pytest.mark.parametrize("content", [b"", b"not safetensors", None])
def test_a_damaged_file_is_made_again(tmp_path, content, capsys):
    expected = shared(tmp_path, tiny_models.model())
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-40] if content is None else content)
    actual = shared(tmp_path, tiny_models.model())
    assert_bit_identical(numbers(actual), numbers(expected))
    assert "damaged" in capsys.readouterr().out
    assert_bit_identical(numbers(shared(tmp_path, tiny_models.model())), numbers(expected))
    assert "damaged" not in capsys.readouterr().out


def test_of_several_at_once_one_computes(tmp_path):
    policies = [tiny_models.model() for _ in range(4)]
    calls = [counted(p) for p in policies]
    work = [threading.Thread(target=shared, args=(tmp_path, p)) for p in policies]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert sorted(map(bool, calls)) == [False, False, False, True]
