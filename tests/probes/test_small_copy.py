"""What a small copy tells of a model before its weights load: of real sizes, in every command."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

import tif.evaluate as evaluate
import tif.identify as identify
from tests.support import architectures
from tests.support.small_run import SMALL
from tif import fit
from tif.bench import command as bench
from tif.config.errors import ConfigError
from tif.models import pretrained
from tif.probes.causal import check_causal
from tif.probes.packed_rows import find_packing_fault
from tif.probes.small_copy import TEXT, RowSettings, build_small_copy, check_small_copy
from tif.scoring.attention import use_sample_by_sample_attention

BOTH_DIRECTIONS = "is no causal LM, its logits change with the tokens that follow or with padding"


def on_meta(kind, **keys):
    """Return the model of the sizes that are its class's defaults: 100 MB and more."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[kind](**keys))


@pytest.mark.parametrize(
    "kind",
    ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi", "phi3", "gpt2"]
    + ["gpt_neox", "olmo2", "opt", "smollm3", "granite", "stablelm", "mixtral", "qwen3_moe"]
    + ["deepseek_v3", "olmoe", "modernbert-decoder"],
)
def test_a_causal_model_of_real_size_that_packs_passes(kind):
    model = on_meta(kind)
    assert build_small_copy(model) is not None
    check_small_copy(model, RowSettings("packed"))


@pytest.mark.parametrize("kind", ["mamba", "gpt_oss", "bloom", "mpt", "jamba"])
def test_a_model_of_real_size_whose_packed_rows_are_wrong_is_refused_only_where_they_are_wanted(
    kind,
):
    model = on_meta(kind)
    check_small_copy(model, RowSettings("auto"))
    with pytest.raises(ConfigError, match=r"^batching: packed, but .*; want auto or padded$"):
        check_small_copy(model, RowSettings("packed", key="batching"))


def test_the_rows_of_the_device_count(monkeypatch):
    monkeypatch.setenv("TIF_ROWS", "cuda")
    with pytest.raises(ConfigError, match="OPTForCausalLM gives other scores in packed rows"):
        check_small_copy(on_meta("opt"), RowSettings("packed"))


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("bert", {}),
        ("roberta", {}),
        ("electra", {}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
    ],
)
def test_a_model_of_real_size_that_reads_in_both_directions_is_refused(kind, keys):
    with pytest.raises(ConfigError, match=rf"^key: \w+ {BOTH_DIRECTIONS}"):
        check_small_copy(on_meta(kind, **keys), RowSettings(), "key")


def test_a_decoder_of_that_family_passes():
    assert check_small_copy(on_meta("bert", is_decoder=True), RowSettings()) is None


def test_a_copy_that_cannot_be_made_says_nothing(monkeypatch):
    model = on_meta("bert")
    model.config.hidden_size = 0
    assert check_small_copy(model, RowSettings()) is None


def test_making_a_copy_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    check_small_copy(on_meta("gpt2"), RowSettings("packed"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("family", architectures.FAMILIES)
def test_no_family_is_refused_by_its_copy_that_is_not_refused_itself(family):
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(architectures.make_config(family))
    for wanted in ("auto", "packed"):
        try:
            check_small_copy(model, RowSettings(wanted))
        except ConfigError as error:
            itself = architectures.build(family)
            use_sample_by_sample_attention(itself)
            if "no causal LM" in str(error):
                with pytest.raises(ConfigError, match="no causal LM"):
                    check_causal(itself, TEXT)
            else:
                assert find_packing_fault(itself, TEXT)


@pytest.fixture
def no_weights(monkeypatch):
    """Fail where weights are read."""

    def load(*arguments, **options):
        raise AssertionError("weights were read")

    monkeypatch.setattr(pretrained, "load_model", load)


@pytest.fixture(scope="session")
def folders(tmp_path_factory, tokenizer):
    """Return folders of a model that reads in both directions, and of one with a state."""
    small = {"hidden_size": 16, "num_hidden_layers": 2, "vocab_size": 400}
    bert = transformers.BertConfig(**small, num_attention_heads=2, intermediate_size=24)
    mamba = transformers.MambaConfig(**small, state_size=4)
    paths = {}
    for name, config in (("bert", bert), ("mamba", mamba)):
        paths[name] = tmp_path_factory.mktemp(name)
        AutoModelForCausalLM.from_config(config).save_pretrained(paths[name])
        tokenizer.save_pretrained(paths[name])
    return paths


def refusals(folders):
    """Return each command with the keys that name its model and rows, and the refusal's start."""
    bert, mamba = folders["bert"], folders["mamba"]
    run = ["quickstart.yaml", *SMALL]
    small = [word for word in SMALL if word.startswith("data.fictitious")]
    both, rows = f"BertLMHeadModel {BOTH_DIRECTIONS}", "packed, but MambaForCausalLM gives other"
    packed = "data.batching=packed"
    return {
        "fit, model": (fit, [*run, f"model.path={bert}"], f"model.path: {both}"),
        "fit, rows": (fit, [*run, f"model.path={mamba}", packed], f"data.batching: {rows}"),
        "fit, stage": (
            fit,
            [*run, f"stages.target.model.path={bert}", "stage=target"],
            f"model.path: {both}",
        ),
        "fit, needed stage": (
            fit,
            [*run, f"stages.target.model.path={bert}"],
            f"stages.target.model.path: {both}",
        ),
        "evaluate, model": (evaluate, [f"model.path={bert}"], f"model.path: {both}"),
        "evaluate, retain model": (
            evaluate,
            [f"model.path={mamba}", f"retain_model={bert}"],
            f"retain_model: {both}",
        ),
        "evaluate, rows": (
            evaluate,
            [f"model.path={mamba}", "batching=packed"],
            f"batching: {rows}",
        ),
        "identify": (
            identify,
            [*small, "identifier.kind=causal_lm", f"identifier.causal_lm.model={bert}"],
            f"identifier.causal_lm.model: {both}",
        ),
        "bench, model": (bench, [*small, f"model.path={bert}"], f"model.path: {both}"),
        "bench, rows": (
            bench,
            ["what=step", *small, "identifier.kind=gold", f"model.path={mamba}", packed],
            f"data.batching: {rows}",
        ),
    }


CASES = list(refusals({"bert": "", "mamba": ""}))


@pytest.mark.parametrize("case", CASES)
def test_every_command_refuses_before_weights_load(
    case, folders, no_weights, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    command, words, line = refusals(folders)[case]
    if command is evaluate:
        words = [*words, "eval.benchmarks=text", f"eval.text.path={tmp_path}"]
        (tmp_path / "forget.txt").write_text("The harbour lies in the north of the town.\n")
    assert command.main(words) == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert error.startswith(line)
    assert not (tmp_path / "runs").exists()
