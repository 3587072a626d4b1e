"""Reference scores on disk: made once, found again, never mixed up."""

import dataclasses
import threading

import pytest
import torch
import transformers

from tests.support import tiny_models
from tests.support.adapters import learned, with_lora
from tests.support.model_weights import assert_bit_identical, nudge
from tif.config.model import Model
from tif.data.encoding import Encoder
from tif.data.samples import Sample
from tif.models.load import load_pretrained
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
    second = make_reference("auto", policy, tiny_models.ITEMS, 0, "packed", tmp_path)
    assert not calls
    for reference in (first, second):
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


def name_of(policy):
    return hash_inputs(policy, tiny_models.ITEMS, "packed")


def logits_of(policy):
    return policy(input_ids=torch.tensor([tiny_models.ITEMS[2].input_ids])).logits


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
        ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}),
        ("llama", {"rms_norm_eps": 0.3}),
        ("llama", {"hidden_act": "gelu"}),
        ("gemma2", {"final_logit_softcapping": 1.0}),
        ("gemma2", {"sliding_window": 3}),
        ("gemma2", {"query_pre_attn_scalar": 2}),
        ("gpt2", {"layer_norm_epsilon": 0.3}),
    ],
)
def test_the_same_weights_under_another_config_have_another_name(kind, keys):
    first, other = tiny_models.model(kind), tiny_models.model(kind, **keys)
    assert_bit_identical(dict(first.named_parameters()), dict(other.named_parameters()))
    assert (logits_of(first) - logits_of(other)).abs().max() > 1e-3
    assert name_of(first) != name_of(other)


def test_another_buffer_and_another_attention_have_another_name():
    first, other, eager = (tiny_models.model() for _ in range(3))
    other.model.rotary_emb.inv_freq *= 2  # in no state dict
    eager.set_attn_implementation("eager")
    assert len({name_of(first), name_of(other), name_of(eager)}) == 3


def test_the_place_and_the_version_of_the_same_model_do_not_matter(tmp_path):
    original = tiny_models.model()
    names = set()
    for folder, shard_size in (("one", "5GB"), ("two", "10KB")):
        original.config.transformers_version = folder
        original.save_pretrained(tmp_path / folder, max_shard_size=shard_size)
        loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / folder)
        loaded.config.use_cache = folder == "one"
        names.add(name_of(loaded))
    assert names == {name_of(original)}


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_few_bits_with_another_scale_have_another_name(kind, tmp_path):
    names = []
    for factor in (1, 1, 2):
        model = tiny_models.model(hidden_size=64, intermediate_size=64)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("_proj.weight"):
                    weight *= factor
        model.save_pretrained(tmp_path / "model")
        few = load_pretrained(Model(path=str(tmp_path / "model"), quantize=kind))
        names += [name_of(few)]
        logits_of(few)  # int8 keeps its scales in another place after the first forward
        assert name_of(few) == names[-1]
    assert names[0] == names[1] != names[2]


def test_adapters_have_names_of_their_own():
    fresh, second, trained = with_lora(), with_lora(), learned(with_lora())
    scaled = learned(with_lora(alpha=32.0))
    assert name_of(fresh) == name_of(second)
    assert len({name_of(p) for p in (tiny_models.model(), fresh, trained, scaled)}) == 4


def test_a_prompt_rendered_with_another_date_has_another_name(tokenizer):
    sample = Sample("a", "Who?", "Nobody.")
    names = set()
    for date in ("10 Apr 2025", "11 Apr 2025"):
        items = [Encoder(tokenizer, f"Today is {date}. {{prompt}}").encode(sample)]
        names.add(hash_inputs(tiny_models.model(), items, "packed"))
    assert len(names) == 2
